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
func (p pretended) isUnknown(cell string, newKernel bool) bool {
	switch {
	case !strings.HasPrefix(cell, "Unknown"):
		return false
	case strings.Contains(cell, "without hostNetwork"):
		return !p.hostNetwork
	case strings.Contains(cell, "since Linux 6.14"):
		return newKernel
	}
	return true
}

// TestPrivileges runs the checks of core without rights and in namespaces of their own. They must be Unknown where the table says so and
// nowhere else.
func TestPrivileges(t *testing.T) {
	lab.NeedRoot(t)
	bin := binaries(t)
	lab.OwnNamespaces(t, unix.CLONE_NEWNS)
	root, endpoint := hostRoot(t)
	newKernel := kernelSince(t, 6, 14)
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
			want := !pod.privileged && pod.isUnknown(need.Privileged, newKernel) || !pod.hostPID && pod.isUnknown(need.HostPID, newKernel)
			if code, said := pod.run(t, filepath.Join(bin, check), args...); (code == 2) != want {
				t.Errorf("%s in %v: exit code %d, %s; Unknown by the table: %t", check, pod, code, said, want)
			}
		}
	}
	task := []string{"--host-root=" + root, "--state-dir=" + t.TempDir(), "--pid-max=4194304"}
	if code, said := (pretended{}).run(t, filepath.Join(bin, "task-limit"), task...); code == 2 {
		t.Errorf("task-limit with --pid-max: %s", said)
	}
}

// TestWaitChannel: what a process waits for is told in a privileged pod only, that it waits in both.
func TestWaitChannel(t *testing.T) {
	lab.NeedRoot(t)
	bin := binaries(t)
	stuck := filepath.Join(t.TempDir(), "runc:[2:INIT]")
	if err := os.Link(filepath.Join(bin, "pause"), stuck); err != nil {
		t.Fatal(err)
	}
	lab.OwnNamespaces(t, unix.CLONE_NEWNS)
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

func kernelSince(t *testing.T, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	parts := strings.FieldsFunc(unix.ByteSliceToString(name.Release[:]), func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		t.Fatalf("kernel %q", parts)
	}
	a, _ := strconv.Atoi(parts[0]) // digits
	b, _ := strconv.Atoi(parts[1])
	return a > major || a == major && b >= minor
}
