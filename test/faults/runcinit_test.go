package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// bundle is a container as runc takes it: a directory with config.json and the root filesystem.
type bundle struct {
	runc, dir    string
	cgroupParent string
}

// newBundle makes a container of the pause program whose seccomp filter is bigger than a cut pipe, without privileges
// to gain: the two things that make runc 1.0.0-rc93 hang when the pipes of root are cut.
func newBundle(t *testing.T) *bundle {
	t.Helper()
	lab.NeedRoot(t)
	b := &bundle{runc: lab.RuncRC93(t), dir: t.TempDir(), cgroupParent: lab.CgroupParent(t)}
	pause, err := os.ReadFile(filepath.Join(binaries, "pause"))
	if err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(b.dir, "rootfs")
	if err := os.MkdirAll(filepath.Join(rootfs, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rootfs, "pause"), pause, 0o755); err != nil {
		t.Fatal(err)
	}
	capabilities := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	writeJSON(t, filepath.Join(b.dir, "config.json"), map[string]any{
		"ociVersion": "1.0.2",
		"root":       map[string]any{"path": "rootfs"},
		"mounts":     []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"}},
		"process": map[string]any{
			"user": map[string]any{"uid": 0, "gid": 0}, "cwd": "/", "args": []string{"/pause"},
			"noNewPrivileges": true,
			"capabilities":    map[string]any{"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
		},
		"linux": map[string]any{
			"cgroupsPath": filepath.Join(b.cgroupParent, podCgroup, containerID),
			"namespaces":  []any{map[string]any{"type": "pid"}, map[string]any{"type": "mount"}, map[string]any{"type": "ipc"}, map[string]any{"type": "uts"}},
			"seccomp":     bigSeccompProfile(),
		},
	})
	return b
}

// bigSeccompProfile returns a profile that lets a Go program run and compiles to more than the 8 KiB a cut pipe holds.
// Container runtimes and runc share this format.
func bigSeccompProfile() map[string]any {
	type argument struct {
		Index int    `json:"index"`
		Value int    `json:"value"`
		Op    string `json:"op"`
	}
	type rule struct {
		Names  []string   `json:"names"`
		Action string     `json:"action"`
		Args   []argument `json:"args,omitempty"`
	}
	rules := []rule{{Names: strings.Fields(`access arch_prctl brk capget capset clone clone3 close close_range dup dup3 epoll_create1
		epoll_ctl epoll_pwait epoll_wait eventfd2 execve exit exit_group faccessat faccessat2 fchmod fchown fcntl fstat fstatfs futex
		getcwd getdents64 getegid geteuid getgid getpid getppid getrandom gettid getuid ioctl kill lseek madvise mincore mmap
		mprotect munmap nanosleep newfstatat open openat pipe2 prctl pread64 prlimit64 read readlink readlinkat rseq rt_sigaction
		rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield set_robust_list set_tid_address setgid setgroups setuid
		sigaltstack stat statx tgkill timer_create timer_delete timer_settime uname wait4 waitid write`), Action: "SCMP_ACT_ALLOW"}}
	for value := range 1000 {
		rules = append(rules, rule{Names: []string{"kcmp"}, Action: "SCMP_ACT_ALLOW", Args: []argument{{2, value, "SCMP_CMP_EQ"}}})
	}
	return map[string]any{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
}

// command returns a runc command for the container. Without pivot_root it also works on an initramfs.
func (b *bundle) command(subcommand string, options ...string) *exec.Cmd {
	args := append([]string{"--root", filepath.Join(b.dir, "state"), subcommand}, options...)
	return exec.Command(b.runc, append(args, containerID)...)
}

// run executes a runc command to its end.
func (b *bundle) run(t *testing.T, subcommand string, options ...string) {
	t.Helper()
	cmd := b.command(subcommand, options...)
	// A file instead of a pipe: the container inherits it, and nobody waits for its end.
	out, err := os.Create(filepath.Join(b.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	hangs := time.AfterFunc(time.Minute, func() { // somebody else on the machine has used up uid 0's pipes
		if pid, _ := runcInit(b.cgroupParent); pid != 0 {
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	defer hangs.Stop()
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		t.Fatalf("runc %s: %v\n%s", subcommand, err, text)
	}
}

func (b *bundle) create(t *testing.T) {
	t.Helper()
	b.run(t, "create", "--no-pivot", "--bundle", b.dir)
	t.Cleanup(func() { b.command("delete", "--force").Run() })
}

// start runs "runc run" in the background, which hangs when runc init does.
func (b *bundle) start(t *testing.T) {
	t.Helper()
	cmd := b.command("run", "--no-pivot", "--bundle", b.dir, "--detach")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pid, _ := runcInit(b.cgroupParent); pid != 0 {
			unix.Kill(pid, unix.SIGKILL) // runc notices and gives up
		}
		cmd.Wait()
		b.command("delete", "--force").Run()
	})
}

// runcInit finds the process "runc init" in the cgroups below parent and tells where in the kernel it waits: the
// functions on its stack, topmost first. /proc/PID/wchan tells nothing before Linux 5.16 (x86 with the ORC unwinder).
func runcInit(parent string) (pid int, stack string) {
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range comms {
		dir := filepath.Dir(path)
		comm, _ := os.ReadFile(path)
		cgroups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if string(comm) != "runc:[2:INIT]\n" || !strings.Contains(string(cgroups), ":"+parent+"/") {
			continue
		}
		pid, _ = strconv.Atoi(filepath.Base(dir))
		text, _ := os.ReadFile(filepath.Join(dir, "stack"))
		wchan, _ := os.ReadFile(filepath.Join(dir, "wchan"))
		return pid, fmt.Sprintf("wchan %s, stack %s", wchan, strings.Join(strings.Fields(string(text)), " "))
	}
	return 0, ""
}

func waitForStuckInit(t *testing.T, cgroupParent string) {
	t.Helper()
	lab.Eventually(t, 20*time.Second, "runc init waits in a pipe write", func() bool {
		_, stack := runcInit(cgroupParent)
		return strings.Contains(stack, "pipe_write")
	})
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	content, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRuncInitStuck(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	b := newBundle(t)
	var noContainers lab.FakeCRI
	check := watch(t, "runc-init", "--age", "1s", "--cri-endpoint", noContainers.Serve(t))
	check.wantOK(t)
	culprit := exceedPipeLimit(t)
	b.start(t)
	waitForStuckInit(t, b.cgroupParent)
	culprit.Stop() // it stays stuck: its pipe stays small
	time.Sleep(1100 * time.Millisecond)
	check.wantProblem(t, podUID, "container "+containerID[:12], "pipe", "fs.pipe-user-pages-soft")

	pid, _ := runcInit(b.cgroupParent)
	unix.Kill(pid, unix.SIGKILL)
	lab.Eventually(t, 10*time.Second, "runc init is gone", func() bool { pid, _ := runcInit(b.cgroupParent); return pid == 0 })
	check.wantOK(t)
	b.command("delete", "--force").Run()
	b.run(t, "run", "--no-pivot", "--bundle", b.dir, "--detach") // with pipes of full size it starts
	check.wantOK(t)
}

func TestRuncInitWaitsForStart(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	b := newBundle(t)
	var noContainers lab.FakeCRI
	endpoint := noContainers.Serve(t)
	b.create(t)
	if pid, stack := runcInit(b.cgroupParent); pid == 0 {
		t.Fatal("a created container has no runc init")
	} else {
		t.Logf("a created container's runc init waits in: %s", stack)
	}
	watch(t, "runc-init", "--age", "1m", "--cri-endpoint", endpoint).wantOK(t)

	time.Sleep(1100 * time.Millisecond)
	old := watch(t, "runc-init", "--age", "1s", "--cri-endpoint", endpoint)
	old.wantProblem(t, podUID, "container "+containerID[:12])
	b.run(t, "pause") // into the freezer
	_, stack := runcInit(b.cgroupParent)
	t.Logf("frozen it waits in: %s", stack)
	old.wantOK(t)
	b.run(t, "resume")
	b.run(t, "start")
	old.wantOK(t)
}

// The same through containerd, which knows the pod's name.
func TestRuncInitStuckInPod(t *testing.T) {
	notInGuest(t)
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{Runtimes: map[string]string{"rc93": lab.RuncRC93(t)}})
	profile := filepath.Join(t.TempDir(), "seccomp.json")
	writeJSON(t, profile, bigSeccompProfile())
	pod := lab.PodConfig("web-frontend-7d9c5b8f6d", 1, 0)
	sandbox, err := containerd.RunPod(t.Context(), pod, "rc93")
	if err != nil {
		t.Fatal(err)
	}
	config := lab.ContainerConfig(pod, "nginx")
	config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
		NoNewPrivs: true,
		Seccomp:    &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile},
	}
	created, err := containerd.CreateContainer(t.Context(), sandbox, pod, config)
	if err != nil {
		t.Fatal(err)
	}
	patient := watch(t, "runc-init", "--age", "1m", "--cri-endpoint", containerd.Endpoint)
	check := watch(t, "runc-init", "--age", "1s", "--cri-endpoint", containerd.Endpoint)
	patient.wantOK(t)

	culprit := exceedPipeLimit(t)
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	started := make(chan error, 1)
	go func() { started <- containerd.StartContainer(ctx, created) }()
	waitForStuckInit(t, pod.Linux.CgroupParent)
	culprit.Stop()
	time.Sleep(1100 * time.Millisecond)
	check.wantProblem(t, pod.Metadata.Namespace+"/"+pod.Metadata.Name, created[:12], "fs.pipe-user-pages-soft")
	patient.wantOK(t)

	giveUp() // as kubelet does when its deadline passes: runc init stays until the pod goes
	t.Logf("StartContainer: %v", <-started)
	check.wantProblem(t, pod.Metadata.Name)
	containerd.RemovePods(t, []string{sandbox})
	check.wantOK(t)
}

// A real kubelet whose runc hangs: the check says so before kubelet gives up the start, goes on saying so between kubelet's
// attempts, and says OK when the container starts.
func TestRuncInitOfKubelet(t *testing.T) {
	notInGuest(t)
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	n := lab.StartNodeWith(t, binaries, lab.NodeConfig{Containerd: lab.ContainerdConfig{Runtimes: map[string]string{"rc93": lab.RuncRC93(t)}}})
	profiles := filepath.Join(filepath.Dir(filepath.Dir(n.Certificate)), "kubelet/seccomp")
	if err := os.MkdirAll(profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	writeJSON(t, filepath.Join(profiles, "big.json"), bigSeccompProfile())
	type object = map[string]any
	n.Call(t, http.MethodPost, "/apis/node.k8s.io/v1/runtimeclasses", object{"metadata": object{"name": "rc93"}, "handler": "rc93"})
	check := watch(t, "runc-init", "--cri-endpoint", n.Containerd.Endpoint)
	check.wantOK(t)

	culprit := exceedPipeLimit(t)
	n.Call(t, http.MethodPost, "/api/v1/namespaces/default/pods", object{
		"metadata": object{"name": "hangs-1"},
		"spec": object{
			"nodeName": lab.NodeName, "hostNetwork": true, "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 1,
			"runtimeClassName": "rc93", "tolerations": []object{{"operator": "Exists"}},
			"containers": []object{{"name": "app", "image": lab.PauseImage, "imagePullPolicy": "Never", "securityContext": object{
				"allowPrivilegeEscalation": false, "seccompProfile": object{"type": "Localhost", "localhostProfile": "big.json"}}}},
		},
	})
	waitForStuckInit(t, n.Cgroup)
	began := time.Now()
	check.wantOK(t)
	wantWords(t, check.until(t, 2*time.Minute, npd.NonOK), "a container does not start; pod default/hangs-1 container ", " created 4", "runc:[2:INIT] (pid ", "fs.pipe-user-pages-soft is exceeded")
	t.Logf("Problem %v after runc began to hang", time.Since(began).Round(time.Second))
	lab.Eventually(t, 2*time.Minute, "kubelet gives up", func() bool { return strings.Contains(n.KubeletLog(t), "StartContainer from runtime service failed") })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Second) {
		result := check.look(t)
		if result.Status != npd.NonOK {
			t.Fatalf("between two attempts: %s", result.Message)
		}
		if strings.Contains(result.Message, "not started 2 times in 2m") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no second attempt was seen")
		}
	}
	culprit.Stop()
	if pid, _ := runcInit(n.Cgroup); pid != 0 { // its pipe stays small
		unix.Kill(pid, unix.SIGKILL)
	}
	lab.Eventually(t, 2*time.Minute, "the pod runs", func() bool { return n.PodPhase(t, "hangs-1") == "Running" })
	check.until(t, 30*time.Second, npd.OK)

	// A process in a container that calls itself so is none of runc's.
	n.CreatePod(t, "web-1")
	lab.Eventually(t, time.Minute, "the pod runs", func() bool { return n.PodPhase(t, "web-1") == "Running" })
	impostor := exec.Command(disguised(t, "runc:[2:INIT]"))
	if err := impostor.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		impostor.Process.Kill()
		impostor.Wait()
	})
	joinContainer(t, n, impostor.Process.Pid)
	lab.Eventually(t, 10*time.Second, "the process has that name", func() bool { pid, _ := runcInit(n.Cgroup); return pid == impostor.Process.Pid })
	time.Sleep(1100 * time.Millisecond)
	watch(t, "runc-init", "--age=1s", "--cri-endpoint", n.Containerd.Endpoint).wantOK(t)
}

// disguised is the pause program under another name.
func disguised(t *testing.T, name string) string {
	t.Helper()
	pause, err := os.ReadFile(filepath.Join(binaries, "pause"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, pause, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// joinContainer puts a process into the cgroup of the container that Node.CreatePod has made.
func joinContainer(t *testing.T, n *lab.Node, pid int) {
	t.Helper()
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	reply, err := n.Containerd.Runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{State: running}})
	if err != nil {
		t.Fatal(err)
	}
	container := ""
	for _, c := range reply.Containers {
		if c.Metadata.Name == "pause" {
			container = c.Id
		}
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(parts) != 3 || container == "" || !strings.Contains(parts[2], container) {
				continue
			}
			controller, _, _ := strings.Cut(strings.TrimPrefix(parts[1], "name="), ",") // none on v2
			if err := os.WriteFile(filepath.Join("/sys/fs/cgroup", controller, parts[2], "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the container has no process")
}
