package lab

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
	"npd-plugins/internal/procfs"
)

// envPIDNamespace tells a test that it runs in a PID namespace: the pid of the process that made it, and a "-" to make
// names with. The pid of the test itself is not one that no other process has.
const envPIDNamespace = "NPD_LAB_PIDNS"

// InPIDNamespace runs the test once more, in PID and mount namespaces of its own, whose /proc has its processes only: for
// checks that look at all processes of a machine, which is busy with other things. It says true there, and false outside,
// where the test has nothing left to do. built is the directory with the built checks. The test binary's TestMain must
// call RunCulprit.
func InPIDNamespace(t *testing.T, built string) bool {
	t.Helper()
	if os.Getenv(envPIDNamespace) != "" {
		return true
	}
	NeedRoot(t)
	cmd := self("namespace")
	cmd.Args = []string{cmd.Path, "-test.run=^" + t.Name() + "$", "-test.v"}
	cmd.Env = append(cmd.Env, EnvBinaries+"="+built, envPIDNamespace+"="+strconv.Itoa(os.Getpid())+"-")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	cmd.Stderr = nil
	said, err := cmd.CombinedOutput()
	t.Logf("in a PID namespace:\n%s", said)
	if err != nil {
		t.Errorf("the test in a PID namespace: %v", err)
	}
	if strings.Contains(string(said), "--- SKIP: "+t.Name()+" ") {
		t.SkipNow()
	}
	return false
}

// detachFuse takes the FUSE mounts of other programs out of the mount namespace: a check that looks for one that is dead
// would find theirs. It asks no server.
func detachFuse() error {
	root, err := host.Open("/")
	if err != nil {
		return err
	}
	var points []string
	err = procfs.EachMount(root, func(m procfs.Mount) bool {
		if kind, _, _ := strings.Cut(m.Type, "."); kind == "fuse" || kind == "fuseblk" {
			points = append(points, m.Point)
		}
		return true
	})
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("detach %s: %w", point, err)
		}
	}
	return err
}

// serveNamespace is process 1 of the namespace: it runs the test and reaps as init does.
func serveNamespace() (code int, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 1, fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return 1, fmt.Errorf("mount /proc: %w", err)
	}
	if err := detachFuse(); err != nil {
		return 1, err
	}
	test := exec.Command("/proc/self/exe", os.Args[1:]...)
	test.Env = append(os.Environ(), envCulprit+"=", "GOMAXPROCS=")
	test.Stdout, test.Stderr = os.Stdout, os.Stderr
	if err := test.Start(); err != nil {
		return 1, err
	}
	for {
		var status unix.WaitStatus
		switch pid, err := unix.Wait4(-1, &status, 0, nil); {
		case err == unix.EINTR:
		case err != nil:
			return 1, err
		case pid == test.Process.Pid:
			return status.ExitStatus(), nil
		}
	}
}
