package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Docker is a running dockerd with its containerd, and the cri-dockerd that asks it, with all that they write in a directory of
// their own.
type Docker struct {
	// Endpoint is the CRI endpoint (unix:///…) of cri-dockerd.
	Endpoint string
	// PID is that of dockerd.
	PID int

	dir    string
	daemon *exec.Cmd
}

// StartDocker starts the two until the test ends. The test skips without dockerd ($DOCKERD or PATH) and cri-dockerd
// ($CRI_DOCKERD or PATH).
func StartDocker(t testing.TB) *Docker {
	t.Helper()
	NeedRoot(t)
	dockerd, criDockerd := needProgram(t, "DOCKERD", "dockerd"), needProgram(t, "CRI_DOCKERD", "cri-dockerd")
	NeedCommand(t, "containerd", "containerd") // which dockerd starts
	NeedCommand(t, "runc", "runc")
	d := &Docker{dir: ShortDir(t)}
	at := func(name string) string { return filepath.Join(d.dir, name) }
	endpoint := "unix://" + at("docker.sock")
	d.daemon = d.start(t, "docker.sock", dockerd, "--data-root", at("root"), "--exec-root", at("exec"), "--pidfile", at("docker.pid"), "-H", endpoint,
		"--bridge=none", "--userland-proxy=false", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs", "--feature", "containerd-snapshotter=false")
	d.PID = d.daemon.Process.Pid
	d.start(t, "cri-dockerd.sock", criDockerd, "--container-runtime-endpoint", "unix://"+at("cri-dockerd.sock"), "--docker-endpoint", endpoint,
		"--cri-dockerd-root-directory", at("cri"), "--network-plugin=", "--pod-infra-container-image=pause:1")
	d.Endpoint = "unix://" + at("cri-dockerd.sock")
	return d
}

// start starts one of the daemons and waits for its socket.
func (d *Docker) start(t testing.TB, socket, program string, args ...string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(d.dir, filepath.Base(program)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	t.Cleanup(func() {
		if said, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s's last words:\n%s", program, said[max(0, len(said)-2048):])
		}
		unix.Kill(cmd.Process.Pid, unix.SIGCONT)
		cmd.Process.Signal(unix.SIGTERM)
		force := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		force.Stop()
		if pid := d.Containerd(t); pid > 0 { // which a dockerd that was killed leaves
			unix.Kill(pid, unix.SIGKILL)
		}
		unmountBelow(t, d.dir)
	})
	Eventually(t, 30*time.Second, socket+" is there", func() bool { return exists(filepath.Join(d.dir, socket)) })
	return cmd
}

// Containerd is the pid of dockerd's containerd, 0 when it does not run.
func (d *Docker) Containerd(t testing.TB) int {
	content, err := os.ReadFile(filepath.Join(d.dir, "exec/containerd/containerd.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || unix.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}

// End stops dockerd in order, and with it its containerd.
func (d *Docker) End(t testing.TB) {
	t.Helper()
	if err := d.daemon.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.daemon.Wait()
}

// needProgram returns a program that no Debian package has, from the environment variable or PATH, or skips the test.
func needProgram(t testing.TB, variable, name string) string {
	t.Helper()
	if path := os.Getenv(variable); path != "" {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s: set %s or put it on PATH", name, variable)
	}
	return path
}
