package faults

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/kubelet/kubelettest"
	"npd-plugins/internal/npd"
	"npd-plugins/internal/procfs"
	"npd-plugins/test/lab"
)

const kubeletHead = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

// kubeletFile is a configuration of kubelet with those lines, as an argument of the check.
func kubeletFile(t *testing.T, lines string) string {
	t.Helper()
	dir := t.TempDir()
	hosttest.Tree{"config.yaml": kubeletHead + lines}.Write(t, dir)
	return "--kubelet-config=" + filepath.Join(dir, "config.yaml")
}

// summary is what kubelet's /stats/summary says of the node.
type summary struct {
	Node struct {
		Memory           struct{ AvailableBytes, WorkingSetBytes float64 }
		Fs               fsStats
		Runtime          struct{ ImageFs fsStats }
		Rlimit           struct{ MaxPID, CurProc float64 }
		SystemContainers []struct {
			Name   string
			Memory struct{ AvailableBytes, WorkingSetBytes float64 }
		}
	}
}

type fsStats struct{ AvailableBytes, CapacityBytes, InodesFree, Inodes float64 }

// askSummary reads /stats/summary with the token.
func askSummary(t *testing.T, n *lab.Node, tokenFile string) (s summary) {
	t.Helper()
	if err := json.Unmarshal(askKubelet(t, n, tokenFile, "/stats/summary"), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// askKubelet reads a page of kubelet with the token.
func askKubelet(t *testing.T, n *lab.Node, tokenFile, path string) []byte {
	t.Helper()
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	request, err := http.NewRequest(http.MethodGet, "https://"+n.Kubelet+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v\n%s", path, answer.StatusCode, err, page)
	}
	return page
}

// measurement is one of a check.
type measurement struct {
	Name         string
	Value, Limit float64
}

// measured runs the check and returns what it measured, by name.
func (w *watcher) measured(t *testing.T) map[string]measurement {
	t.Helper()
	command := append(slices.Clone(w.through), filepath.Join(binaries, w.check), "--output=json")
	command = append(command, w.args...)
	said, err := exec.Command(command[0], command[1:]...).Output()
	var report struct{ Measurements []measurement }
	if json.Unmarshal(said, &report) != nil {
		t.Fatalf("%v: %s", err, said)
	}
	values := map[string]measurement{}
	for _, m := range report.Measurements {
		values[m.Name] = m
	}
	return values
}

// roomy are thresholds of kubelet far below what any machine has left.
const roomy = "evictionHard: {memory.available: 50Mi, nodefs.available: 1Mi, nodefs.inodesFree: \"10\", imagefs.available: 1Mi, imagefs.inodesFree: \"10\", pid.available: \"10\"}\n"

// evictionArgs are those of a check that looks at the lab's node.
func evictionArgs(t *testing.T, n *lab.Node) []string {
	t.Helper()
	dir := filepath.Dir(filepath.Dir(n.Certificate))
	images := filepath.Dir(strings.TrimPrefix(n.Containerd.Endpoint, "unix://"))
	return append(kubeletArgs(t, n), "--kubelet-dir="+dir+"/kubelet", "--kubelet-config="+dir+"/kubelet.yaml", "--image-dir="+images)
}

// A real kubelet: the check computes the same numbers, from its thresholds, and says Problem before kubelet reports pressure.
func TestEvictionOfKubelet(t *testing.T) {
	notInGuest(t)
	n := lab.StartNode(t, binaries, roomy)
	args := evictionArgs(t, n)
	n.CreatePod(t, "web-1")
	lab.Eventually(t, time.Minute, "the pod runs", func() bool { return n.PodPhase(t, "web-1") == "Running" })

	check := watch(t, "eviction", args...)
	check.wantOK(t)
	token := n.ServiceAccount(t, "kube-system", "node-problem-detector")
	s := askSummary(t, n, token)
	values := check.measured(t)
	want := map[string][2]float64{ // used, capacity
		"memory_used":         {s.Node.Memory.WorkingSetBytes, s.Node.Memory.AvailableBytes + s.Node.Memory.WorkingSetBytes},
		"nodefs_used":         {s.Node.Fs.CapacityBytes - s.Node.Fs.AvailableBytes, s.Node.Fs.CapacityBytes},
		"nodefs_inodes_used":  {s.Node.Fs.Inodes - s.Node.Fs.InodesFree, s.Node.Fs.Inodes},
		"imagefs_used":        {s.Node.Runtime.ImageFs.CapacityBytes - s.Node.Runtime.ImageFs.AvailableBytes, s.Node.Runtime.ImageFs.CapacityBytes},
		"imagefs_inodes_used": {s.Node.Runtime.ImageFs.Inodes - s.Node.Runtime.ImageFs.InodesFree, s.Node.Runtime.ImageFs.Inodes},
		"pids_used":           {s.Node.Rlimit.CurProc, s.Node.Rlimit.MaxPID},
	}
	for _, c := range s.Node.SystemContainers {
		if c.Name == "pods" {
			want["allocatable_memory_used"] = [2]float64{c.Memory.WorkingSetBytes, c.Memory.AvailableBytes + c.Memory.WorkingSetBytes}
		}
	}
	for name, w := range want {
		measured, ok := values[name]
		own := measured.Value
		off := 100 * math.Abs(own-w[0]) / w[1]
		t.Logf("%s: %.0f, kubelet %.0f of %.0f: %.3f of 100 apart", name, own, w[0], w[1], off)
		if !ok || w[1] == 0 || off > 2 {
			t.Errorf("%s: %.0f, want kubelet's %.0f of %.0f", name, own, w[0], w[1])
		}
	}
	if len(values) != len(want) {
		t.Errorf("measured %v", values)
	}

	// Who may not ask kubelet is told what to allow, and the file stands in.
	stranger := watch(t, "eviction", append(args, "--token-file="+n.ServiceAccount(t, "kube-system", "stranger"))...)
	result := stranger.look(t)
	wantWords(t, result.Stderr, "403", "get nodes/configz", "deploy/rbac.yaml")
	if result.Status != npd.OK {
		t.Errorf("with kubelet's file: %s", result.Message)
	}

	// With a threshold just below what there is the check warns, and kubelet does not act yet.
	restart := func(evictions string) {
		t.Helper()
		n.StopKubelet()
		n.StartKubelet(t, evictions)
	}
	near := s.Node.Fs.AvailableBytes / 1.1
	restart(fmt.Sprintf("evictionHard: {memory.available: 50Mi, nodefs.available: \"%.0f\"}\n", near))
	fresh := watch(t, "eviction", args...)
	said := fresh.until(t, time.Minute, npd.NonOK)
	wantWords(t, said, "nodefs.available", "kubelet evicts pods below", "most: ")
	if !regexp.MustCompile(`most: (/\S* .* or more, outside of pods|neither pods nor images)`).MatchString(said) {
		t.Errorf("a pod that holds next to nothing of the disk is named first: %s", said)
	}
	if pressure := n.Condition(t, "DiskPressure"); pressure != "False" {
		t.Errorf("DiskPressure is %s when the check says Problem", pressure)
	}
	restart(fmt.Sprintf("evictionHard: {}\nevictionSoft: {memory.available: \"%.0f\"}\nevictionSoftGracePeriod: {memory.available: 10m}\n", s.Node.Memory.AvailableBytes*1.05))
	fresh = watch(t, "eviction", args...)
	said = fresh.until(t, time.Minute, npd.NonOK)
	wantWords(t, said, "memory.available", "kubelet evicts pods when it is for 10m below", "most: ")
	lab.Eventually(t, time.Minute, "kubelet reports pressure", func() bool { return n.Condition(t, "MemoryPressure") == "True" })
	restart("evictionHard: {}\n")
	watch(t, "eviction", args...).until(t, time.Minute, npd.OK)
}

// A real kubelet on a node with huge pages: since 1.37 it takes them off memory.available, before it does not, and the check does the same.
func TestEvictionHugePagesOfKubelet(t *testing.T) {
	notInGuest(t)
	const hugePages = 2048
	n := lab.StartNodeWith(t, binaries, lab.NodeConfig{Settings: roomy, HugePages: hugePages})
	args := evictionArgs(t, n)
	look := func() *watcher {
		w := watch(t, "eviction", args...)
		w.through = n.InNode().Args
		return w
	}
	check := look()
	check.wantOK(t)
	s := askSummary(t, n, n.ServiceAccount(t, "kube-system", "node-problem-detector"))
	theirs, own := s.Node.Memory.AvailableBytes+s.Node.Memory.WorkingSetBytes, check.measured(t)["memory_used"].Limit+50<<20
	total := 1024 * float64(counter(t, "/proc/meminfo", "MemTotal:"))
	version := n.KubeletVersion(t)
	t.Logf("kubelet %s: of %.0f MiB it has %.0f for what is no huge page, the check %.0f", version, total/(1<<20), theirs/(1<<20), own/(1<<20))
	if math.Abs(own-theirs) > 1<<20 {
		t.Errorf("the check says that the node has %.0f, kubelet %.0f", own, theirs)
	}
	if taken := total - theirs; strings.HasPrefix(version, "v1.36.") != (taken == 0) || taken != 0 && taken != hugePages*2<<20 {
		t.Errorf("kubelet %s takes %.0f bytes off", version, taken)
	}
	if strings.HasPrefix(version, "v1.36.") {
		return
	}

	// What is near only without the huge pages.
	n.StopKubelet()
	n.StartKubelet(t, fmt.Sprintf("evictionHard: {memory.available: \"%.0f\"}\n", s.Node.Memory.AvailableBytes/1.1))
	wantWords(t, look().until(t, time.Minute, npd.NonOK), "memory.available ", "kubelet evicts pods below ", "; 4GiB more are huge pages")
	stranger := look()
	stranger.args = append(stranger.args, "--token-file="+n.ServiceAccount(t, "kube-system", "stranger"))
	wantWords(t, stranger.look(t).Message, "memory.available is not known: ", "or, if kubelet takes off huge pages as since 1.37, ", "nodes/metrics")
	n.StopKubelet()
	n.StartKubelet(t, fmt.Sprintf("featureGates: {HugepageAwareEviction: false}\nevictionHard: {memory.available: \"%.0f\"}\n", s.Node.Memory.AvailableBytes/1.1))
	look().until(t, time.Minute, npd.OK)
}

// Real huge pages, which take from what is left for all else.
func TestEvictionHugePages(t *testing.T) {
	lab.NeedOwnGuest(t, 1024)
	const pages = 128
	hugePages := func(n int) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/vm/nr_hugepages", fmt.Append(nil, n), 0); err != nil {
			t.Fatal(err)
		}
	}
	threshold := float64(kubeletAvailable(t)-pages<<21) / 1.1
	settings := fmt.Sprintf("evictionHard: {memory.available: \"%.0f\"}\nfeatureGates: {HugepageAwareEviction: ", threshold)
	aware, unaware := watch(t, "eviction", kubeletFile(t, settings+"true}\n")), watch(t, "eviction", kubeletFile(t, settings+"false}\n"))
	aware.wantOK(t)
	hugePages(pages)
	if held := counter(t, "/proc/meminfo", "Hugetlb:"); held != pages*2048 {
		t.Fatalf("%d kB of huge pages", held)
	}
	aware.wantProblem(t, "memory.available ", "kubelet evicts pods below ", "; 256MiB more are huge pages")
	unaware.wantOK(t)
	hugePages(0)
	aware.wantOK(t)
}

// The memory that all pods together may use, of which what runs outside of pods takes nothing.
func TestEvictionAllocatable(t *testing.T) {
	lab.NeedRoot(t)
	node := lab.NewCgroup(t, "node")
	pods := node.Child(t, "kubepods")
	pods.LimitMemory(t, 200<<20)
	pod := pods.Child(t, strings.TrimPrefix(podCgroup, "kubepods/"))
	outside := node.Child(t, "system.slice/big.service")
	file := lab.ColdFile(t, t.TempDir(), 1<<20)
	for group, size := range map[*lab.Cgroup]int{outside: 300 << 20, pod: 60 << 20} {
		eater := lab.StartThrasher(t, file, size, 0)
		group.Add(t, eater.Pid)
		eater.Begin(t)
	}
	check := watch(t, "eviction", kubeletFile(t, "cgroupRoot: "+node.Path+"\nevictionHard: {memory.available: 120Mi}\n"))
	lab.Eventually(t, 30*time.Second, "the pod has taken its memory", func() bool { return check.look(t).Status == npd.NonOK })
	result := check.look(t)
	wantWords(t, result.Message, "allocatableMemory.available 1", "kubelet evicts pods below 120MiB of 200MiB ("+node.Path+"/kubepods)", "most: pod "+podUID)
	if strings.Contains(result.Message, "big.service") {
		t.Errorf("names what is no pod: %s", result.Message)
	}
}

// A disk that fills up, with data and with files, as kubelet's own and as that of the images.
func TestEvictionDisk(t *testing.T) {
	lab.NeedRoot(t)
	d := lab.NewDisk(t, lab.DiskDir(t), "")
	file := kubeletFile(t, "evictionHard: {nodefs.available: 10%, nodefs.inodesFree: 5%}\n")
	nodefs := watch(t, "eviction", file, "--kubelet-dir="+d.Dir)
	nodefs.wantOK(t)
	imagefs := watch(t, "eviction", kubeletFile(t, "evictionHard: {imagefs.available: 15%}\n"), "--image-dir="+d.Dir)
	imagefs.wantOK(t)

	full := filepath.Join(d.Dir, "full")
	fill(t, full, 18)
	imagefs.wantProblem(t, "imagefs.available ", "kubelet evicts pods below ", d.Dir)
	nodefs.wantOK(t)
	fill(t, full, 9)
	imagefs.wantProblem(t, "imagefs.available ", "kubelet evicts pods: it is below ")
	nodefs.wantProblem(t, "nodefs.available ", "kubelet evicts pods: it is below ", d.Dir, "who uses most is not known")
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	imagefs.wantOK(t)
	nodefs.wantOK(t)

	files := filepath.Join(d.Dir, "files")
	for i, left := 0, statfs(t, d.Dir); left.Ffree*1000 >= left.Files*55; i++ {
		dir := filepath.Join(files, fmt.Sprint(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range min(500, left.Ffree-left.Files*54/1000) {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(j)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		left = statfs(t, d.Dir)
	}
	nodefs.wantProblem(t, "nodefs.inodesFree ", "kubelet evicts pods below ")
	if err := os.RemoveAll(files); err != nil {
		t.Fatal(err)
	}
	nodefs.wantOK(t)
}

// What fills kubelet's disk and is no pod's is named, and a dead file system that is mounted beside it holds up nothing.
func TestEvictionOutsideOfPods(t *testing.T) {
	lab.NeedRoot(t)
	if lab.InGuest() {
		t.Skip("needs a loopback interface, for a kubelet to ask")
	}
	d := lab.NewDisk(t, lab.DiskDir(t), "")
	kubelet := kubelettest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, map[string]string{
			"/configz": `{"kubeletconfig": {"evictionHard": {"nodefs.available": "10%"}}}`,
			"/stats/summary": `{"node": {"fs": {"capacityBytes": 1}, "runtime": {"imageFs": {"capacityBytes": 1}}},
				"pods": [{"podRef": {"namespace": "shop", "name": "cart-0"}, "ephemeral-storage": {"usedBytes": 8192}}]}`,
		}[r.URL.Path])
	})
	for _, dir := range []string{"kubelet/pods", "dump", "dead"} {
		if err := os.MkdirAll(filepath.Join(d.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := lab.StartFuse(t)
	dead := filepath.Join(d.Dir, "dead")
	if err := unix.Mount(f.Dir, dead, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dead, unix.MNT_DETACH) })
	f.Silence(t)
	check := watch(t, "eviction", append(kubelet.Flags(), "--kubelet-dir="+d.Dir+"/kubelet")...)
	check.wantOK(t)
	core := filepath.Join(d.Dir, "dump/core")
	fill(t, core, 9)
	check.wantProblem(t, "nodefs.available ", "most: "+d.Dir, "or more, outside of pods", "pod shop/cart-0 8KiB")
	if stuck := processesApart(t); stuck != 0 {
		t.Errorf("%d processes apart hang", stuck)
	}
	if err := os.Remove(core); err != nil {
		t.Fatal(err)
	}
	check.wantOK(t)
}

func statfs(t *testing.T, dir string) unix.Statfs_t {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// fill makes a file grow until less than that many percent are available on its disk.
func fill(t *testing.T, file string, percent uint64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		st := statfs(t, filepath.Dir(file))
		if st.Bavail*100 < st.Blocks*percent {
			return
		}
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

// Where the images are shows in the mount of a container.
func TestEvictionFindsImages(t *testing.T) {
	if !lab.InGuest() {
		t.Skip("other containers of this machine may be found before: runs in an emulated guest (make kernels)")
	}
	d := lab.NewDisk(t, lab.DiskDir(t), "")
	merged := filepath.Join(t.TempDir(), "merged")
	layers := filepath.Join(d.Dir, "containers/overlay")
	for _, dir := range []string{merged, layers + "/image/diff", layers + "/own/diff", layers + "/own/work"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/image/diff,upperdir=%[1]s/own/diff,workdir=%[1]s/own/work", layers)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Skipf("needs overlay: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	check := watch(t, "eviction", kubeletFile(t, "evictionHard: {imagefs.available: 15%}\n"))
	check.wantOK(t)
	fill(t, filepath.Join(d.Dir, "full"), 14)
	check.wantProblem(t, "imagefs.available ", d.Dir)
}

// A kubelet directory whose file system does not answer: the check says so in time, and leaves at most one process behind.
func TestEvictionHangs(t *testing.T) {
	lab.NeedRoot(t)
	f := lab.StartFuse(t)
	file := kubeletFile(t, "evictionHard: {nodefs.available: 10%}\n")
	check := watch(t, "eviction", file, "--kubelet-dir="+f.Dir)
	check.wantOK(t)
	f.Silence(t)
	wantWords(t, check.look(t).Message, "was OK; cannot look now: nodefs.available is not known: statfs of "+f.Dir)
	forgets := func() *watcher { return watch(t, "eviction", file, "--kubelet-dir="+f.Dir, "--timeout=6s") }
	for range 3 {
		result := forgets().look(t)
		if result.Status != npd.Unknown || result.Took > 15*time.Second {
			t.Errorf("want Unknown in time: %s after %v: %s", result.Status, result.Took, result.Message)
		}
		wantWords(t, result.Message, "statfs of "+f.Dir, "not answer")
		if stuck := processesApart(t); stuck != 1 {
			t.Errorf("%d processes apart", stuck)
		}
	}
	f.Stop(t)
	lab.Eventually(t, 20*time.Second, "the process apart ends", func() bool { return processesApart(t) == 0 })
}

// processesApart counts the processes of this test's own that ask for file systems and have not ended. Of a killed one the
// first thread may have ended while another hangs.
func processesApart(t *testing.T) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/task/*/stat")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, path := range stats {
		text, _ := os.ReadFile(path)
		stat, err := procfs.ParseStat(text)
		exe, _ := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if err == nil && stat.State != 'Z' && strings.HasPrefix(exe, binaries) {
			process := filepath.Dir(filepath.Dir(filepath.Dir(path)))
			comm, _ := os.ReadFile(filepath.Join(process, "comm"))
			found[process] = found[process] || strings.HasPrefix(string(comm), "npd-")
		}
	}
	n := 0
	for _, apart := range found {
		if apart {
			n++
		}
	}
	return n
}

// Memory that a pod takes until nothing is left: the check says so before kubelet would evict. Page cache that can give way
// does not count.
func TestEvictionMemory(t *testing.T) {
	lab.NeedOwnGuest(t, 512)
	const threshold = 100 << 20
	check := watch(t, "eviction", kubeletFile(t, "evictionHard: {memory.available: 100Mi}\n"))
	check.wantOK(t)

	dir := lab.DiskDir(t)
	cold := lab.ColdFile(t, dir, 400<<20)
	file, err := os.Open(cold)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.Copy(io.Discard, file); err != nil {
		t.Fatal(err)
	}
	t.Logf("with page cache %d MiB are free, %d MiB available to kubelet", counter(t, "/proc/meminfo", "MemFree:")>>10, kubeletAvailable(t)>>20)
	check.wantOK(t)

	pod := lab.NewCgroup(t, podCgroup+"/"+containerID)
	eater := lab.StartThrasher(t, lab.ColdFile(t, t.TempDir(), 1<<20), 150<<20, 2<<20)
	pod.Add(t, eater.Pid)
	eater.Begin(t)
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		result := check.look(t)
		left := kubeletAvailable(t)
		if result.Status == npd.NonOK {
			t.Logf("Problem with %d MiB available, %d MiB before kubelet evicts", left>>20, (left-threshold)>>20)
			if left < threshold {
				t.Errorf("kubelet would have evicted before")
			}
			wantWords(t, result.Message, "memory.available 1", "kubelet evicts pods below 100MiB", "most: pod "+podUID)
			break
		}
		if left < threshold || time.Now().After(deadline) {
			t.Fatalf("no Problem with %d MiB available", left>>20)
		}
	}
	eater.Stop()
	check.until(t, time.Minute, npd.OK)
}

// kubeletAvailable is memory.available of a kubelet on cgroup v2.
func kubeletAvailable(t *testing.T) int {
	t.Helper()
	sum := 1024 * counter(t, "/proc/meminfo", "MemTotal:")
	for key, sign := range map[string]int{"anon": -1, "file": -1, "inactive_file": 1} {
		sum += sign * counter(t, "/sys/fs/cgroup/memory.stat", key)
	}
	return sum
}

func counter(t *testing.T, file, key string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, ok := procfs.Counter(b, key)
	if !ok {
		t.Fatalf("%s: no %s", file, key)
	}
	return int(n)
}

// Every PID that kubelet's threshold leaves.
func TestEvictionPIDs(t *testing.T) {
	lab.NeedRoot(t)
	machine := machineRoot(t)
	limit, err := procfs.TaskLimit(machine, 0)
	if err != nil {
		t.Skipf("needs the host's limit of tasks: %v", err)
	}
	tasks, err := procfs.Tasks(machine)
	if err != nil {
		t.Fatal(err)
	}
	const more = 1500
	check := watch(t, "eviction", kubeletFile(t, fmt.Sprintf("evictionHard: {pid.available: \"%d\"}\n", (limit.Tasks-uint64(tasks)-more/2)*100/120)))
	check.wantOK(t)
	culprit := startCulpritInPod(t)
	culprit.Threads(t, more)
	check.wantProblem(t, "pid.available ", "kubelet evicts pods below ", "most: pod "+podUID)
	culprit.Stop()
	check.wantOK(t)
}

// The configuration on the real node-problem-detector, with a full disk made and cleared.
func TestEvictionOnDetector(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	d := lab.NewDisk(t, lab.DiskDir(t), "")
	detector := startDetector(t, map[string][]string{"eviction": {kubeletFile(t, "evictionHard: {nodefs.available: 10%}\n"), "--kubelet-dir=" + d.Dir}})
	detector.wait(t, "EvictionImminent", "EvictionSignalNearThreshold", false)
	full := filepath.Join(d.Dir, "full")
	fill(t, full, 11)
	detector.wait(t, "EvictionImminent", "EvictionSignalNearThreshold", true)
	detector.wantSaid(t, "EvictionImminent", "nodefs.available", "kubelet evicts pods below")
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	detector.wait(t, "EvictionImminent", "EvictionSignalNearThreshold", false)
}
