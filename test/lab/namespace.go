package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// OwnNamespaces puts the thread that the test runs on into new namespaces (unix.CLONE_NEWNET, unix.CLONE_NEWNS) until
// the test ends, and with it the processes that the test starts. What is mounted there is seen nowhere else.
func OwnNamespaces(t testing.TB, flags int) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(flags); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	if flags&unix.CLONE_NEWNS != 0 {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatalf("make mounts private: %v", err)
		}
	}
}

// HostProc mounts a host root, for a thread in a mount namespace of its own, whose process 1 has the network and mount
// namespace of the thread. The rest of its /proc is that of the machine.
func HostProc(t testing.TB) (root string) {
	t.Helper()
	root = t.TempDir()
	own := "/proc/self/task/" + strconv.Itoa(unix.Gettid())
	for target, source := range map[string]string{
		"proc/sys": "/proc/sys", "proc/key-users": "/proc/key-users",
		"proc/1/net": own + "/net", "proc/1/mountinfo": own + "/mountinfo", "proc/1/ns/net": own + "/ns/net",
	} {
		bind(t, source, filepath.Join(root, target))
	}
	return root
}

// bind mounts a file or directory on one that it makes.
func bind(t testing.TB, source, target string) {
	t.Helper()
	info, err := os.Stat(source)
	if err != nil {
		t.Fatal(err)
	}
	dir := target
	if !info.IsDir() {
		dir = filepath.Dir(target)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if dir != target {
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatalf("bind %s on %s: %v", source, target, err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
}

// envUserNamespace tells a test that it runs in a user namespace.
const envUserNamespace = "NPD_LAB_USERNS"

// InUserNamespace runs the test once more, in a user namespace of its own in which it is root. It says true there, and
// false outside, where the test has nothing left to do. built is the directory with the built checks.
func InUserNamespace(t *testing.T, built string) bool {
	t.Helper()
	if os.Getenv(envUserNamespace) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), envUserNamespace+"=1", EnvBinaries+"="+built)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, Pdeathsig: unix.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	said, err := cmd.CombinedOutput()
	t.Logf("in a user namespace:\n%s", said)
	if err != nil {
		t.Errorf("the test in a user namespace: %v", err)
	}
	return false
}
