package lab

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// SystemdVersions are the versions of systemd that StartSystemd has: those of Debian bullseye, bookworm and trixie; in a
// guest that of its kernel's release.
func SystemdVersions() []string {
	if version := os.Getenv(EnvSystemd); version != "" {
		return []string{version}
	}
	return slices.Sorted(maps.Keys(systemdReleases))
}

var systemdReleases = map[string]string{"247": "bullseye", "252": "bookworm", "257": "trixie"}

// Systemd is a system manager that is process 1 of namespaces of its own, with a root file system of its release and a
// system bus, and nothing to do but the units that a test gives it.
type Systemd struct {
	PID   int
	Root  string // its root file system, from outside
	units string
}

// StartSystemd starts a version of systemd until the test ends.
func StartSystemd(t testing.TB, version string) *Systemd {
	t.Helper()
	NeedRoot(t)
	NeedCommand(t, "nsenter", "util-linux")
	unified := slices.IndexFunc(hierarchies(), func(dir string) bool { return exists(filepath.Join(dir, "cgroup.controllers")) })
	if unified < 0 {
		t.Skipf("needs cgroup2 somewhere under %s", cgroupRoot)
	}
	group := filepath.Join(hierarchies()[unified], CgroupParent(t))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Systemd{units: t.TempDir()}
	for name, text := range systemdUnits {
		s.Unit(t, name, text)
	}
	cmd := self("systemd")
	cmd.Args = append(cmd.Args, SystemdRoot(t, version), group, s.units)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setsid: true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start systemd: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() // and with it all in its PID namespace
		cmd.Wait()
		if t.Failed() {
			t.Logf("systemd %s said:\n%s", version, said.String()[max(0, said.Len()-4096):])
		}
	})
	s.PID = cmd.Process.Pid
	s.Root = fmt.Sprintf("/proc/%d/root", s.PID)
	Eventually(t, 20*time.Second, "systemd "+version+" and its bus are up", func() bool {
		return exists(s.Root+"/run/lab/units/lab.target") && s.try("systemctl", "is-active", "lab.target", "dbus.service") == nil
	})
	return s
}

// systemdUnits are all that it starts. systemd goes to the bus when both of dbus run.
var systemdUnits = map[string]string{
	"lab.target":  "[Unit]\nDefaultDependencies=no\nRequires=dbus.service\nAfter=dbus.service\n",
	"dbus.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
	"dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n[Service]\n" +
		"ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\n",
}

// Unit writes a unit file, or any other that units may look at, to /run/lab/units.
func (s *Systemd) Unit(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.units, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Run runs a command of its root file system next to it.
func (s *Systemd) Run(t testing.TB, command ...string) {
	t.Helper()
	if err := s.try(command...); err != nil {
		t.Fatal(err)
	}
}

func (s *Systemd) try(command ...string) error {
	out, err := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(s.PID), "-m", "-p", "-r", "-w", "--"}, command...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%q: %w\n%s", command, err, out)
	}
	return nil
}

// Pod is the command that runs another as a container does: in a PID namespace below that of systemd, with other mounts.
func (s *Systemd) Pod() []string {
	return []string{"nsenter", "-t", strconv.Itoa(s.PID), "-p", "--", "unshare", "--pid", "--fork", "--kill-child", "--"}
}

// Scopes starts n transient scopes, as kubelet starts its mounts: with systemd-run. A process that sleeps holds each of them.
func (s *Systemd) Scopes(t testing.TB, n int, description string) {
	t.Helper()
	s.Run(t, "sh", "-c", `n=$0; export description="$1"
start='i=$0; while [ $i -gt 0 ]; do systemd-run --scope --quiet --description="$description" sh -c "sleep 3600 >/dev/null 2>&1 </dev/null &" || exit; i=$((i-1)); done'
sh -c "$start" $((n/2)) & first=$!
sh -c "$start" $((n-n/2)) && wait $first`, strconv.Itoa(n), description)
}

// SystemdRoot returns a root file system with the systemd and the dbus-daemon of a Debian release and all that they
// depend on: packages unpacked and not installed, kept in CacheDir. The test skips when they cannot be had. In a guest it
// is on the disk.
func SystemdRoot(t testing.TB, version string) string {
	t.Helper()
	if InGuest() {
		return filepath.Join(os.Getenv(EnvDisk), "systemd-"+version)
	}
	NeedCommand(t, "apt-get", "apt")
	NeedCommand(t, "dpkg-deb", "dpkg")
	cache := CacheDir(t)
	dir := filepath.Join(cache, "systemd-root-"+version)
	if exists(dir) {
		return dir
	}
	work, err := os.MkdirTemp(cache, "systemd-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	root := filepath.Join(work, "root")
	if err := unpackSystemd(work, root, systemdReleases[version]); err != nil {
		t.Skipf("needs systemd %s: %v", version, err)
	}
	if err := os.Rename(root, dir); err != nil && !exists(dir) { // another test may have been faster
		t.Fatal(err)
	}
	return dir
}

func unpackSystemd(work, root, release string) error {
	debian, err := OpenDebian(work, release, runtime.GOARCH)
	if err != nil {
		return err
	}
	if _, err := debian.run("apt-get", "install", "-y", "--no-install-recommends", "--download-only", "systemd", "dbus", "dash", "coreutils", "util-linux"); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(work, "cache/archives/*.deb"))
	if err != nil || len(packages) == 0 {
		return fmt.Errorf("apt-get downloaded nothing: %v", err)
	}
	for _, deb := range packages {
		if out, err := exec.Command("dpkg-deb", "-x", deb, root).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w\n%s", filepath.Base(deb), err, out)
		}
	}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{ // what the packages would have made when installed
		"passwd": "root:x:0:0::/:/bin/sh\nmessagebus:x:100:100::/:/bin/false\n", "group": "root:x:0:\nmessagebus:x:100:\n", "machine-id": strings.Repeat("0123456789abcdef", 2) + "\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bootSystemd turns this process, which is process 1 of its namespaces, into systemd.
func bootSystemd(root, group, units string) error {
	runtime.LockOSThread() // a cgroup namespace is of a thread until exec makes it that of the process
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := mountForSystemd(root, units); err != nil {
		return err
	}
	if err := changeRoot(root); err != nil {
		return fmt.Errorf("change the root to %s: %w", root, err)
	}
	program := "/lib/systemd/systemd"
	return unix.Exec(program, []string{program, "--system", "--unit=lab.target", "--log-target=console", "--show-status=no"},
		[]string{"container=lab", "SYSTEMD_UNIT_PATH=/run/lab/units", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// changeRoot also works from the initramfs of a guest, which pivot_root(2) does not leave.
func changeRoot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	err := unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EINVAL) {
		return errors.Join(unix.Mount(root, "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/"))
	}
	return errors.Join(err, unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"))
}

func mountForSystemd(root, units string) error {
	in := func(dir string) string { return filepath.Join(root, dir) }
	type mount struct {
		source, target, kind string
		flags                uintptr
	}
	mounts := []mount{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{root, root, "", unix.MS_BIND},
		{"", root, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{"proc", in("proc"), "proc", 0},
		{"sysfs", in("sys"), "sysfs", 0},
		{"cgroup2", in("sys/fs/cgroup"), "cgroup2", 0},
		{"tmpfs", in("run"), "tmpfs", 0},
		{"tmpfs", in("tmp"), "tmpfs", 0},
		{"tmpfs", in("dev"), "tmpfs", 0},
		{units, in("run/lab/units"), "", unix.MS_BIND},
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		mounts = append(mounts, mount{"/dev/" + device, in("dev/" + device), "", unix.MS_BIND})
	}
	for _, m := range mounts {
		switch {
		case m.source == units:
			if err := os.MkdirAll(m.target, 0o755); err != nil {
				return err
			}
		case strings.HasPrefix(m.source, "/dev/"):
			if err := os.WriteFile(m.target, nil, 0o644); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}
