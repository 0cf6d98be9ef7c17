package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/npd"
)

// stub stands for a check: it starts, takes all arguments and tells a version.
const stub = "#!/bin/sh\necho \"${0##*/} v1\"\n"

// release is a directory as it is shipped: the repository's configurations and rules, and a stub for each check.
func release(t *testing.T) site {
	t.Helper()
	s := site{t, t.TempDir()}
	for from, to := range map[string]string{"../../config": "config", "../../journal-rules": "journal-rules"} {
		if err := os.CopyFS(filepath.Join(s.dir, to), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	configs, err := filepath.Glob(filepath.Join(s.dir, "config/*.json"))
	if err != nil || len(configs) == 0 {
		t.Fatalf("no configurations: %v", err)
	}
	for _, config := range configs {
		parsed, err := npd.LoadCustom(config)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range parsed.Rules {
			s.write("bin/"+filepath.Base(rule.Path), stub)
		}
	}
	return s
}

func (s site) install(dest string, args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	// Nothing is to depend on what this machine is.
	args = append([]string{"install", "--dest", dest, "--bin", filepath.Join(s.dir, "bin"), "--distribution", generic}, args...)
	code = npdctl(args, &out, &errs)
	return code, out.String(), errs.String()
}

// installs is install that must succeed.
func (s site) installs(dest string, args ...string) (stdout string) {
	s.Helper()
	code, out, errs := s.install(dest, args...)
	if code != exitFine || errs != "" {
		s.Fatalf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	return out
}

// checks is install --check that must be content.
func (s site) checks(dest string, args ...string) {
	s.Helper()
	s.has(s.installs(dest, append([]string{"--check"}, args...)...), " is whole in "+dest)
}

// refuses is install that must fail, and leave what is there.
func (s site) refuses(want, dest string, args ...string) {
	s.Helper()
	before := contents(s.T, dest)
	code, _, errs := s.install(dest, args...)
	if code != exitBroken {
		s.Errorf("exit %d", code)
	}
	s.has(errs, want)
	if diff := cmp.Diff(before, contents(s.T, dest)); diff != "" {
		s.Errorf("changed what was there:\n%s", diff)
	}
}

// contents are the files below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range tree(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(content)
	}
	return all
}

// tree lists all files below a directory, which may be absent.
func tree(t *testing.T, dir string) (files []string) {
	t.Helper()
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			name, _ := filepath.Rel(dir, path)
			files = append(files, name)
		}
		return nil
	})
	return files
}

func (s site) watched(path string) *npd.LogConfig {
	s.Helper()
	m, err := npd.LoadLogMonitor(path)
	if err != nil {
		s.Fatal(err)
	}
	return m.Config
}

func TestInstall(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new/place")
	s.installs(dest)

	for _, name := range tree(t, s.dir) {
		if strings.Contains(name, "testdata") || !strings.HasSuffix(name, ".json") || strings.HasPrefix(name, "new/") {
			continue
		}
		if _, err := os.Stat(filepath.Join(dest, name)); err != nil {
			t.Error(err)
		}
	}
	configs, _ := filepath.Glob(dest + "/config/*.json")
	for _, file := range configs {
		config, err := npd.LoadCustom(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range config.Rules {
			info, err := os.Stat(rule.Path)
			if err != nil || info.Mode().Perm() != 0o755 || filepath.Dir(rule.Path) != dest+"/bin" {
				t.Errorf("%s: path %s, %v", file, rule.Path, err)
			}
		}
	}
	for _, name := range tree(t, dest) {
		if strings.Contains(name, "testdata") || strings.HasSuffix(name, ".md") || strings.HasSuffix(name, ".go") || strings.Contains(filepath.Base(name)[1:], ".json.") {
			t.Errorf("installed %s", name)
		}
	}
}

// TestInstallAgain: what a running node-problem-detector may still name stays until it is pruned.
func TestInstallAgain(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	if err := os.MkdirAll(dest+"/lost+found", 0o700); err != nil { // a volume
		t.Fatal(err)
	}
	s.installs(dest, "--distribution", "rke2")
	s.write("new/config/own.json", "{}")

	s.write("bin/task-limit", stub+"# newer\n")
	out := s.installs(dest, "--disable", "zombies,TasksNearLimit", "--disable=pleg")
	s.has(out, "kept from earlier installs: bin/pleg bin/task-limit bin/zombies journal-rules/filelog/rfc3339/kubelet-rke2.json")
	if strings.Contains(out[strings.Index(out, "--config."):], "zombies") {
		t.Errorf("names what is left out:\n%s", out)
	}
	if got := s.read("new/config/zombies.json"); !strings.Contains(got, `"rules": []`) {
		t.Errorf("zombies.json is %s", got)
	}
	if got := s.read("new/bin/task-limit"); got != stub {
		t.Errorf("task-limit is %s", got)
	}
	if identifier := s.watched(dest + "/journal-rules/kubelet.json").PluginConfig["source"]; identifier != "kubelet" {
		t.Errorf("identifier %s", identifier)
	}
	s.checks(dest)

	s.has(s.installs(dest, "--disable", "pleg", "--prune"), "removed from earlier installs: bin/pleg journal-rules/filelog/rfc3339/kubelet-rke2.json "+
		"journal-rules/filelog/traditional/kubelet-rke2.json journal-rules/kubelet-rke2.json\n")
	for name, want := range map[string]bool{"bin/zombies": true, "bin/pleg": false, "config/pleg.json": true, "config/own.json": true, "journal-rules/kubelet-rke2.json": false} {
		if got := isFile(filepath.Join(dest, name)); got != want {
			t.Errorf("%s is there: %v", name, got)
		}
	}
	if got := s.read("new/bin/task-limit"); got != stub+"# newer\n" {
		t.Errorf("task-limit is %s", got)
	}
	s.checks(dest)
	l, err := parseList(s.read("new/" + listFile))
	if err != nil || !l.complete || len(l.kept) > 0 || l.files["config/own.json"] != nil || l.files["bin/zombies"] == nil {
		t.Errorf("%v, list %+v", err, l)
	}
}

// TestInstallPrunesNothingChanged: what somebody has edited is not removed.
func TestInstallPrunesNothingChanged(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	s.installs(dest, "--distribution=rke2")
	s.write("new/journal-rules/kubelet-rke2.json", "{}")
	s.has(s.installs(dest, "--disable=zombies", "--prune"), "kept from earlier installs: journal-rules/kubelet-rke2.json\n")
	if s.read("new/journal-rules/kubelet-rke2.json") != "{}" || isFile(dest+"/bin/zombies") {
		t.Error("not what was to be kept")
	}
}

func TestInstallRefuses(t *testing.T) {
	s := release(t)
	foreign := filepath.Join(s.dir, "foreign")
	if err := os.Mkdir(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("foreign/data", "")
	s.refuses(foreign+" holds data and no .npd-plugins", foreign)
	s.refuses("holds data and no .npd-plugins", foreign, "--check")

	dest := filepath.Join(s.dir, "new")
	s.refuses(`no distribution "k8s"; there are kubeadm crio docker openshift k3s rke2 k0s microk8s deckhouse, and generic for any`, dest, "--distribution=k8s")
	s.refuses("no other argument", dest, "k3s")
	s.refuses("no check zombie; there are ", dest, "--enable=zombie")
	s.refuses("no check none; there are ", dest, "--disable=none")
	s.refuses("an empty name", dest, "--disable=pleg,")
	s.refuses("no check is left", dest, "--enable=pleg", "--disable=PLEGStalled")
	s.refuses("--set pleg.age: no such check is chosen", dest, "--enable=zombies", "--set=pleg.age=5m")
	s.refuses("want check.flag=value", dest, "--set=pleg.age")
	s.refuses("want check.flag=value", dest, "--set=pleg.--age=5")
	s.refuses("the check would not look", dest, "--set=pleg.version=true")
	s.refuses("reads --output=npd only", dest, "--set=pleg.output=json")
	s.refuses("[check-timeout]", dest, "--set=pleg.timeout=1h")
	s.refuses("not an absolute path", dest, "--mounted-at=opt")
	s.refuses("nothing is installed", dest, "--check")
	s.refuses("no such file or directory", dest+"/none", "--check")

	s.installs(dest)
	s.refuses("is what would be installed over", dest, "--bin", dest+"/bin")
	s.write("config/other.json", strings.NewReplacer("bin/zombies", "bin/other", "Zombie", "Other").Replace(s.read("config/zombies.json")))
	s.refuses("other.json needs "+s.dir+"/bin/other", dest)
	s.write("bin/other", stub)
	s.write("new/bin/other", "somebody else's")
	s.refuses("bin/other is there, and not from an install", dest)
	s.write("config/other.json", "{")
	s.refuses("other.json", dest)
}

// TestInstallRefusesWhatDoesNotWork: the checks are tried before anything is changed.
func TestInstallRefusesWhatDoesNotWork(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	s.installs(dest)
	s.write("bin/task-limit", stub+"# newer\n") // comes before zombies
	for content, want := range map[string]string{
		"":                                "cannot be started",
		"#!/bin/sh\nexit 1\n":             "config/zombies.json: bin/zombies --timeout=8s --version: it says nothing",
		"#!/bin/sh\necho zombie v1\n":     "--version: zombie v1",
		"#!/bin/sh\necho zombies; exit 2": "--version: zombies",
		"#!/nowhere\n":                    "cannot be started",
		"\x7fELF of another machine":      "cannot be started",
	} {
		s.write("bin/zombies", content)
		s.refuses(want, dest)
	}
	s.write("bin/zombies", stub)
	s.write("bin/npdctl", "#!/bin/sh\nexit 2\n")
	s.refuses("bin/npdctl --version", dest)
}

// TestInstallBrokenOff: wherever an install breaks off, each file is whole, and the next install completes it.
func TestInstallBrokenOff(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	s.installs(dest)
	old := contents(t, dest)
	i, err := collect(place{dest, dest}, sources{s.dir + "/bin", s.dir + "/config", s.dir + "/journal-rules"}, choice{hostRoot: "/host"})
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dest)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	before, err := readList(root, dest)
	if err != nil {
		t.Fatal(err)
	}
	now, err := i.stage(root)
	if err != nil {
		t.Fatal(err)
	}

	// While it writes, all is as before.
	s.checks(dest)
	for name, content := range old {
		if s.read("new/"+name) != content {
			t.Errorf("%s has changed", name)
		}
	}
	// In the middle of putting files in place.
	if err := os.Remove(filepath.Join(dest, staging, "config/zombies.json")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := i.replaceAll(root, before, now, true); err == nil {
		t.Fatal("replaced what is not there")
	}
	if s.read("new/config/zombies.json") != old["config/zombies.json"] || s.read("new/config/pleg.json") == old["config/pleg.json"] {
		t.Error("not in the middle")
	}
	s.refuses("is half-written: an install of npd-plugins devel broke off", dest, "--check")

	s.installs(dest, "--host-root=/host")
	s.checks(dest)
	s.has(s.read("new/config/zombies.json"), `"--host-root=/host"`)
	s.installs(dest) // and back
	s.checks(dest)
	if diff := cmp.Diff(old, contents(t, dest)); diff != "" {
		t.Errorf("not as before:\n%s", diff)
	}
}

// TestInstallBrokenOffAtFirst: a directory that holds nothing but what an install was writing is empty.
func TestInstallBrokenOffAtFirst(t *testing.T) {
	s := release(t)
	if err := os.MkdirAll(filepath.Join(s.dir, "new", staging, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("new/"+staging+"/bin/zombies", "half")
	dest := filepath.Join(s.dir, "new")
	s.refuses("nothing is installed", dest, "--check")
	s.installs(dest)
	s.checks(dest)
}

// TestInstallKilled: whenever an install is killed, each configuration there loads, and its check starts and takes its arguments.
func TestInstallKilled(t *testing.T) {
	s := release(t)
	program := filepath.Join(t.TempDir(), "npdctl")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dest := filepath.Join(s.dir, "new")
	install := func(n int, limit time.Duration) (took time.Duration, ended bool) {
		t.Helper()
		for _, binary := range below(tree(t, s.dir), "bin") {
			s.write(binary, fmt.Sprintf("%s# version %d\n", stub, n))
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		began := time.Now()
		cmd := exec.CommandContext(ctx, program, "install", "--dest", dest, "--bin", s.dir+"/bin", fmt.Sprintf("--host-root=/host-%d", n))
		if n%2 == 1 {
			cmd.Args = append(cmd.Args, "--disable=zombies")
		}
		out, err := cmd.CombinedOutput()
		if err != nil && ctx.Err() == nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return time.Since(began), err == nil
	}
	took, _ := install(0, time.Minute)
	inMiddle := 0
	const kills = 20
	for n := 1; n <= kills; n++ {
		install(n, took*time.Duration(n)/kills)
		if l, err := parseList(s.read("new/" + listFile)); err != nil || !l.complete {
			inMiddle++
		}
		configs := below(tree(t, dest), "config")
		if len(configs) == 0 {
			t.Fatal("no configurations left")
		}
		for _, name := range configs {
			config, err := npd.LoadCustom(filepath.Join(dest, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, rule := range config.Rules { // none of a check that is disabled
				if err := answers(rule.Path, rule.Args); err != nil {
					t.Fatalf("killed after %d of %d: %s: %v", n, kills, name, err)
				}
			}
		}
	}
	t.Logf("an install took %v; killed %d times, %d of them while files were put in place", took, kills, inMiddle)
	if _, ended := install(kills, time.Minute); !ended {
		t.Fatal("not completed")
	}
	s.checks(dest)
}

func TestInstallNotTwiceAtOnce(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	s.installs(dest)
	root, err := os.OpenRoot(dest)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	unlock, err := lock(root, dest)
	if err != nil {
		t.Fatal(err)
	}
	s.refuses("another install to "+dest+" is under way", dest)
	unlock()
	s.installs(dest)
}

// TestInstallOverChanges: an edited file is neither lost nor taken for whole.
func TestInstallOverChanges(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	s.installs(dest)
	was := s.read("new/config/zombies.json")
	s.write("new/config/zombies.json", strings.Replace(was, "60s", "90s", 1))
	s.refuses("config/zombies.json has been changed since it was installed", dest)
	s.refuses("config/zombies.json is not what was installed", dest, "--check")
	s.write("new/config/zombies.json", was)
	s.checks(dest)
	if err := os.Remove(dest + "/bin/zombies"); err != nil {
		t.Fatal(err)
	}
	s.refuses("bin/zombies is gone", dest, "--check")
	s.installs(dest)
	s.checks(dest)
	for _, list := range []string{"", "bin/zombies\n", listHead + "v1\n" + listKept + "\n", listHead + "v1" + listComplete + "\n",
		listHead + "v1" + listComplete + "\n" + strings.Repeat("0", 64) + "  ../zombies\n" + listKept + "\n"} {
		s.write("new/"+listFile, list)
		s.refuses("is not the list of an install", dest)
		s.refuses("is not the list of an install", dest, "--check")
	}
}

// TestInstallChoice: what is chosen is installed, with the arguments that were set.
func TestInstallChoice(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	out := s.installs(dest, "--enable=ZombieProcesses,pleg,journal-count", "--enable", "task-limit", "--disable", "journal-count-pleg",
		"--host-root=/host", "--mounted-at=/opt/npd-plugins/", "--set=zombies.count=200", "--set=TasksNearLimit.host-root=/other",
		"--set=journal-count.pattern=a.*", "--set=journal-count.pattern=b=c.*", "--set=pleg.timeout=9s")
	s.has(out, "--config.custom-plugin-monitor=/opt/npd-plugins/config/journal-count-cni-teardown.json,")
	s.has(out, "--config.system-log-monitor=/opt/npd-plugins/journal-rules/containerd.json,")
	s.checks(dest, "--mounted-at=/opt/npd-plugins")
	s.refuses("which is none of the checks in "+dest+"/bin", dest, "--check")
	if isFile(filepath.Join(dest, "bin/cri-gc")) {
		t.Error("bin/cri-gc is installed")
	}
	s.has(out, "disabled, their files have no rules: clock cri-gc cri-latency ")
	for _, name := range []string{"cri-gc", "journal-count-pleg"} { // a node-problem-detector that still names the file starts
		config, err := npd.LoadCustom(filepath.Join(dest, "config", name+".json"))
		if err != nil || len(config.Rules)+len(config.Conditions) > 0 || config.Source == "" {
			t.Errorf("%s: %+v, %v", name, config, err)
		}
		if strings.Contains(out, "/config/"+name+".json") {
			t.Errorf("%s is named: %s", name, out)
		}
	}
	for name, want := range map[string]string{
		"zombies":    "--timeout=8s --host-root=/host --count=200",
		"task-limit": "--timeout=8s --host-root=/other",
		"pleg":       "--host-root=/host --timeout=9s",
	} {
		config, err := npd.LoadCustom(filepath.Join(dest, "config", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		rule := config.Rules[0]
		if got := strings.Join(rule.Args, " "); got != want || rule.Path != "/opt/npd-plugins/bin/"+name {
			t.Errorf("%s: %s %s, want %s", name, rule.Path, got, want)
		}
	}
	s.has(s.read("new/config/journal-count-cni-teardown.json"), `"--pattern=a.*",
        "--pattern=b=c.*"
      ]`)
}

// TestInstallRealChecks: the checks themselves judge their flags, and say which ones a running node-problem-detector gives them in vain.
func TestInstallRealChecks(t *testing.T) {
	s := release(t)
	s.build("zombies", "task-limit")
	dest := filepath.Join(s.dir, "new")
	s.refuses("config/zombies.json: bin/zombies --timeout=8s --counts=5 --version: zombies: flag provided but not defined: -counts", dest, "--set=zombies.counts=5")
	s.refuses(`invalid value "none" for flag -count: want a whole number`, dest, "--set=zombies.count=none")
	s.refuses(`invalid value "101" for flag -percent`, dest, "--set=task-limit.percent=101")
	s.installs(dest, "--set=zombies.count=200", "--set=task-limit.percent=70")
	s.checks(dest)

	// A running node-problem-detector that gives zombies an argument that this version does not have.
	s.write("bin/zombies", stub)
	s.write("config/zombies.json", strings.Replace(s.read("config/zombies.json"), `"--timeout=8s"`, `"--gone=1"`, 1))
	older := filepath.Join(s.dir, "older")
	s.installs(older)
	s.write("config/zombies.json", strings.Replace(s.read("config/zombies.json"), `"--gone=1"`, `"--timeout=8s"`, 1))
	s.build("zombies")
	code, _, errs := s.install(older)
	if code != exitFine {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "warning: a running node-problem-detector gets Unknown from ZombieProcesses until it is restarted: bin/zombies --gone=1 --version: zombies: flag provided but not defined: -gone")
}

// TestInstallStaysInside: links below the directory do not lead the install out of it.
func TestInstallStaysInside(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	s.installs(dest)
	outside := t.TempDir()
	if err := os.RemoveAll(dest + "/bin"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, dest+"/bin"); err != nil {
		t.Fatal(err)
	}
	s.refuses("escapes", dest)
	if files := tree(t, outside); len(files) > 0 {
		t.Errorf("wrote %q outside", files)
	}
}

// build makes real checks of stubs.
func (s site) build(checks ...string) {
	s.Helper()
	for _, check := range checks {
		binary := filepath.Join(s.dir, "bin", check)
		if err := os.Remove(binary); err != nil {
			s.Fatal(err)
		}
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "npd-plugins/plugins/"+check)
		if out, err := build.CombinedOutput(); err != nil {
			s.Fatalf("%v\n%s", err, out)
		}
	}
}

func (s site) read(name string) string {
	s.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.Fatal(err)
	}
	return string(data)
}
