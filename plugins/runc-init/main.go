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

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/cri"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
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
			"Looks for processes named runc:[2:INIT], and containers that the runtime lists as created, that are older than --age.",
		Reads:      []string{"/proc/*/stat", "/proc/PID/{wchan,cgroup} of a stuck process", "the CRI socket: ListContainers of state CREATED", "/var/log/pods (names of pods)"},
		Needs:      "the host's /proc and the directory of the CRI socket below --host-root, without hostPID; CAP_SYS_PTRACE to tell what the process waits for",
		LookAlikes: "a container that was created less than --age ago; a frozen one",
		Example:    "--host-root=/host --age=2m",
		For:        1,
		Timeout:    20 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.DurationVar(fs, &c.age, "age", 2*time.Minute, "Problem when a container has not started for this `duration`")
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
}

func (s stuck) frozen() bool { return inFreezer(s.waits) }

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	found, err := c.processes(l)
	if err != nil {
		return plugin.Unknownf("cannot look for runc init: %v", err)
	}
	created, criErr := c.created(ctx, l)
	if criErr != nil && !slices.ContainsFunc(found, func(s stuck) bool { return !s.frozen() }) {
		return plugin.Unknownf("no runc init is stuck, but created containers are not known: %s", cri.Reason(criErr))
	}
	found = slices.DeleteFunc(merge(found, created), stuck.frozen)

	v := plugin.Verdict{Measurements: []plugin.Measurement{{Name: "containers_stuck", Value: float64(len(found)), Unit: "containers"}}}
	if len(found) == 0 {
		v.Message = "no container is stuck between create and start"
		return v
	}
	v.Status = plugin.Problem
	oldest := found[0]
	for _, s := range found {
		if s.age > oldest.age {
			oldest = s
		}
		v.Details = append(v.Details, s.String())
	}
	v.Details = v.Details[:min(len(v.Details), 10)]
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
	text = strings.TrimSpace(text + " created " + s.age.Round(time.Second).String() + " ago")
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

// inFreezer says whether the kernel function is the freezer's: __refrigerator on
// cgroup v1, do_freezer_trap (inlined into get_signal) on v2.
func inFreezer(wchan string) bool {
	return wchan == "__refrigerator" || wchan == "do_freezer_trap" || wchan == "get_signal"
}

// comm that runc gives its init (libcontainer/nsenter/nsexec.c).
const initComm = "runc:[2:INIT]"

// processes finds runc init processes older than the age.
func (c *check) processes(l *plugin.Look) ([]stuck, error) {
	uptime, err := procfs.Uptime(l.Host)
	if err != nil {
		return nil, err
	}
	var found []stuck
	err = procfs.EachStat(l.Host, func(s procfs.Stat) bool {
		if s.Comm != initComm || s.Age(uptime) < c.age || s.Exiting {
			return true
		}
		p := procfs.Of(l.Host, s.PID)
		file, _ := p.Cgroups() // a process that has just ended has none
		owner := cgroup.OwnerOfProcess(file)
		found = append(found, stuck{
			owner: l.Owner(cgroup.Owner{PodUID: owner.PodUID}), id: owner.Container, age: s.Age(uptime),
			process: fmt.Sprintf("%s (pid %d)", initComm, s.PID), waits: plugin.Safe(p.WaitChannel(), 40)})
		return true
	})
	return found, err
}

// created finds the containers that the runtime has listed as created for
// longer than the age.
func (c *check) created(ctx context.Context, l *plugin.Look) ([]stuck, error) {
	client, err := cri.Connect(ctx, l.Host, c.endpoint)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var found []stuck
	filter := &runtime.ContainerFilter{State: &runtime.ContainerStateValue{State: runtime.ContainerState_CONTAINER_CREATED}}
	_, err = client.Containers(ctx, filter, func(k *cri.Container) {
		age := l.Now.Sub(k.CreatedAt)
		if k.State != runtime.ContainerState_CONTAINER_CREATED || k.CreatedAt.IsZero() || age < c.age {
			return
		}
		found = append(found, stuck{owner: k.Pod(), id: plugin.Safe(string(k.ID), 64), age: age})
	})
	return found, err
}

// merge joins what the process and the runtime tell of the same container. The
// runtime knows the pod's name, the process what it waits for.
func merge(processes, containers []stuck) []stuck {
	all := processes
next:
	for _, k := range containers {
		for i := range processes {
			if processes[i].id == k.id {
				processes[i].owner = cmp.Or(k.owner, processes[i].owner)
				continue next
			}
		}
		all = append(all, k)
	}
	return all
}
