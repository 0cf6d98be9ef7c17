package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npd-plugins/internal/npd"
)

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
		s.write("bin/"+strings.TrimSuffix(filepath.Base(config), ".json"), "#!/bin/sh\n")
	}
	return s
}

func (s site) install(dest string, args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"install", "--dest", dest, "--bin", filepath.Join(s.dir, "bin")}, args...)
	code = npdctl(args, &out, &errs)
	return code, out.String(), errs.String()
}

// installs is install that must succeed.
func (s site) installs(dest string, args ...string) {
	s.Helper()
	if code, out, errs := s.install(dest, args...); code != exitFine || errs != "" {
		s.Fatalf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

// refuses is install that must fail, and leave what is there.
func (s site) refuses(want, dest string, args ...string) {
	s.Helper()
	before := tree(s.T, dest)
	code, _, errs := s.install(dest, args...)
	if code != exitBroken {
		s.Errorf("exit %d", code)
	}
	s.has(errs, want)
	if after := tree(s.T, dest); strings.Join(after, " ") != strings.Join(before, " ") {
		s.Errorf("left %q where %q was", after, before)
	}
}

// tree lists all files below a directory, which may be absent.
func tree(t *testing.T, dir string) (files []string) {
	t.Helper()
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
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

func TestInstallAgain(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	if err := os.MkdirAll(dest+"/lost+found", 0o700); err != nil { // a volume
		t.Fatal(err)
	}
	s.installs(dest, "--kubelet-identifier", "k3s", "--kubelet-identifier", "kubelet")
	s.write("new/config/own.json", "{}")

	running := s.write("bin/zombies", "#!/bin/sh\nexit 1\n") // a new version
	s.installs(dest)
	got, err := os.ReadFile(dest + "/bin/zombies")
	if want, _ := os.ReadFile(running); err != nil || !bytes.Equal(got, want) {
		t.Errorf("zombies is %q, %v", got, err)
	}
	if _, err := os.Stat(dest + "/journal-rules/kubelet-kubelet.json"); err == nil {
		t.Error("a file of the earlier install is left")
	}
	if identifier := s.watched(dest + "/journal-rules/kubelet.json").PluginConfig["source"]; identifier != "kubelet" {
		t.Errorf("identifier %s", identifier)
	}
	if _, err := os.Stat(dest + "/config/own.json"); err != nil {
		t.Errorf("a file of somebody else: %v", err)
	}
	list, err := os.ReadFile(filepath.Join(dest, installedList))
	if err != nil || strings.Contains(string(list), "own.json") || !strings.Contains(string(list), "bin/zombies\n") {
		t.Errorf("%v, list:\n%s", err, list)
	}
}

func TestInstallKubeletIdentifier(t *testing.T) {
	s := release(t)
	dest := filepath.Join(s.dir, "new")
	s.installs(dest, "--kubelet-identifier", "k3s", "--kubelet-identifier=microk8s.daemon-kubelite")
	was := s.watched(filepath.Join(s.dir, "journal-rules/kubelet.json"))
	for name, want := range map[string]struct{ identifier, source string }{
		"kubelet.json":                          {"k3s", "kubelet-log-rules"},
		"kubelet-microk8s.daemon-kubelite.json": {"microk8s.daemon-kubelite", "kubelet-microk8s.daemon-kubelite-log-rules"},
	} {
		now := s.watched(filepath.Join(dest, "journal-rules", name))
		if now.PluginConfig["source"] != want.identifier || now.Source != want.source || len(now.Rules) != len(was.Rules) {
			t.Errorf("%s: identifier %s, source %s, %d rules", name, now.PluginConfig["source"], now.Source, len(now.Rules))
		}
		for _, style := range []string{"traditional", "rfc3339"} {
			inFile := s.watched(filepath.Join(dest, "journal-rules/filelog", style, name))
			escaped := strings.ReplaceAll(want.identifier, ".", `\.`)
			s.has(inFile.PluginConfig["message"], ` `+escaped+`(?:\[\d+\])?: `)
			if inFile.Source != want.source {
				t.Errorf("%s, %s: source %s", style, name, inFile.Source)
			}
		}
	}
	if identifier := s.watched(dest + "/journal-rules/containerd.json").PluginConfig["source"]; identifier != "containerd" {
		t.Errorf("containerd.json watches %s", identifier)
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

	dest := filepath.Join(s.dir, "new")
	for _, test := range []struct{ want, identifier string }{
		{"not a syslog identifier", "../kubelet"},
		{"not a syslog identifier", ""},
		{"containerd.json has rules for that", "containerd"},
	} {
		s.refuses(test.want, dest, "--kubelet-identifier", test.identifier)
	}
	s.refuses("given twice", dest, "--kubelet-identifier", "k3s", "--kubelet-identifier", "k3s")
	s.refuses("no other argument", dest, "k3s")

	s.installs(dest)
	s.write("config/other.json", strings.ReplaceAll(s.read("config/zombies.json"), "bin/zombies", "bin/other"))
	s.refuses("other.json needs other", dest)
	s.write("bin/other", "#!/bin/sh\n")
	s.write("new/bin/other", "somebody else's")
	s.refuses("bin/other is there, and not from an install", dest)
	s.write("config/other.json", "{")
	s.refuses("other.json", dest)
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

func (s site) read(name string) string {
	s.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.Fatal(err)
	}
	return string(data)
}
