// Package image tests the container image on a real containerd, as the init container of node-problem-detector's pod runs it, and what
// it installs with the checks as node-problem-detector executes them.
package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

const imageName = "localhost/npd-plugins"

// build makes the image for this machine and returns its layout.
func build(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "dist")
	run := exec.Command("go", "run", "-C", "../../deploy/image", ".", "--root", "../..", "--out", out, "--version", "v0-test", "--platforms", "linux/"+runtime.GOARCH)
	if said, err := run.CombinedOutput(); err != nil {
		t.Fatalf("make the image: %v\n%s", err, said)
	}
	return filepath.Join(out, "image")
}

// pod is a pod whose init container is the image, with a directory of the machine for its emptyDir. The directory has the same path in
// the container.
type pod struct {
	*testing.T
	containerd *lab.Containerd
	config     *runtimeapi.PodSandboxConfig
	sandbox    string
	dir        string // of the emptyDir, which kubelet makes with mode 0777
	runs       int
}

func newPod(t *testing.T) *pod {
	binaries := t.TempDir()
	pause := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binaries+"/", "npd-plugins/test/lab/pause")
	pause.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := pause.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := &pod{T: t, containerd: lab.StartContainerd(t, binaries, lab.ContainerdConfig{}), config: lab.PodConfig("node-problem-detector-x", 1, 0), dir: lab.ShortDir(t)}
	p.containerd.Import(t, build(t), imageName)
	if err := os.Chmod(p.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.sandbox, err = p.containerd.RunPod(t.Context(), p.config, ""); err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs the image with arguments as the manifests of deploy/ do: no capability, nothing writable but the emptyDir.
func (p *pod) run(args ...string) (code int, output string) {
	p.Helper()
	p.runs++
	container := lab.ContainerConfig(p.config, "npd-plugins")
	container.Metadata.Attempt = uint32(p.runs)
	container.Image.Image = imageName + ":v0-test"
	container.LogPath = "npd-plugins_" + strings.Repeat("0", p.runs) + ".log"
	container.Args = args
	container.Mounts = []*runtimeapi.Mount{{ContainerPath: p.dir, HostPath: p.dir}}
	container.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
		ReadonlyRootfs: true, NoNewPrivs: true, RunAsUser: nil, // that of the image
		Capabilities:     &runtimeapi.Capability{DropCapabilities: []string{"ALL"}},
		NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions,
	}}
	return p.containerd.RunToEnd(p.T, p.sandbox, p.config, container)
}

// installs is run that must succeed. It returns the flags for node-problem-detector that install tells.
func (p *pod) installs(args ...string) (flags []string) {
	p.Helper()
	code, said := p.run(append([]string{"install", "--dest=" + p.dir}, args...)...)
	if code != 0 {
		p.Fatalf("exit %d: %s", code, said)
	}
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "--config.") {
			flags = append(flags, strings.TrimSpace(line))
		}
	}
	if len(flags) != 2 {
		p.Fatalf("said %s", said)
	}
	return flags
}

// look runs an installed check as node-problem-detector does.
func (p *pod) look(check string) npd.PluginResult {
	p.Helper()
	config, err := npd.LoadCustom(filepath.Join(p.dir, "config", check+".json"))
	if err != nil {
		p.Fatal(err)
	}
	rule := config.Rules[0]
	args := append(rule.Args, "--state-dir="+p.TempDir())
	return npd.RunPlugin(p.Context(), rule.Path, args, time.Duration(*rule.Timeout), config.PluginConfig.MaxOutputLength)
}

func TestInitContainer(t *testing.T) {
	p := newPod(t)
	if code, said := p.run(); code != 2 || !strings.Contains(said, "give --dest DIR") {
		t.Errorf("without arguments: exit %d, %s", code, said)
	}
	if code, said := p.run("install", "--dest="+p.dir, "--set=zombies.none=1"); code != 2 || !strings.Contains(said, "flag provided but not defined: -none") {
		t.Errorf("a flag that is not there: exit %d, %s", code, said)
	}
	p.installs("--set=zombies.count=200")
	for _, check := range []string{"zombies", "task-limit"} {
		if r := p.look(check); r.Status == npd.Unknown || r.Hung {
			t.Errorf("%s: %v, %s", check, r.Status, r.Message)
		}
	}
	config, err := npd.LoadCustom(filepath.Join(p.dir, "config/zombies.json"))
	if err != nil || strings.Join(config.Rules[0].Args, " ") != "--timeout=8s --count=200" {
		t.Errorf("%v, zombies gets %q", err, config.Rules[0].Args)
	}
	if code, said := p.run("install", "--dest="+p.dir, "--check"); code != 0 || !strings.Contains(said, "npd-plugins v0-test is whole") {
		t.Errorf("exit %d, %s", code, said)
	}
}

// TestUnderARunningDetector installs over and over in the directory that a node-problem-detector works with.
func TestUnderARunningDetector(t *testing.T) {
	lab.NeedDetector(t)
	p := newPod(t)
	quick := []string{"--enable=zombies,task-limit", "--set=zombies.state-dir=" + t.TempDir(), "--set=task-limit.state-dir=" + t.TempDir()}
	flags := p.installs(quick...)
	for _, name := range []string{"zombies", "task-limit"} { // to see a look each second
		path := filepath.Join(p.dir, "config", name+".json")
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, interval := range []string{"30s", "60s"} {
			content = []byte(strings.Replace(string(content), `"invoke_interval": "`+interval+`"`, `"invoke_interval": "1s"`, 1))
		}
		temp := filepath.Join(t.TempDir(), name+".json")
		if err := os.WriteFile(temp, content, 0o644); err != nil {
			t.Fatal(err)
		}
		flags[0] = strings.Replace(flags[0], path, temp, 1)
	}
	d := lab.StartDetector(t, flags[0])
	healthy := func() bool {
		page := d.Metrics()
		return strings.Contains(page, `type="ZombieProcesses"} 0`) && strings.Contains(page, `type="TasksNearLimit"} 0`)
	}
	lab.Eventually(t, 30*time.Second, "both conditions are there", healthy)
	for _, args := range [][]string{quick, {"--enable=task-limit"}, append(quick, "--set=zombies.count=100")} {
		p.installs(args...)
		time.Sleep(1500 * time.Millisecond) // a look or two
	}
	log := d.Log(t)
	for _, bad := range []string{"Status:2", "no such file", "text file busy", "Error in starting plugin", "unknown"} {
		if strings.Contains(strings.ToLower(log), strings.ToLower(bad)) {
			t.Errorf("node-problem-detector says %q:\n%s", bad, log)
		}
	}
	if !healthy() {
		t.Errorf("the conditions are gone:\n%s", d.Metrics())
	}
}
