package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/npd"
	"npd-plugins/internal/npd/lint"
	"npd-plugins/test/lab"
)

// hostOf is a tree with what tells a distribution.
func hostOf(t *testing.T, paths ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestInstallDetects: the host decides, and it is said.
func TestInstallDetects(t *testing.T) {
	s := release(t)
	for _, test := range []struct {
		paths []string
		want  string
	}{
		{[]string{"var/lib/rancher/rke2"}, "distribution: rke2 (found HOST/var/lib/rancher/rke2; --distribution sets it)\n"},
		{[]string{"run/crio/crio.sock"}, "distribution: crio (found HOST/run/crio/crio.sock; "},
		{nil, "distribution: generic (no trace of a distribution or runtime below HOST; "},
		{[]string{"var/lib/k0s", "opt/deckhouse"}, "distribution: generic (several are here: HOST/var/lib/k0s, HOST/opt/deckhouse; "},
	} {
		root := hostOf(t, test.paths...)
		target, err := targetFor("", root)
		if got := "distribution: " + target.String() + "\n"; err != nil || !strings.HasPrefix(got, strings.ReplaceAll(test.want, "HOST", root)) {
			t.Errorf("%q, %v", got, err)
		}
	}
	root := hostOf(t, "var/lib/rancher/k3s")
	dest := filepath.Join(s.dir, "new")
	s.has(s.installs(dest, "--host-root", root, "--distribution", ""), "distribution: k3s (found "+root+"/var/lib/rancher/k3s; --distribution sets it)\n")
	s.has(s.installs(dest, "--host-root", root, "--distribution", "microk8s"), "distribution: microk8s\n")
	if target, _ := targetFor("", "/does/not/exist"); strings.Contains(target.why, "/does/not/exist") {
		t.Errorf("looked below a root that is node-problem-detector's alone: %s", target)
	}
}

// watch is what a rule file watches.
type watch struct{ plugin, identifier, file string }

// TestInstallDistribution: what NPD is told to load for each distribution, and what it watches.
func TestInstallDistribution(t *testing.T) {
	journal := func(identifier string) watch { return watch{"journald", identifier, ""} }
	file := func(path string) watch { return watch{"filelog", "", "/host" + path} }
	for name, want := range map[string]map[string]watch{
		"kubeadm":   {"kubelet": journal("kubelet"), "containerd": journal("containerd")},
		"crio":      {"kubelet": journal("kubelet"), "crio": journal("crio")},
		"docker":    {"kubelet": journal("kubelet"), "docker": journal("dockerd"), "docker-cri-dockerd": journal("cri-dockerd"), "containerd": journal("containerd")},
		"openshift": {"kubelet": journal("kubenswrapper"), "crio": journal("crio")},
		"k3s":       {"kubelet": journal("k3s"), "containerd": file("/var/lib/rancher/k3s/agent/containerd/containerd.log")},
		"rke2": {"kubelet": file("/var/lib/rancher/rke2/agent/logs/kubelet.log"), "kubelet-rke2": journal("rke2"),
			"containerd": file("/var/lib/rancher/rke2/agent/containerd/containerd.log")},
		"k0s":       {"kubelet": journal("k0s"), "containerd": journal("k0s")},
		"microk8s":  {"kubelet": journal("microk8s.daemon-kubelite"), "containerd": journal("microk8s.daemon-containerd")},
		"deckhouse": {"kubelet": journal("d8-kubelet-forker"), "containerd": journal("containerd")},
		"generic": {"kubelet": journal("kubelet"), "containerd": journal("containerd"), "crio": journal("crio"),
			"docker": journal("dockerd")},
	} {
		t.Run(name, func(t *testing.T) {
			s := release(t)
			s.T = t
			dest := filepath.Join(s.dir, "new")
			out := s.installs(dest, "--distribution", name, "--host-root", "/host")
			got := map[string]watch{}
			_, list, _ := strings.Cut(out, "--config.system-log-monitor=")
			for _, path := range strings.Split(strings.TrimSpace(list), ",") {
				m, err := npd.LoadLogMonitor(path)
				if err != nil {
					t.Fatal(err)
				}
				if id := m.Identifier(); id == "kernel" || id == "systemd" {
					continue
				}
				w := watch{plugin: m.Config.Plugin, identifier: m.Identifier()}
				if w.plugin == "filelog" {
					w.file = m.Config.LogPath
				}
				got[strings.TrimSuffix(filepath.Base(path), ".json")] = w
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			s.checks(dest)
			for _, shipped := range []string{"kubelet", "containerd", "crio", "docker", "kernel", "systemd"} { // whatever a list of files names is there
				for _, dir := range []string{"journal-rules", "journal-rules/filelog/traditional", "journal-rules/filelog/rfc3339"} {
					if !isFile(path.Join(dest, dir, shipped+".json")) {
						t.Errorf("no %s/%s.json", dir, shipped)
					}
				}
			}
			s.lintsAsShipped(dest)
		})
	}
}

// lintsAsShipped: what is made of the files has no trap that they have not.
func (s site) lintsAsShipped(dest string) {
	s.Helper()
	sources := func(dir string) (all []lint.Source) {
		for _, path := range must(filepath.Glob(dir + "/journal-rules/*.json")) {
			all = append(all, lint.Source{Path: path, Data: must(os.ReadFile(path))})
		}
		return all
	}
	for _, finding := range lint.Lint(sources(dest), "") {
		// The end of a line that k0s wraps is what tells who wrote it, and rke2 itself says what its kubelet says.
		if finding.Trap.ID != "pattern-end" && finding.Trap.ID != "reason-twice" {
			s.Error(finding)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestInstallIdentifiers: the checks that count lines look at those of the distribution, and at what belongs to none.
func TestInstallIdentifiers(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	for name, want := range map[string][2]string{
		"k0s":      {"k0s", "k0s,systemd"},
		"rke2":     {"rke2", "rke2,systemd"},
		"docker":   {"kubelet", "kubelet,containerd,dockerd,cri-dockerd,systemd"},
		"microk8s": {"microk8s.daemon-kubelite", "microk8s.daemon-kubelite,microk8s.daemon-containerd,systemd"},
	} {
		s.installs(dest, "--distribution", name, "--enable", "journal-count-pleg,journal-count-task-fork")
		for i, file := range []string{"pleg", "task-fork"} {
			config := must(npd.LoadCustom(dest + "/config/journal-count-" + file + ".json"))
			if got := argument(config.Rules[0].Args, "identifier"); got != want[i] {
				t.Errorf("%s, %s: %s, want %s", name, file, got, want[i])
			}
		}
	}
	const kubeletLog, containerdLog = "--file=/var/lib/rancher/rke2/agent/logs/kubelet.log", "--file=/var/lib/rancher/rke2/agent/containerd/containerd.log"
	s.installs(dest, "--distribution", "rke2", "--enable", "journal-count-pleg,journal-count-task-fork")
	for file, want := range map[string][]string{"pleg": {kubeletLog}, "task-fork": {kubeletLog, containerdLog}} {
		args := must(npd.LoadCustom(dest + "/config/journal-count-" + file + ".json")).Rules[0].Args
		got := slices.DeleteFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "--file=") })
		if !slices.Equal(got, want) {
			t.Errorf("%s: files %q, want %q", file, got, want)
		}
	}
	s.installs(dest, "--distribution", "k0s", "--enable", "journal-count-pleg", "--set", "journal-count-pleg.identifier=own")
	if got := argument(must(npd.LoadCustom(dest + "/config/journal-count-pleg.json")).Rules[0].Args, "identifier"); got != "own" {
		t.Errorf("--set gave %s", got)
	}
}

func argument(args []string, flag string) string {
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--"+flag+"="); ok {
			return value
		}
	}
	return ""
}

// TestDistributedFlags asks the checks themselves which of these flags they have, and whether they take the values.
func TestDistributedFlags(t *testing.T) {
	dir, remove, err := lab.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	helpOf := map[string]string{}
	for _, config := range must(readConfigurations("../../config")) {
		check := path.Base(config.config.Rules[0].Path)
		helpOf[check] = string(must(exec.Command(filepath.Join(dir, check), "--help").Output()))
	}
	for _, one := range distributed {
		flag := regexp.MustCompile(`(?m)^ +--` + one.flag + ` `)
		for check, help := range helpOf {
			if one.flag == "units" && check == "systemd-units" {
				continue // there it is a number
			}
			if has := flag.MatchString(help); has != slices.Contains(one.checks, check) {
				t.Errorf("%s has --%s: %v; the table says %v", check, one.flag, has, !has)
			}
		}
		for i := range distribution.All {
			value := one.value(&distribution.All[i])
			if value == "" {
				continue
			}
			for _, check := range one.checks {
				result := npd.RunPlugin(context.Background(), filepath.Join(dir, check), []string{"--" + one.flag + "=" + value, "--version"}, time.Minute, npd.MaxPluginOutput)
				if result.Status != npd.OK {
					t.Errorf("%s --%s=%s: %s", check, one.flag, value, result.Message)
				}
			}
		}
	}
}

func ruleSamples(rules string) []npd.Sample {
	return must(npd.ParseSamples(must(os.ReadFile("../../journal-rules/testdata/" + rules + ".txt"))))
}

// asLogged is a line as a component of a distribution logs it.
func asLogged(log distribution.Log, text string) string {
	switch {
	case log.Wrapped:
		return wrapLine(text, string(log.Component))
	case log.File != "" && log.Component == distribution.Kubelet:
		return time.Now().Format("E0102 15:04:05.000000") + "    1814 kubelet.go:2126] " + text
	case log.File != "":
		return `time="` + time.Now().Format(time.RFC3339Nano) + `" level=error ` + text
	}
	return text
}

// TestInstalledRules puts the samples of the journal rules, as the components of each distribution log them, through what is
// installed for it.
func TestInstalledRules(t *testing.T) {
	s := release(t)
	for _, d := range distribution.All {
		dest := filepath.Join(s.dir, "for", d.Name)
		out := s.installs(dest, "--distribution", d.Name, "--enable=clock")
		_, list, _ := strings.Cut(out, "--config.system-log-monitor=")
		monitors := map[watch]*npd.LogMonitor{}
		for _, path := range strings.Split(strings.TrimSpace(list), ",") {
			m := must(npd.LoadLogMonitor(path))
			monitors[watch{filepath.Base(path), m.Identifier(), m.Config.LogPath}] = m
		}
		fired := 0
		for _, log := range d.Logs {
			rules := ruleFiles[log.Component]
			plain := must(npd.LoadLogMonitor("../../journal-rules/" + rules + ".json"))
			for _, sample := range ruleSamples(rules) {
				want := map[string]int{}
				for _, match := range plain.Match(sample.Text) {
					want[match.Rule.Reason]++
				}
				got := map[string]int{}
				for of, m := range monitors {
					message := asLogged(log, sample.Text)
					if log.File != "" && of.file == log.File {
						message, _, _ = m.Translate(message)
					} else if log.File != "" || of.identifier != log.Identifier {
						continue
					}
					for _, match := range m.Match(message) {
						got[match.Rule.Reason]++
						fired++
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s, %s: %v, want %v\n%s", d.Name, log.Component, got, want, sample.Text)
				}
			}
		}
		if fired < 50 {
			t.Errorf("%s: only %d fired", d.Name, fired)
		}
	}
}

// TestInstalledUnderNPD installs for a distribution, gives what is made to a real node-problem-detector, logs the samples as the
// distribution's components do, and compares its counters.
func TestInstalledUnderNPD(t *testing.T) {
	lab.NeedDetector(t)
	for _, name := range []string{"k3s", "rke2", "k0s", "microk8s", "deckhouse", "openshift"} {
		t.Run(name, func(t *testing.T) { installedUnderNPD(t, name) })
	}
}

func installedUnderNPD(t *testing.T, name string) {
	s := release(t)
	s.T = t
	root := hostOf(t, "var/log")
	journald := lab.StartJournald(t)
	dest := filepath.Join(s.dir, "new")
	machine := strings.TrimSpace(string(must(os.ReadFile("/etc/machine-id"))))
	out := s.installs(dest, "--distribution", name, "--host-root", root, "--journal", journald.Root+"/run/log/journal/"+machine)
	_, list, _ := strings.Cut(out, "--config.system-log-monitor=")
	files := slices.DeleteFunc(strings.Split(strings.TrimSpace(list), ","), func(path string) bool { return strings.Contains(filepath.Base(path), "kernel") })

	d := must(distribution.Get(name))
	for _, log := range d.Logs { // NPD starts no monitor without its file
		if log.File != "" {
			s.appendTo(root+log.File, "")
		}
	}
	detector := lab.StartDetector(t, "--config.system-log-monitor="+strings.Join(files, ","))
	lab.Eventually(t, 30*time.Second, "NPD serves metrics", func() bool { return detector.Metrics() != "" })

	want := map[string]int{}
	seen := map[distribution.Component]bool{}
	for _, log := range d.Logs {
		if seen[log.Component] { // rke2 itself
			continue
		}
		seen[log.Component] = true
		rules := ruleFiles[log.Component]
		monitor := must(npd.LoadLogMonitor("../../journal-rules/" + rules + ".json"))
		var lines []string
		for _, sample := range ruleSamples(rules) {
			lines = append(lines, asLogged(log, sample.Text))
			for _, match := range monitor.Match(sample.Text) {
				want[match.Rule.Reason]++
			}
		}
		if log.File != "" {
			s.appendTo(root+log.File, strings.Join(lines, "\n")+"\n")
		} else {
			journald.Log(t, log.Identifier, lines...)
		}
	}
	lab.Eventually(t, 60*time.Second, "NPD counts as the rules do", func() bool { return fmt.Sprint(detector.Counters()) == fmt.Sprint(want) })
	t.Logf("%s: %d reasons", name, len(want))
}

// appendTo adds to a file at any place.
func (s site) appendTo(path, text string) {
	s.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		s.Fatal(err)
	}
}

// wrapLine is a line as k0s logs what a component of it has written.
func wrapLine(line, component string) string {
	var b bytes.Buffer
	log := &logrus.Logger{Out: &b, Level: logrus.InfoLevel, Formatter: &logrus.TextFormatter{TimestampFormat: time.DateTime, FullTimestamp: true}}
	log.WithFields(logrus.Fields{"component": component, "stream": "stderr"}).Info(line)
	return strings.TrimSpace(b.String())
}
