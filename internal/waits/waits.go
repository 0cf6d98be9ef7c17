// Package waits tells why a task does not run.
package waits

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"time"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/procfs"
)

// Reason is why a task does not run, as it is at one moment.
type Reason struct {
	State  byte   // as /proc/PID/stat has it
	Frozen bool   // by the freezer of cgroups
	Group  string // that is frozen, "" when the cgroups of the host cannot be read
	In     string // the kernel function in which it sleeps, "" when it runs or the reader may not know; in state D the operation, not the lock
}

// Of looks at a task that stat shows in that state.
func Of(h *host.Root, p procfs.Process, state byte) Reason {
	r := Reason{State: state, In: p.WaitChannel()}
	if file, err := p.Cgroups(); err == nil { // a task that has just ended has none
		r.Group = cgroup.Frozen(h, file)
	}
	r.Frozen = r.Group != "" || inFreezer(r.In) && (state != 'D' || r.In == "__refrigerator")
	if state == 'D' && !r.Frozen {
		r.In = cmp.Or(procfs.Operation(append([]string{r.In}, p.Stack()...)), r.In)
	}
	return r
}

// inFreezer says whether the kernel function is the freezer's: __refrigerator
// on cgroup v1 before Linux 6.1, do_freezer_trap, or get_signal into which it is
// inlined, on v2 (kernel/freezer.c, kernel/signal.c).
func inFreezer(function string) bool {
	return function == "__refrigerator" || function == "do_freezer_trap" || function == "get_signal"
}

// Held says whether the task goes on only when somebody or something else lets
// it: it is frozen, stopped, traced, or sleeps uninterruptibly.
func (r Reason) Held() bool {
	return r.Frozen || r.State == 'T' || r.State == 't' || r.State == 'D'
}

// String is the predicate of a sentence about the task: "is stopped (state T)".
func (r Reason) String() string {
	where := ""
	if r.In != "" {
		where = " in " + r.In
	}
	switch {
	case r.Frozen && r.Group != "":
		return "is frozen with its cgroup " + r.Group
	case r.Frozen:
		return "is frozen with its cgroup"
	case r.State == 'T':
		return "is stopped (state T)"
	case r.State == 't':
		return "is held by a debugger (state t)"
	case r.State == 'D':
		return "is in uninterruptible sleep" + where + " (state D)"
	case r.State == 'Z':
		return "has ended (state Z)"
	case r.State == 'R':
		return "is not stopped (state R)"
	}
	return fmt.Sprintf("is not stopped, it sleeps%s (state %c)", where, r.State)
}

// throttleWatch is how long Throttled looks: longer than the period of a CPU
// quota, 100 ms unless somebody chose another.
const throttleWatch = 250 * time.Millisecond

// Throttled names the cgroup of the task, or one above it, whose CPU quota was
// used up while this call watched, "" when none was.
func Throttled(ctx context.Context, h *host.Root, p procfs.Process) string {
	file, err := p.Cgroups()
	if err != nil {
		return ""
	}
	hierarchy, err := cgroup.Hierarchy(h, "cpu")
	if err != nil {
		return ""
	}
	group := cgroup.PathIn(file, "cpu")
	before := map[string]uint64{}
	for g := group; g != "/" && g != "."; g = path.Dir(g) {
		before[g] = cgroup.TimesThrottled(h, hierarchy+g)
	}
	select {
	case <-time.After(throttleWatch):
	case <-ctx.Done():
	}
	for g := group; g != "/" && g != "."; g = path.Dir(g) {
		if cgroup.TimesThrottled(h, hierarchy+g) > before[g] {
			return g
		}
	}
	return ""
}
