// Command runc-init tells of containers that were created and do not start:
// "runc init" hangs between create and start.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/cri"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
	"npd-plugins/internal/waits"
)

type check struct {
	age      time.Duration
	endpoint string
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "runc-init",
		Condition: "RuncInitStuck",
		Purpose: "A container hangs in \"runc init\" after it was created and before it runs; its pod stays in ContainerCreating, and kubelet's retries pile up behind it.\n" +
			"Looks for processes named runc:[2:INIT], and containers that the runtime lists as created, that are older than --age. kubelet gives up a start after\n" +
			"2 minutes and tries again: attempts in a row count as one, and between two of them the Problem stays.",
		Reads: []string{"/proc/*/stat", "/proc/PID/{wchan,cgroup} of a stuck process and the freezer of its cgroup", "the CRI socket: ListContainers of state CREATED; the containers of a pod that does not start, and ContainerStatus",
			"/var/log/pods (names of pods)"},
		Needs:            "the host's /proc and /sys/fs/cgroup and the directory of the CRI socket below --host-root, without hostPID; CAP_SYS_PTRACE to tell what the process waits for",
		LookAlikes:       "a container that was created less than --age ago; a frozen one; a process in a running container that calls itself runc:[2:INIT]; a container that starts and crashes",
		Example:          "--host-root=/host --age=45s",
		FailureThreshold: 1,
		Timeout:          20 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.DurationVar(fs, &c.age, "age", 45*time.Second, "Problem when a container has not started for this `duration`; kubelet's limit is 2m (runtimeRequestTimeout)")
			cri.EndpointVar(fs, &c.endpoint)
		},
		Look: c.look,
	})
}

// stuck is a container that does not start.
type stuck struct {
	owner   string // pod, or container outside of pods
	id      string // of the container, "" when the cgroup does not tell
	age     time.Duration
	process string // of runc init, "" when there is none
	waits   string // wait channel of the process, "" when it cannot be read
	cgroups string // of the process
	tries   int    // attempts to start it, when there were several
	over    bool   // kubelet has given up the last of them, and makes the next later
	frozen  bool   // with its cgroup
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	found, err := c.processes(l)
	if err != nil {
		return plugin.Unknownf("cannot look for runc init: %v", err)
	}
	var m memory
	l.Recall(&m)
	found, criErr := c.askRuntime(ctx, l, found, &m)
	found = slices.DeleteFunc(found, func(s stuck) bool { return s.frozen || s.age < c.age })
	if criErr == nil {
		l.Remember(m)
	} else if len(found) == 0 {
		return plugin.Unknownf("no runc init is stuck, but created containers are not known: %s", cri.Reason(criErr))
	}

	v := plugin.Verdict{Measurements: []plugin.Measurement{{Name: "containers_stuck", Value: float64(len(found)), Unit: "containers"}}}
	if len(found) == 0 {
		v.Message = "no container is stuck between create and start"
		if len(m) > 0 { // attempts so far, and each may end before the next look
			v.Suspicion = plugin.Count(len(m), "container") + " created and not started yet"
		}
		return v
	}
	v.Status = plugin.Problem
	slices.SortStableFunc(found, func(a, b stuck) int { return cmp.Compare(b.age, a.age) })
	for _, s := range found[:min(len(found), 10)] {
		v.Details = append(v.Details, s.String())
	}
	oldest := found[0]
	v.Message = fmt.Sprintf("a container does not start; %s", oldest)
	if len(found) > 1 {
		v.Message = fmt.Sprintf("%d containers do not start; oldest: %s", len(found), oldest)
	}
	if inPipeWrite(oldest.waits) {
		v.Message += ": fs.pipe-user-pages-soft is exceeded for uid 0; runc >= 1.0.0 is not affected"
	}
	return v
}

func (s stuck) String() string {
	text := s.owner
	if s.id != "" {
		text = strings.TrimSpace(text + " container " + s.id[:min(len(s.id), 12)])
	}
	age := s.age.Round(time.Second).String()
	switch {
	case s.tries > 1:
		text += fmt.Sprintf(" not started %d times in %s", s.tries, age)
	case s.over:
		text += " not started for " + age
	default:
		text = strings.TrimSpace(text + " created " + age + " ago")
	}
	if s.process != "" {
		text += ", " + s.process
	}
	if s.waits != "" {
		text += " waits in " + s.waits
	}
	return text
}

// inPipeWrite says whether the kernel function is the one that waits for room
// in a pipe: anon_pipe_write since Linux 6.14, pipe_write since 5.5 and
// pipe_wait before (fs/pipe.c).
func inPipeWrite(wchan string) bool {
	return wchan == "anon_pipe_write" || wchan == "pipe_write" || wchan == "pipe_wait"
}

// comm that runc gives its init (libcontainer/nsenter/nsexec.c).
const initComm = "runc:[2:INIT]"

// processes finds runc init processes that could be those of an attempt. One is
// always a little younger than its container.
func (c *check) processes(l *plugin.Look) ([]stuck, error) {
	uptime, err := procfs.Uptime(l.Host)
	if err != nil {
		return nil, err
	}
	var found []stuck
	err = procfs.EachStat(l.Host, func(s procfs.Stat) bool {
		if s.Comm != initComm || s.Age(uptime) < min(settled, c.age) || s.Exiting {
			return true
		}
		p := procfs.Of(l.Host, s.PID)
		why := waits.Of(l.Host, p, s.State)
		file, _ := p.Cgroups() // a process that has just ended has none
		owner := cgroup.OwnerOfProcess(file)
		found = append(found, stuck{
			owner: l.Owner(cgroup.Owner{PodUID: owner.PodUID}), id: owner.Container, age: s.Age(uptime),
			process: fmt.Sprintf("%s (pid %d)", initComm, s.PID), waits: plugin.Safe(why.In, 40), frozen: why.Frozen, cgroups: string(file)})
		return true
	})
	return found, err
}

// merge joins what the process and the runtime tell of the same container. The
// runtime knows the pod's name and the attempts, the process what it waits for.
func merge(processes, containers []stuck) []stuck {
	all := processes
next:
	for _, k := range containers {
		for i := range processes {
			if p := &processes[i]; p.id == k.id {
				p.owner, p.tries, p.age = cmp.Or(k.owner, p.owner), k.tries, max(p.age, k.age)
				continue next
			}
		}
		all = append(all, k)
	}
	return all
}
