// Command cri-latency tells that the container runtime hangs, is slow, or is
// down: which of its calls answer, which do not, and the state of its daemon.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cri"
	"npd-plugins/internal/plugin"
)

type check struct {
	slow     time.Duration
	start    time.Duration
	endpoint string
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "cri-latency",
		Condition: "ContainerRuntimeStalled",
		Purpose: "The container runtime hangs, answers too late, or is down or does not start; kubelet can then start and stop no container, and the node goes NotReady.\n" +
			"Calls Version, Status, ListContainers and ListPodSandbox at the same time over one connection, and tells which of them answer within --slow.",
		Reads: []string{"the CRI socket: Version, Status, ListContainers and ListPodSandbox filtered by a label that nobody has",
			"only when it does not answer: /proc/*/stat, /proc/PID/{task,wchan,cgroup,status,exe,fd,net/unix} of the daemon and its shims, the freezer and cpu.stat of its cgroup,",
			"the working directory and config.json of a shim that is held, /var/log/pods (names of pods), and of systemd the state of the runtime's service"},
		Needs: "the directory of the CRI socket below --host-root, and the right to connect (root); for the state of the daemon the host's /proc, without hostPID, " +
			"CAP_SYS_PTRACE to tell what it waits for, and the host's /sys/fs/cgroup, /run/systemd and /run/dbus",
		LookAlikes:       "a busy runtime that answers in time; one bad look, such as a restart; a runtime that answers with an error, or that starts and works, is Unknown",
		Example:          "--host-root=/host --slow=10s",
		FailureThreshold: 2,
		Timeout:          20 * time.Second,
		Flags: func(flags *flag.FlagSet) {
			plugin.DurationVar(flags, &c.slow, "slow", 10*time.Second, "Problem when a call takes this `duration` or longer; --timeout must be twice as long")
			plugin.DurationVar(flags, &c.start, "start", time.Minute, "Problem when the runtime has run for this `duration` without listening at its socket")
			cri.EndpointVar(flags, &c.endpoint)
		},
		Look: c.look,
	})
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	var m memory
	l.Recall(&m)
	if c.endpoint != "" && !samePath(m.Socket, c.endpoint) {
		m.Socket = "" // it was told to look elsewhere
	}
	v := c.atSockets(ctx, l, &m)
	l.Remember(m)
	return v
}

// atSockets judges the first socket at which a runtime answers, or does not.
func (c *check) atSockets(ctx context.Context, l *plugin.Look, m *memory) plugin.Verdict {
	sockets, err := cri.Sockets(l.Host, c.endpoint)
	switch {
	case errors.Is(err, fs.ErrNotExist) && m.Socket != "":
		return c.down(ctx, l, m.Socket, m.Socket+" is gone", nil)
	case errors.Is(err, fs.ErrNotExist):
		return c.down(ctx, l, c.endpoint, "there is no socket", err)
	case err != nil:
		return plugin.Unknownf("cannot time the container runtime: %v", err)
	}
	var refused string // socket that a daemon left, or one that was removed long ago
	var noCRI, failed error
	lost := m.Socket != "" // what has answered does not any more
	for _, socket := range sockets {
		v, err := c.lookAt(ctx, l, socket)
		switch {
		case err == nil:
			if v.Status == plugin.OK {
				m.Socket = socket
			}
			return v
		case errors.Is(err, syscall.ECONNREFUSED):
			if refused == "" || socket == m.Socket {
				refused = socket
			}
		case status.Code(err) == codes.Unimplemented && socket == m.Socket:
			return problem(fmt.Sprintf("container runtime has lost its CRI: %s answers without it, its plugin has failed or is disabled; see the runtime's log", socket))
		case status.Code(err) == codes.Unimplemented: // the containerd of Docker
			noCRI = cmp.Or(noCRI, err)
		default:
			failed = cmp.Or(failed, err)
		}
		lost = lost && socket != m.Socket
	}
	switch {
	case failed != nil:
		return plugin.Unknownf("cannot time the container runtime: %v", cri.Reason(failed))
	case lost:
		return c.down(ctx, l, m.Socket, m.Socket+" is gone", nil)
	case refused != "":
		return c.down(ctx, l, refused, fmt.Sprintf("nobody listens at %s (connection refused)", refused), nil)
	}
	return plugin.Unknownf("cannot time the container runtime: %v", cri.Reason(noCRI))
}

// lookAt judges the runtime at a socket. An error says why there is none.
func (c *check) lookAt(ctx context.Context, l *plugin.Look, socket string) (plugin.Verdict, error) {
	client, err := cri.Dial(ctx, l.Host, socket)
	if errors.Is(err, syscall.EAGAIN) {
		return problem(fmt.Sprintf("container runtime accepts no connection: the queue at %s is full; %s", socket, daemonState(ctx, l, socket, 0))), nil
	}
	if err != nil {
		return plugin.Verdict{}, err
	}
	defer client.Close()
	patience := c.patience(ctx)
	v, err := c.judge(ask(ctx, client, patience), patience, func() string { return daemonState(ctx, l, socket, client.Listener()) })
	if err == nil && v.Status == plugin.Unknown {
		if gone := withoutDockerd(ctx, l, socket, client.Listener()); gone != "" {
			return problem("container runtime is down: " + gone), nil
		}
	}
	return v, err
}

// patience is how long a call is waited for: longer than --slow, to tell what
// is late from what hangs, but not so long that no time is left for a verdict.
func (c *check) patience(ctx context.Context) time.Duration {
	d := c.slow / 5 * 6
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(deadline)/10*9)
	}
	return d
}

// call is what became of one call.
type call struct {
	name     string
	measured string        // its name among the measurements
	took     time.Duration // until it answered or was given up
	hung     bool          // given up
	err      error
}

func (k call) String() string { return k.name + " " + seconds(k.took) }

// seconds writes 3ms and 11.2s.
func seconds(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// nobody is a label that no pod has. With it the runtime goes through all that
// it would list, and takes all the locks, and sends nothing.
var nobody = map[string]string{"npd-plugins-cri-latency": "nobody"}

// ask makes all calls at once, each with the same time to answer: one that
// hangs takes nothing from the others. The runtime is not told that time, for
// it would give up at the same moment, with an error that looks like an answer.
func ask(ctx context.Context, client *cri.Client, patience time.Duration) []call {
	asked := []struct {
		name, measured string
		call           func(context.Context) error
	}{
		{"Version", "version", client.Version},
		{"Status", "status", client.Status},
		{"ListContainers", "list_containers", func(ctx context.Context) error {
			_, err := client.Containers(ctx, &runtime.ContainerFilter{LabelSelector: nobody}, func(*cri.Container) {})
			return err
		}},
		{"ListPodSandbox", "list_pod_sandbox", func(ctx context.Context) error {
			_, err := client.Sandboxes(ctx, &runtime.PodSandboxFilter{LabelSelector: nobody}, func(*cri.Sandbox) {})
			return err
		}},
	}
	calls := make([]call, len(asked))
	var all sync.WaitGroup
	for i, a := range asked {
		all.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			start := time.Now()
			defer time.AfterFunc(patience, cancel).Stop()
			err := a.call(ctx)
			calls[i] = call{a.name, a.measured, time.Since(start), err != nil && ctx.Err() != nil, err}
		})
	}
	all.Wait()
	return calls
}

// outcome has the calls by what became of them.
type outcome struct {
	hung, slow, answered, failed []string
	err                          error // of the first that failed
}

func (c *check) sort(calls []call) outcome {
	var o outcome
	for _, k := range calls {
		switch {
		case k.hung:
			o.hung = append(o.hung, k.name)
		case k.took >= c.slow:
			o.slow = append(o.slow, k.String())
		case k.err == nil:
			o.answered = append(o.answered, k.String())
		default:
			o.failed = append(o.failed, k.name)
			o.err = cmp.Or(o.err, k.err)
		}
	}
	return o
}

// judge tells a runtime that hangs, is slow, or fails. An error says that
// there is no runtime behind the socket. daemon is asked only when it hangs.
func (c *check) judge(calls []call, patience time.Duration, daemon func() string) (plugin.Verdict, error) {
	o := c.sort(calls)
	hung, slow, answered, failed := list(o.hung), list(o.slow), list(o.answered), list(o.failed)
	var message []string
	switch {
	case hung != "" && patience < c.slow:
		return plugin.Unknownf("cannot time the container runtime: no answer to %s in %s, and --timeout is too short to wait for --slow %s", hung, seconds(patience), c.slow), nil
	case len(o.hung) == len(calls):
		message = []string{fmt.Sprintf("container runtime answers nothing: %s hang for %s", hung, seconds(patience)), daemon()}
	case hung != "":
		message = []string{fmt.Sprintf("container runtime hangs in %s for %s", hung, seconds(patience))}
		if slow != "" {
			message = append(message, slow+" answer late")
		}
		if answered != "" {
			message = append(message, answered+" answer: a lock is held in it, see IOStalled, TasksStuck")
		}
		message = append(message, daemon())
	case slow != "":
		message = []string{fmt.Sprintf("container runtime is slow: %s, limit %s", slow, c.slow)}
		if answered != "" {
			message = append(message, "in time: "+answered)
		}
	case len(o.failed) == len(calls):
		return plugin.Verdict{}, o.err
	case failed != "":
		return plugin.Undecidedf("the container runtime answers in time, but with an error: %v", o.err), nil
	}
	if message == nil {
		return plugin.Verdict{Message: "the container runtime answers: " + answered, Measurements: c.measurements(calls)}, nil
	}
	if failed != "" {
		message = append(message, "failed: "+failed)
	}
	v := problem(strings.Join(message, "; "))
	v.Measurements = c.measurements(calls)
	for _, k := range calls {
		v.Details = append(v.Details, k.detail())
	}
	return v, nil
}

func list(names []string) string { return strings.Join(names, ", ") }

func (k call) detail() string {
	switch {
	case k.hung:
		return fmt.Sprintf("%s: no answer in %s", k.name, seconds(k.took))
	case k.err != nil:
		return fmt.Sprintf("%s: failed after %s: %v", k.name, seconds(k.took), k.err)
	}
	return fmt.Sprintf("%s: answered in %s", k.name, seconds(k.took))
}

func (c *check) measurements(calls []call) (m []plugin.Measurement) {
	for _, k := range calls {
		m = append(m, plugin.Measurement{Name: k.measured, Value: k.took.Seconds(), Limit: c.slow.Seconds(), Unit: "seconds"})
	}
	return m
}

// problem is a Problem whose message is also the first line of the log.
func problem(message string) plugin.Verdict {
	return plugin.Verdict{Status: plugin.Problem, Message: message, Details: []string{message}}
}
