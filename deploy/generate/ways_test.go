package main

import (
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"npd-plugins/test/lab"
)

// built are the checks, which are built for the first test that runs them.
var built struct {
	once   sync.Once
	dir    string
	remove func()
	err    error
}

func TestMain(m *testing.M) {
	lab.RunCulprit()
	code := m.Run()
	if built.remove != nil {
		built.remove()
	}
	os.Exit(code)
}

// binaries is the directory with the built checks.
func binaries(t *testing.T) string {
	t.Helper()
	built.once.Do(func() { built.dir, built.remove, built.err = lab.Binaries() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// values are those of the chart that deploy/helm sets.
type values struct {
	Settings struct {
		CustomMonitorDefinitions map[string]string `json:"custom_monitor_definitions"`
		CustomPluginMonitors     []string          `json:"custom_plugin_monitors"`
		LogMonitors              []string          `json:"log_monitors"`
		ExtraArgs                []string          `json:"extraArgs"`
	} `json:"settings"`
	RBAC              map[string]any   `json:"rbac"`
	InitContainers    []map[string]any `json:"initContainers"`
	Env               []named          `json:"env"`
	Resources         map[string]any   `json:"resources"`
	ExtraVolumes      []named          `json:"extraVolumes"`
	ExtraVolumeMounts []named          `json:"extraVolumeMounts"`
}

type named struct {
	Name      string         `json:"name"`
	MountPath string         `json:"mountPath"`
	ValueFrom map[string]any `json:"valueFrom"`
	HostPath  map[string]any `json:"hostPath"`
	EmptyDir  map[string]any `json:"emptyDir"`
}

// TestChartTraps: what the chart node-problem-detector 2.4.1 does with values is not always what it looks like.
func TestChartTraps(t *testing.T) {
	for _, profile := range []string{core, all} {
		t.Run(profile, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("../helm", profile+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			var v values
			if err := yaml.Unmarshal(text, &v); err != nil {
				t.Fatal(err)
			}
			testLists(t, v)
			testNames(t, v)
			if got := v.RBAC != nil; got != (profile == all) {
				t.Errorf("rights beyond the chart's: %t", got)
			}
		})
	}
}

// harmless is what the chart's command line, a string in double quotes that a shell splits, leaves as it is.
var harmless = regexp.MustCompile(`^[A-Za-z0-9/._-]+$`)

func testLists(t *testing.T, v values) {
	t.Helper()
	if !slices.Equal(v.Settings.LogMonitors[:len(chartLogs)], chartLogs) {
		t.Errorf("log_monitors replaces the chart's list, whose items are not the first: %q", v.Settings.LogMonitors)
	}
	for _, arg := range v.Settings.ExtraArgs {
		if !strings.HasPrefix(arg, " ") {
			t.Errorf("extraArgs are joined without a space: %q runs into what is before it", arg)
		}
	}
	monitors := slices.Concat(v.Settings.CustomPluginMonitors, v.Settings.LogMonitors)
	for i, monitor := range monitors {
		if !harmless.MatchString(monitor) {
			t.Errorf("the command line of the chart changes %q", monitor)
		}
		if slices.Contains(monitors[:i], monitor) {
			t.Errorf("%s is there twice", monitor)
		}
		if name, ok := strings.CutPrefix(monitor, "/custom-config/"); ok && v.Settings.CustomMonitorDefinitions[name] == "" {
			t.Errorf("%s: only custom_monitor_definitions are mounted there", monitor)
		}
		if name, ok := strings.CutPrefix(monitor, installed+"/"); ok {
			if _, err := os.Stat(filepath.Join("../..", name)); err != nil {
				t.Errorf("%s: npdctl installs no such file, and node-problem-detector dies of it", monitor)
			}
		}
	}
	if len(v.InitContainers) != 1 || len(v.Resources) == 0 {
		t.Errorf("%d init containers and %d kinds of resources", len(v.InitContainers), len(v.Resources))
	}
}

// testNames: the chart writes lists of values behind its own, and the API server refuses a name that is there twice.
func testNames(t *testing.T, v values) {
	t.Helper()
	volumes := []string{"log", "localtime", "custom-config"}
	for _, volume := range v.ExtraVolumes {
		if slices.Contains(volumes, volume.Name) || volume.HostPath == nil == (volume.EmptyDir == nil) {
			t.Errorf("volume %+v", volume)
		}
		volumes = append(volumes, volume.Name)
	}
	taken := []string{"/var/log", "/etc/localtime", "/custom-config"}
	for _, mount := range v.ExtraVolumeMounts {
		if slices.Contains(taken, path.Clean(mount.MountPath)) || !slices.Contains(volumes, mount.Name) {
			t.Errorf("mount %+v", mount)
		}
		taken = append(taken, path.Clean(mount.MountPath))
	}
	for _, variable := range v.Env {
		if variable.Name == "NODE_NAME" || variable.ValueFrom == nil {
			t.Errorf("variable %+v", variable)
		}
	}
}

// TestNeeds: each check of plugins/ is in needs.yaml, and no other; and core mounts what its checks read.
func TestNeeds(t *testing.T) {
	n := readAllNeeds(t)
	folders, err := filepath.Glob("../../plugins/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var checks []string
	for _, folder := range folders {
		checks = append(checks, filepath.Base(filepath.Dir(folder)))
	}
	if listed := slices.Sorted(maps.Keys(n.Checks)); !slices.Equal(listed, checks) {
		t.Errorf("needs.yaml has %q, plugins has %q", listed, checks)
	}
	mounts, err := readPod("../kustomize/core/mounts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var mounted []string
	for _, mount := range mounts.Containers[0].VolumeMounts {
		mounted = append(mounted, strings.TrimPrefix(mount.(map[string]any)["mountPath"].(string), "/host"))
	}
	for check, need := range n.Checks {
		if need.Profile == core && need.Kubelet != "" {
			t.Errorf("%s asks kubelet, for which core has no rights", check)
		}
		for _, path := range need.Paths {
			if need.Profile == core && !slices.ContainsFunc(mounted, func(m string) bool { return below(path, m) }) {
				t.Errorf("%s reads %s, which core does not mount", check, path)
			}
		}
	}
}

func readAllNeeds(t *testing.T) *needs {
	t.Helper()
	text, err := os.ReadFile("../needs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n := new(needs)
	if err := yaml.UnmarshalStrict(text, n); err != nil {
		t.Fatal(err)
	}
	return n
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// absolute finds the paths in the text of --help: at the beginning or behind a space, a bracket or a colon.
var absolute = regexp.MustCompile(`(?:^|[ (:])(/[a-z][A-Za-z0-9_./-]*)`)

// notOfTheHost are paths in the text that are not below --host-root: of kubelet's port.
var notOfTheHost = []string{"/metrics", "/configz", "/stats"}

// TestPathsOfHelp: a path that a check tells of under "Reads" or "Needs" of its --help is below one that needs.yaml has.
func TestPathsOfHelp(t *testing.T) {
	bin := binaries(t)
	for check, need := range readAllNeeds(t).Checks {
		help, err := exec.Command(filepath.Join(bin, check), "--help").CombinedOutput()
		if err != nil {
			t.Errorf("%s --help: %v", check, err)
			continue
		}
		_, rest, _ := strings.Cut(string(help), "\nReads:\n")
		text, _, _ := strings.Cut(rest, "\nStays OK:\n") // Reads and Needs
		for _, match := range absolute.FindAllStringSubmatch(text, -1) {
			path := strings.TrimRight(match[1], "/.")
			if slices.ContainsFunc(notOfTheHost, func(p string) bool { return below(path, p) }) || strings.HasPrefix(path, "/var/run/secrets") {
				continue
			}
			if !slices.ContainsFunc(need.Paths, func(p string) bool { return below(path, p) }) {
				t.Errorf("%s reads %s, which is below none of %q", check, path, need.Paths)
			}
		}
	}
}

// TestInstalled: the init container's arguments install each file that node-problem-detector is then given.
func TestInstalled(t *testing.T) {
	bin := binaries(t)
	npdctl := filepath.Join(t.TempDir(), "npdctl")
	if out, err := exec.Command("go", "build", "-o", npdctl, "npd-plugins/cmd/npdctl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pod, err := readPod("../kustomize/common/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dest := t.TempDir()
	var args []string
	for _, arg := range pod.InitContainers[0].(map[string]any)["args"].([]any) {
		args = append(args, strings.Replace(arg.(string), "--dest="+installed, "--dest="+dest, 1))
	}
	args = append(args, "--bin="+bin, "--config=../../config", "--rules=../../journal-rules", "--mounted-at="+installed, "--set=task-limit.pid-max=4194304")
	if out, err := exec.Command(npdctl, args...).CombinedOutput(); err != nil {
		t.Fatalf("npdctl %q: %v\n%s", args, err, out)
	}
	text, err := os.ReadFile("../kustomize/all/arguments.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := regexp.MustCompile(installed+`(/[A-Za-z0-9/.-]+)`).FindAllStringSubmatch(string(text), -1)
	if len(files) < 20 {
		t.Errorf("%d files in the arguments", len(files))
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(dest, file[1]))
		if err != nil {
			t.Error(err)
		}
		if strings.HasPrefix(file[1], "/config/") && !strings.Contains(string(content), `"--host-root=/host"`) {
			t.Errorf("%s looks at the container, not at the node", file[1])
		}
	}
}
