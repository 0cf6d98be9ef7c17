package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
	"npd-plugins/internal/procfs"
	"npd-plugins/test/lab"
)

// ofAnyContainer are the capabilities that container runtimes give to a container that asks for none.
const ofAnyContainer = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap"

// pretended is a pod to run a check in.
type pretended struct {
	privileged, hostPID, hostNetwork bool
}

func (p pretended) String() string {
	words := []string{"a pod"}
	for word, has := range map[string]bool{"privileged": p.privileged, "hostPID": p.hostPID, "hostNetwork": p.hostNetwork} {
		if has {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// run runs a check in the pod and returns its exit code and what it says.
func (p pretended) run(t *testing.T, check string, args ...string) (code int, said string) {
	t.Helper()
	command := append([]string{check}, args...)
	if !p.privileged {
		command = append([]string{lab.NeedCommand(t, "setpriv", "util-linux"), "--bounding-set=" + ofAnyContainer, "--inh-caps=-all", "--"}, command...)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWCGROUP}
	if !p.hostPID {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
	}
	if !p.hostNetwork {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(string(out))
}

// hostRoot mounts what core mounts of the machine, with a container runtime, for a test in a mount namespace of its own.
func hostRoot(t *testing.T) (root, endpoint string) {
	t.Helper()
	root = t.TempDir()
	socket := strings.TrimPrefix(new(lab.FakeCRI).Serve(t), "unix://")
	for path, source := range map[string]string{"proc": "/proc", "sys": "/sys", "run/runtime": filepath.Dir(socket)} {
		target := filepath.Join(root, path)
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	}
	return root, "--cri-endpoint=/run/runtime/" + filepath.Base(socket)
}

// isUnknown is whether a cell of the table says that a check is Unknown in the pod, for lack of that right.
func (p pretended) isUnknown(cell string) bool {
	return strings.HasPrefix(cell, "Unknown") && !(strings.Contains(cell, "without hostNetwork") && p.hostNetwork)
}

// TestPrivileges runs the checks of core without rights and in namespaces of their own. They must be Unknown where the table says so and
// nowhere else.
func TestPrivileges(t *testing.T) {
	lab.NeedRoot(t)
	bin := binaries(t)
	lab.OwnNamespaces(t, unix.CLONE_NEWNS)
	root, endpoint := hostRoot(t)
	for _, pod := range []pretended{
		{}, {hostPID: true}, {hostNetwork: true}, {hostPID: true, hostNetwork: true}, {privileged: true, hostPID: true, hostNetwork: true},
	} {
		for check, need := range readAllNeeds(t).Checks {
			if need.Profile != core {
				continue
			}
			args := []string{"--host-root=" + root, "--state-dir=" + t.TempDir()}
			if strings.HasPrefix(check, "cri-") || check == "runc-init" {
				args = append(args, endpoint)
			}
			want := !pod.privileged && pod.isUnknown(need.Privileged) || !pod.hostPID && pod.isUnknown(need.HostPID)
			if code, said := pod.run(t, filepath.Join(bin, check), args...); (code == 2) != want {
				t.Errorf("%s in %v: exit code %d, %s; Unknown by the table: %t", check, pod, code, said, want)
			}
		}
	}
}

// TestWaitChannel: what a process waits for is told in a privileged pod only, that it waits in both.
func TestWaitChannel(t *testing.T) {
	bin := binaries(t)
	if !lab.InPIDNamespace(t, bin) {
		return
	}
	stuck := filepath.Join(t.TempDir(), "runc:[2:INIT]")
	if err := os.Link(filepath.Join(bin, "pause"), stuck); err != nil {
		t.Fatal(err)
	}
	root, endpoint := hostRoot(t)
	init := exec.Command(stuck)
	init.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := init.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { init.Process.Kill(); init.Wait() }()
	pid := "pid " + strconv.Itoa(init.Process.Pid)
	for _, pod := range []pretended{{}, {privileged: true}} {
		var said string
		lab.Eventually(t, 20*time.Second, "runc init is stuck", func() bool {
			_, said = pod.run(t, filepath.Join(bin, "runc-init"), "--host-root="+root, "--state-dir="+t.TempDir(), "--age=1s", endpoint)
			return strings.Contains(said, pid)
		})
		if told := strings.Contains(said, " waits in "); told != pod.privileged {
			t.Errorf("in %v: %s", pod, said)
		}
	}
}

// TestDefaultInstallation: in the pod that the manifests make, privileged and in namespaces of its own, no check of core is Unknown on
// the kernel of this machine.
func TestDefaultInstallation(t *testing.T) {
	bin := binaries(t)
	if !lab.InPIDNamespace(t, bin) { // whose process 1 is the test's, as the node's is the pod's to look into
		return
	}
	root, endpoint := hostRoot(t)
	for check, need := range readAllNeeds(t).Checks {
		if need.Profile != core {
			continue
		}
		args := []string{"--host-root=" + root, "--state-dir=" + t.TempDir()}
		if strings.HasPrefix(check, "cri-") || check == "runc-init" {
			args = append(args, endpoint)
		}
		code, said := pretended{privileged: true}.run(t, filepath.Join(bin, check), args...)
		t.Logf("%s: %s", check, said)
		if code == 2 {
			t.Errorf("%s is Unknown: %s", check, said)
		}
	}
}

// TestTaskLimitInPod: in a pod, where kernel.pid_max is another since Linux 6.14, task-limit takes the limit that kubelet gave all pods.
func TestTaskLimitInPod(t *testing.T) {
	lab.NeedRoot(t)
	machine, err := host.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	if k, err := procfs.KernelOf(machine); err != nil || k.Before(6, 14) {
		t.Skipf("before Linux 6.14 kernel.pid_max is the host's in each pod: %v, %v", k, err)
	}
	bin := binaries(t)
	if !lab.InPIDNamespace(t, bin) { // whose PIDs are low, as after a boot: a PID is less than the limit
		return
	}
	tasks, err := procfs.Tasks(machine)
	if err != nil {
		t.Fatal(err)
	}
	root, _ := hostRoot(t)
	node := lab.NewCgroup(t, "node") // without the pods of other tests
	kubepods := node.Child(t, "kubepods")
	controller := "sys/fs/cgroup/pids" // v1
	if _, err := os.Stat("/" + controller); err != nil {
		controller = "sys/fs/cgroup"
	}
	hierarchy := filepath.Join(root, controller)
	if err := unix.Mount(filepath.Join("/", controller, node.Path), hierarchy, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(hierarchy, unix.MNT_DETACH) })
	check := func() (code int, said string) {
		return pretended{privileged: true}.run(t, filepath.Join(bin, "task-limit"), "--host-root="+root, "--state-dir="+t.TempDir(), "--failure-threshold=1")
	}
	if code, said := check(); code != 0 {
		t.Errorf("without a limit of kubelet: exit code %d, %s", code, said)
	}
	kubepods.LimitTasks(t, tasks*10/9)
	if code, said := check(); code != 1 || !strings.Contains(said, "percent of kubelet's limit for all pods, ") {
		t.Errorf("nine tenths of kubelet's limit: exit code %d, %s", code, said)
	}
	kubepods.LimitTasks(t, 1000000)
	if code, said := check(); code != 0 {
		t.Errorf("a limit of 1000000: exit code %d, %s", code, said)
	}
}
