package contract

import (
	"bytes"
	"fmt"
	"net/http"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/npd"
)

// hostileNames are names that pods and their owners choose, made to break a line, a terminal, a format or a parser.
var hostileNames = map[string]string{
	"newlines":     strings.Repeat("line\nfeed\r\n\t", 400),
	"escapes":      strings.Repeat("\x1b[2J\x1b]0;title\x07", 200),
	"formats":      strings.Repeat("%s%n%!d(MISSING)%%", 200),
	"not UTF-8":    strings.Repeat("\xff\xc0\xaf\xed\xa0\x80", 700),
	"not ASCII":    strings.Repeat("\u202e\u00e9\u2028", 500),
	"parentheses":  ") Z 1 (" + strings.Repeat(") S (", 10),
	"perfdata":     strings.Repeat("|a=1;;;0;'\"\\ ", 300),
	"one word":     strings.Repeat("a", 4096),
	"path":         strings.Repeat("../", 1300),
	"empty":        "",
	"NUL":          "a\x00b",
	"quoted lines": strings.Repeat("\"}\n# TYPE x gauge\nx{a=\"", 150),
}

func TestHostileNames(t *testing.T) {
	t.Parallel()
	for kind, name := range hostileNames {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			root := sickHost(t, name)
			for _, c := range checks {
				t.Run(c.name, func(t *testing.T) {
					if r := c.lookTwice(t, root); modelled[c.name] && r.Status != npd.NonOK {
						t.Errorf("%v, want a Problem: %s", r.Status, r.Message)
					}
				})
			}
		})
	}
}

// lookTwice returns the second look, which has the memory of the first.
func (c check) lookTwice(t *testing.T, root string, more ...string) npd.PluginResult {
	t.Helper()
	args := c.on(root, append(more, extraArgs[c.name]...)...)
	args = append(args, "--state-dir="+filepath.Join(t.TempDir(), "twice"))
	c.run(t, args...)
	return c.run(t, args...)
}

// sickHost is the healthy host with everything wrong that checks look for, all of it with the same name.
func sickHost(t *testing.T, name string) string {
	t.Helper()
	root := healthyRoot(t, "v2")
	comm := strings.NewReplacer("/", "-", "\x00", "?").Replace(name)
	set := func(file, content string) { write(t, filepath.Join(root, file), content) }

	set("proc/sys/fs/file-nr", "97000\t0\t97832\n")
	set("proc/loadavg", "90.00 90.00 90.00 9/32000 4711\n")
	set("proc/77/stat", stat(77, comm[:min(len(comm), 64)], 'S', 1, 3000)) // the kernel's own bound of a comm
	set("proc/77/status", "Name:\t"+comm+"\nUid:\t0\t0\t0\t0\nFDSize:\t256\n")
	set("proc/77/cgroup", "0::/kubepods/pod"+podUID+"/"+comm+"\n")
	for pid := 1000; pid < 1060; pid++ {
		set(fmt.Sprintf("proc/%d/stat", pid), stat(pid, comm[:min(len(comm), 15)], 'Z', 77, 4000))
	}
	set("proc/2000/stat", stat(2000, "runc:[2:INIT]", 'S', 1, 4000))
	set("proc/2000/wchan", name)
	set("proc/2000/cgroup", "0::/kubepods/pod"+podUID+"/"+comm+"\n")
	set("proc/2001/stat", stat(2001, "containerd", 'D', 1, 4000))
	set("proc/2001/wchan", name)
	set("proc/2001/task/2001/status", "Name:\tcontainerd\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t1\n")
	set("proc/2001/task/2001/wchan", name)
	set("proc/2001/task/2001/stack", "[<0>] "+name+"+0x1/0x2\n[<0>] fuse_statfs+0x1/0x2\n")
	word := strings.Join(strings.Fields(comm), "")
	set("proc/1/mountinfo", "27 1 0:45 / /"+word+" rw - fuse.x x rw\n28 1 8:16 / /"+word+" rw - ext4 /dev/"+word+" ro\n")
	group := "sys/fs/cgroup/system.slice/x" + comm[:min(len(comm), 200)] + ".service"
	set(group+"/pids.current", "30000\n")
	set(group+"/pids.max", "30001\n")
	set("proc/meminfo", "MemTotal: 16384000 kB\nMemAvailable: 400000 kB\nActive(file): 100000 kB\n")
	for _, file := range []string{"proc/pressure/memory", group + "/memory.pressure"} {
		set(file, "some avg10=40.00 avg60=34.00 avg300=9.00 total=9\nfull avg10=40.00 avg60=34.00 avg300=9.00 total=9\n")
	}
	set(group+"/memory.current", "16750000000\n")
	for _, dir := range []string{"sys/fs/cgroup", group} {
		set(dir+"/memory.stat", "anon 16750000000\nfile 4096\n")
		set(dir+"/cgroup.stat", "nr_descendants 140\nnr_dying_descendants 3000\n")
	}
	unhealthy := "PLEG is not healthy: " + strings.ReplaceAll(name, "\n", " ")
	set(systemJournal, journal("kubelet", unhealthy, unhealthy, unhealthy))
	makeDir(t, filepath.Join(root, "var/log/pods/x"+comm[:min(len(comm), 100)]+"_web_"+podUID))

	serveNames(t, root, name)
	serveSickSystemd(t, root, name)
	return root
}

// serveNames lists 10 pods and containers of that name. The name takes the place of another in the encoded lists,
// because what is not UTF-8 cannot be encoded.
func serveNames(t *testing.T, root, name string) {
	t.Helper()
	instead := strings.Repeat("N", len(name))
	labels := map[string]string{instead: instead, "io.kubernetes.pod.name": instead, "io.kubernetes.pod.namespace": instead}
	var sandboxes runtimeapi.ListPodSandboxResponse
	var containers runtimeapi.ListContainersResponse
	for i := range 10 {
		id := fmt.Sprintf("%064x", i)
		sandboxes.Items = append(sandboxes.Items, &runtimeapi.PodSandbox{
			Id: instead, Metadata: &runtimeapi.PodSandboxMetadata{Name: instead, Namespace: instead, Uid: id}, Labels: labels,
			State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY,
		})
		containers.Containers = append(containers.Containers, &runtimeapi.Container{
			Id: instead, PodSandboxId: id, Metadata: &runtimeapi.ContainerMetadata{Name: instead}, Labels: labels,
			State: runtimeapi.ContainerState_CONTAINER_CREATED, CreatedAt: time.Now().Add(-time.Hour).UnixNano(),
		})
	}
	replies := map[string][]byte{
		"Version":        encode(t, &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeApiVersion: "v1"}),
		"ListPodSandbox": encode(t, &sandboxes),
		"ListContainers": encode(t, &containers),
	}
	serveHTTP2(t, root, func(w http.ResponseWriter, r *http.Request) {
		message, ok := replies[path.Base(r.URL.Path)]
		if !ok {
			reply(nil, "12", "unknown method")(w, r)
			return
		}
		if name != "" {
			message = bytes.ReplaceAll(message, []byte(instead), []byte(name))
		}
		reply(frame(message), "0", "")(w, r)
	})
}

const podUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"

// stat is a line of /proc/PID/stat with a start time in clock ticks.
func stat(pid int, comm string, state byte, ppid, start int) string {
	return fmt.Sprintf("%d (%s) %c %d 0 0 0 -1 4194560 0 0 0 0 1 2 0 0 20 0 1 0 %d 0 0 18446744073709551615\n", pid, comm, state, ppid, start)
}
