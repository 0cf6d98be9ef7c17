package corpus

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// node is a Kubernetes node with systemd as PID 1, in namespaces and a cgroup of its own, on a throw-away overlay of
// the machine's root. Its network has no way out.
type node struct {
	dir   string // scratch, at the same path inside and outside
	init  *exec.Cmd
	ended chan struct{} // closed when init has ended, and with it everything inside
	net   *os.File      // the network namespace
	http  *http.Client
}

// startNode starts the node with etcd, kube-apiserver, containerd and kubelet as units. All of it ends with the test,
// if it has not ended before.
func startNode(t *testing.T, binaries map[string]string) *node {
	t.Helper()
	n := &node{dir: lab.ShortDir(t), ended: make(chan struct{})}
	n.write(t, binaries)
	console, err := os.Create(filepath.Join(n.dir, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cgroup := lab.NewCgroup(t, "node")

	n.init = exec.Command("/proc/self/exe")
	n.init.Env = append(os.Environ(), initEnv+"="+n.dir)
	n.init.Stdout, n.init.Stderr = console, console
	n.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	start, err := n.init.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.init.Process.Kill() // the kernel ends everything in the PID namespace with it
		<-n.ended
		if t.Failed() {
			last, _ := os.ReadFile(console.Name())
			t.Logf("console:\n%s", last[max(0, len(last)-4096):])
		}
	})
	n.net, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", n.init.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.net.Close() })
	cgroup.Add(t, n.init.Process.Pid)
	start.Close()

	n.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext:     n.dial,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // kube-apiserver signs its certificate itself
	}}
	return n
}

// start starts init from a thread that stays until it ends: the death signal is tied to the thread, not to the process.
func (n *node) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := n.init.Start()
		started <- err
		if err == nil {
			n.init.Wait()
			close(n.ended)
		}
	}()
	return <-started
}

// within runs f on a thread in the node's network namespace. A socket stays in the namespace it was made in.
func (n *node) within(f func()) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		failed <- err
	}()
	return <-failed
}

func (n *node) dial(ctx context.Context, network, address string) (connection net.Conn, err error) {
	failed := n.within(func() { connection, err = (&net.Dialer{}).DialContext(ctx, network, address) })
	if failed != nil {
		return nil, failed
	}
	return connection, err
}

func (n *node) listen(t testing.TB, address string) (listener net.Listener) {
	t.Helper()
	var err error
	if failed := n.within(func() { listener, err = net.Listen("tcp", address) }); failed != nil {
		t.Fatal(failed)
	}
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// run runs a command inside the node.
func (n *node) run(t testing.TB, command ...string) {
	t.Helper()
	if out, err := n.command(command...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

func (n *node) command(command ...string) *exec.Cmd {
	args := append([]string{"-t", fmt.Sprint(n.init.Process.Pid), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", "--"}, command...)
	return exec.Command("nsenter", args...)
}

// powerOff shuts the node down in order and waits for its end.
func (n *node) powerOff(t *testing.T) {
	t.Helper()
	n.run(t, "systemctl", "poweroff", "--no-block")
	select {
	case <-n.ended:
	case <-time.After(2 * time.Minute):
		t.Error("the node does not end 2 minutes after poweroff")
	}
}

// write writes what the units need.
func (n *node) write(t testing.TB, binaries map[string]string) {
	t.Helper()
	for _, dir := range []string{"bin", "units", "static", "cni", "journal", "root", "tmp"} {
		if err := os.Mkdir(filepath.Join(n.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, path := range binaries {
		if err := os.Symlink(path, filepath.Join(n.dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	n.file(t, "service-accounts.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	for name, content := range files {
		n.file(t, name, content)
	}
	n.kubelet(t, "2", "text")
	n.containerd(t, "text")
}

// file writes a file of the scratch directory; @ stands for that directory.
func (n *node) file(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(strings.ReplaceAll(content, "@", n.dir)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// kubelet sets how kubelet logs from its next start on.
func (n *node) kubelet(t testing.TB, verbosity, format string) {
	n.file(t, "kubelet.env", fmt.Sprintf("VERBOSITY=%s\nFORMAT=%s\n", verbosity, format))
}

// containerd sets how containerd logs from its next start on.
func (n *node) containerd(t testing.TB, format string) {
	n.file(t, "containerd.toml", strings.ReplaceAll(containerdConfig, "FORMAT", format))
}

// initEnv makes this test binary the node's init: it holds the scratch directory.
const initEnv = "NPD_PLUGINS_CORPUS_INIT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(initEnv); dir != "" {
		runtime.LockOSThread()
		fmt.Fprintln(os.Stderr, "init:", becomeInit(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// becomeInit makes the node's file system and network, and turns into systemd. It runs as PID 1 of new namespaces and starts
// when its stdin ends: by then it is in its cgroup.
func becomeInit(dir string) error {
	os.Stdin.Read(make([]byte, 1))
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	if err := network(); err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := mountRoot(dir, root); err != nil {
		return err
	}
	if err := writeUnits(dir, root); err != nil {
		return err
	}
	if err := pivot(root); err != nil {
		return err
	}
	return syscall.Exec("/lib/systemd/systemd", []string{"systemd", "--log-target=journal", "--show-status=no"},
		[]string{"container=lab", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// network gives the node an address and a default route, as kubelet wants one; they lead nowhere.
func network() error {
	for _, args := range []string{
		"link set lo up", "link add uplink type bridge", "address add 10.213.255.1/24 dev uplink",
		"link set uplink up", "route add default via 10.213.255.254 dev uplink",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return unix.Sethostname([]byte("node-1"))
}

// mounts collects the first error of a row of mounts.
type mounts struct{ err error }

func (m *mounts) mount(source, target, kind string, flags uintptr, options string) {
	if m.err != nil {
		return
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		m.err = err
	} else if err := unix.Mount(source, target, kind, flags, options); err != nil {
		m.err = fmt.Errorf("mount %s at %s: %w", kind+source, target, err)
	}
}

// bind makes the file source appear at target.
func (m *mounts) bind(source, target string) {
	if m.err != nil {
		return
	}
	if !exists(target) {
		m.err = os.WriteFile(target, nil, 0o644)
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); m.err == nil && err != nil {
		m.err = fmt.Errorf("bind %s at %s: %w", source, target, err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func mountRoot(dir, root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	var m mounts
	tmp := filepath.Join(dir, "tmp")
	m.mount("tmpfs", tmp, "tmpfs", 0, "")
	for _, layer := range []string{"upper", "work"} {
		os.Mkdir(filepath.Join(tmp, layer), 0o755)
	}
	m.mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%[1]s/upper,workdir=%[1]s/work", tmp))
	m.mount("proc", root+"/proc", "proc", 0, "")
	m.mount("sysfs", root+"/sys", "sysfs", 0, "")
	// kubelet sets these at each start, and they are the machine's: it finds files that hold what it wants.
	for name, value := range map[string]string{"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"} {
		file := filepath.Join(tmp, filepath.Base(name))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		m.bind(file, root+"/proc/sys/"+name)
	}
	m.cgroups(root + "/sys/fs/cgroup")
	m.devices(root + "/dev")
	m.mount("tmpfs", root+"/run", "tmpfs", 0, "mode=755")
	m.mount(filepath.Join(dir, "journal"), root+"/run/log/journal", "", unix.MS_BIND, "")
	m.mount(dir, root+dir, "", unix.MS_BIND, "")
	return m.err
}

// cgroups mounts each hierarchy of the machine anew; in a cgroup namespace it shows the node's own group as its root.
func (m *mounts) cgroups(target string) {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		m.mount("cgroup2", target, "cgroup2", 0, "")
		return
	}
	m.mount("tmpfs", target, "tmpfs", 0, "mode=755")
	for _, controller := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"} {
		m.mount("cgroup", filepath.Join(target, controller), "cgroup", 0, controller)
	}
	m.mount("cgroup", filepath.Join(target, "systemd"), "cgroup", 0, "none,name=systemd")
	m.mount("cgroup2", filepath.Join(target, "unified"), "cgroup2", 0, "")
}

func (m *mounts) devices(target string) {
	m.mount("tmpfs", target, "tmpfs", 0, "mode=755")
	devices := []string{"null", "zero", "full", "random", "urandom", "tty", "kmsg"}
	disks, _ := os.ReadDir("/sys/class/block") // kubelet looks up the disk of its directory
	for _, disk := range disks {
		devices = append(devices, disk.Name())
	}
	for _, name := range devices {
		if exists("/dev/" + name) {
			m.bind("/dev/"+name, filepath.Join(target, name))
		}
	}
	m.mount("tmpfs", target+"/shm", "tmpfs", 0, "")
	m.mount("mqueue", target+"/mqueue", "mqueue", 0, "")
	m.mount("devpts", target+"/pts", "devpts", 0, "newinstance,ptmxmode=0666")
	for name, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "console": "null"} {
		os.Symlink(to, filepath.Join(target, name))
	}
}

// writeUnits leaves of the machine's units journald, D-Bus and what is stopped with them, and adds the node's own.
func writeUnits(dir, root string) error {
	etc := filepath.Join(root, "etc/systemd")
	for _, unit := range strings.Fields(masked) {
		path := filepath.Join(etc, "system", unit)
		os.Remove(path)
		if err := os.Symlink("/dev/null", path); err != nil {
			return err
		}
	}
	wanted, err := filepath.Glob(filepath.Join(etc, "system/*.wants"))
	if err != nil {
		return err
	}
	for _, directory := range wanted {
		if err := os.RemoveAll(directory); err != nil {
			return err
		}
	}
	for name, content := range units {
		path := filepath.Join(etc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		os.Remove(path) // it may be a link
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(content, "@", dir)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func pivot(root string) error {
	old := filepath.Join(root, "oldroot")
	if err := os.MkdirAll(old, 0o755); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return unix.Unmount("/oldroot", unix.MNT_DETACH)
}
