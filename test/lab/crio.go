package lab

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// CRIO is a running CRI-O whose data, state and socket are where every CRI-O has them, in a mount namespace of its own. Its
// runtime handlers are runc and crun.
type CRIO struct {
	CRI
	// HostRoot is the node as CRI-O sees it.
	HostRoot string

	mounts int // pid of a process in the mount namespace
}

// CRIOConfig is what tests need to differ from CRI-O's defaults.
type CRIOConfig struct {
	// MaxSendMessageSize is the server's limit for one reply in bytes, 0 for CRI-O's own (80 MiB).
	MaxSendMessageSize int
	// CNI is the network plugin, nil when all pods use the host's network.
	CNI *CNI
}

// NeedCRIO returns the path of crio, from $CRIO or PATH, or skips the test.
func NeedCRIO(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("CRIO"); path != "" {
		return path
	}
	path, err := exec.LookPath("crio")
	if err != nil {
		t.Skip("needs CRI-O: set CRIO or put crio and pinns on PATH")
	}
	return path
}

// StartCRIO starts a CRI-O that has the pause program in binaries (see Binaries) as the image PauseImage. Everything ends
// with the test. The test skips without root, CRI-O, its pinns beside it or on PATH, conmon, runc or crun.
func StartCRIO(t testing.TB, binaries string, config CRIOConfig) *CRIO {
	t.Helper()
	NeedRoot(t)
	daemon := NeedCRIO(t)
	pinns := filepath.Join(filepath.Dir(daemon), "pinns")
	if !exists(pinns) {
		pinns = NeedCommand(t, "pinns", "cri-o")
	}
	c := &CRIO{CRI: CRI{dir: ShortDir(t), cgroupParent: CgroupParent(t), logs: "/var/log/pods"}}
	c.mounts = ownMounts(t, "/run", "/var/lib", "/var/log", "/var/tmp")
	c.HostRoot = fmt.Sprintf("/proc/%d/root", c.mounts)
	c.Endpoint = "unix://" + filepath.Join(c.HostRoot, "run/crio/crio.sock")

	pause, err := os.ReadFile(filepath.Join(binaries, "pause"))
	if err != nil {
		t.Fatal(err)
	}
	registry := startRegistry(t, file{"pause", 0o755, pause})
	registry.Release()
	c.write(t, "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	c.write(t, "registries.conf", fmt.Sprintf("[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n"+
		"[[registry]]\nprefix = \"localhost/pause\"\nlocation = \"%s/pause\"\ninsecure = true\n", registry.Host))
	c.write(t, "storage.conf", "")
	c.write(t, "crio.conf", c.toml(t, config, pinns))
	c.start(t, c.command(daemon))
	t.Cleanup(func() { c.end(t) })
	c.connect(t, "")
	t.Cleanup(func() { c.RemovePods(t, slices.Clone(c.sandboxes)) })
	if err := c.Pull(t.Context(), PauseImage); err != nil {
		t.Fatalf("pull %s: %v\n%s", PauseImage, err, c.Log(t))
	}
	return c
}

// ownMounts starts a process in a mount namespace of its own that lasts as long as it, until the test ends, and returns its
// pid. There are empty directories at these paths, and a cgroup2 hierarchy beside those of v1 is not mounted: crun starts
// nothing when it has a controller.
func ownMounts(t testing.TB, empty ...string) (pid int) {
	t.Helper()
	holder := exec.Command("sh", "-c", `for dir; do mount -t tmpfs tmpfs "$dir" || exit; done
		! mountpoint -q /sys/fs/cgroup/unified || umount -l /sys/fs/cgroup/unified
		echo ready && exec cat`, "sh")
	holder.Args = append(holder.Args, empty...)
	holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	holder.Stderr = os.Stderr
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		holder.Wait()
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatalf("mount empty directories: %v", err)
	}
	return holder.Process.Pid
}

func (c *CRIO) write(t testing.TB, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Command returns a command that runs on the node as CRI-O sees it.
func (c *CRIO) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", c.mounts), "--", name}, args...)...)
}

// command returns the daemon.
func (c *CRIO) command(daemon string) *exec.Cmd {
	cmd := c.Command(daemon, "--config", filepath.Join(c.dir, "crio.conf"), "--config-dir", "")
	cmd.Env = append(os.Environ(), "CONTAINER_REGISTRIES_CONF="+filepath.Join(c.dir, "registries.conf"),
		"CONTAINER_REGISTRIES_CONF_DIR="+filepath.Join(c.dir, "registries.conf.d"), "CONTAINERS_STORAGE_CONF="+filepath.Join(c.dir, "storage.conf"))
	return cmd
}

// ociRuntime executes an OCI runtime that does not lower oom_score_adj, which root may not where it lacks CAP_SYS_RESOURCE,
// and that gets no later version of the specification than crun 1.8 (Debian bookworm) knows.
const ociRuntime = `#!/bin/sh
read -r least </proc/self/oom_score_adj
before=
for argument; do
	case $before in -b | --bundle) sed -i "s/\"oomScoreAdj\": *-[0-9]*/\"oomScoreAdj\": $least/; s/\"ociVersion\": *\"[^\"]*/\"ociVersion\": \"1.0.0/" "$argument/config.json" ;; esac
	before=$argument
done
exec %s "$@"
`

// toml returns the configuration. vfs works on every file system.
func (c *CRIO) toml(t testing.TB, config CRIOConfig, pinns string) string {
	t.Helper()
	cni := CNI{filepath.Join(c.dir, "no-cni")}
	if config.CNI != nil {
		cni = *config.CNI
	}
	var b strings.Builder
	fmt.Fprintf(&b, `[crio]
storage_driver = "vfs"
[crio.api]
grpc_max_send_msg_size = %[1]d
[crio.runtime]
cgroup_manager = "cgroupfs"
pids_limit = 4096 # crun 1.8 writes "no limit" as -1, which cgroup v1 refuses
pinns_path = "%[2]s"
apparmor_profile = "unconfined"
hooks_dir = []
default_runtime = "runc"
[crio.image]
pause_image = "%[3]s"
signature_policy = "%[4]s/policy.json"
[crio.network]
network_dir = "%[5]s"
plugin_dirs = ["%[6]s"]
[crio.nri]
enable_nri = false
`, config.MaxSendMessageSize, pinns, PauseImage, c.dir, cni.configs(), cni.plugins())
	conmon := NeedCommand(t, "conmon", "conmon")
	for _, name := range []string{"runc", "crun"} {
		wrapper := c.write(t, name, fmt.Sprintf(ociRuntime, NeedCommand(t, name, name)))
		if err := os.Chmod(wrapper, 0o755); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, `[crio.runtime.runtimes.%[1]s]
runtime_path = "%[2]s"
runtime_root = "/run/%[1]s"
monitor_path = "%[3]s"
monitor_cgroup = "pod"
`, name, wrapper, conmon)
	}
	return b.String()
}

// Path is where the test finds a path of the node.
func (c *CRIO) Path(path string) string { return filepath.Join(c.HostRoot, path) }

// Restart starts the daemon again after it was killed.
func (c *CRIO) Restart(t testing.TB) {
	t.Helper()
	c.daemon.Wait()
	c.start(t, c.command(NeedCRIO(t)))
	c.WaitReady(t)
}

// end ends the daemon and what outlives it: whatever still runs in its mount namespace, which then goes with all of its
// mounts.
func (c *CRIO) end(t testing.TB) {
	c.stop(t)
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", c.mounts))
	if err != nil {
		t.Error(err)
		return
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	for _, link := range links {
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if namespace, err := os.Readlink(link); err == nil && namespace == own && pid != c.mounts {
			unix.Kill(pid, unix.SIGKILL)
			WaitGone(t, pid)
		}
	}
}
