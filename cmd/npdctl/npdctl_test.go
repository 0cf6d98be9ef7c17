package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"npd-plugins/internal/journalfile/journaltest"
)

// site is a directory with configurations, checks and journal rules, and an empty PATH but for sh and the tools it needs.
type site struct {
	*testing.T
	dir string
}

func newSite(t *testing.T) site {
	s := site{t, t.TempDir()}
	for _, dir := range []string{"config", "bin", "rules", "path", "journal"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s site) write(name, content string) string {
	s.Helper()
	path := filepath.Join(s.dir, name)
	mode := os.FileMode(0o644)
	if strings.HasPrefix(content, "#!") {
		mode = 0o755
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		s.Fatal(err)
	}
	return path
}

// check adds a check and its configuration with a condition of the same name.
func (s site) check(name, body string) {
	s.Helper()
	s.write("bin/"+name, "#!/bin/sh\n"+body+"\n")
	s.write("config/"+name+".json", fmt.Sprintf(`{"plugin": "custom", "source": "%[1]s",
		"pluginConfig": {"invoke_interval": "30s", "timeout": "5s", "max_output_length": 60, "skip_initial_status": true},
		"conditions": [{"type": "%[1]s", "reason": "%[1]sIsFine", "message": "all is well"}],
		"rules": [{"type": "permanent", "condition": "%[1]s", "reason": "%[1]sIsBad", "path": "/opt/npd-plugins/bin/%[1]s", "args": ["--own"]}]}`, name))
}

func (s site) run(args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"run", "--config", filepath.Join(s.dir, "config"), "--bin", filepath.Join(s.dir, "bin"), "--state-dir", filepath.Join(s.dir, "state")}, args...)
	code = npdctl(args, &out, &errs)
	return code, out.String(), errs.String()
}

func (s site) has(text string, parts ...string) {
	s.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			s.Errorf("no %q in:\n%s", part, text)
		}
	}
}

func TestRunTable(t *testing.T) {
	s := newSite(t)
	s.check("Good", "echo nothing to see")
	code, out, errs := s.run()
	if code != 0 || errs != "" {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	s.has(out, "Conditions:", "Type", "Status", "Reason", "Message", "Seconds", "Good", "False", "GoodIsFine", "all is well [check: nothing to see]")

	s.check("Lost", "echo no socket; exit 2")
	code, out, _ = s.run()
	if code != 2 {
		t.Errorf("exit %d with one Unknown", code)
	}
	s.has(out, "Lost  Unknown", "LostIsFine", "no socket")

	s.check("Bad", `printf '5%% \033[31mred\nend'; echo the culprit >&2; exit 1`)
	code, out, errs = s.run()
	if code != 1 {
		t.Errorf("exit %d with one True and one Unknown", code)
	}
	s.has(out, "True", "BadIsBad", "5% ?[31mred end")
	s.has(errs, "Bad: the culprit")
}

func TestRunJSON(t *testing.T) {
	s := newSite(t)
	s.check("Bad", `echo "is <bad>"; exit 1`)
	s.check("Good", "echo fine")
	code, out, _ := s.run("-o", "json")
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	var got row
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	got.Seconds = 0
	if want := (row{Type: "Bad", Status: "True", Reason: "BadIsBad", Message: "is <bad>", Check: "is <bad>"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	s.has(lines[1], `"type":"Good","status":"False","reason":"GoodIsFine","message":"all is well"`, `"seconds":`)
}

func TestRunArguments(t *testing.T) {
	s := newSite(t)
	s.check("Args", `echo "$@"; exit 1`)
	_, out, _ := s.run("--", "--host-root", "/h")
	s.has(out, "--own --state-dir "+s.dir[:10])
	_, out, _ = s.run("-o", "json", "--state-dir", "/s", "--", "--host-root", "/h")
	s.has(out, `"--own --state-dir /s --host-root /h"`)
}

// A plugin that is not ours runs where it is and gets no flags it does not know.
func TestRunForeignPlugin(t *testing.T) {
	s := newSite(t)
	path := s.write("path/foreign", "#!/bin/sh\necho \"args: $*\"; exit 1\n")
	s.write("config/foreign.json", fmt.Sprintf(`{"plugin": "custom", "rules": [{"type": "temporary", "reason": "Foreign", "path": %q, "args": ["a"]}]}`, path))
	code, out, _ := s.run("--", "--host-root", "/h")
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "Events of temporary rules:", "Warning  Foreign", "args: a\n")
}

func TestRunBroken(t *testing.T) {
	s := newSite(t)
	s.check("Good", "echo fine")
	s.write("config/broken.json", `{"plugin": "custom", "pluginConfig": {"timeout": "5"}}`)
	s.write("config/never.json", `{"plugin": "custom", "pluginConfig": {"concurrency": 0}}`)
	code, out, errs := s.run()
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "Good")
	s.has(errs, "broken.json", "never.json", "NPD does not come up")
}

func TestRunMissingCheck(t *testing.T) {
	s := newSite(t)
	s.check("Gone", "")
	if err := os.Remove(filepath.Join(s.dir, "bin/Gone")); err != nil {
		t.Fatal(err)
	}
	code, out, _ := s.run()
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "Unknown", "cannot be started")
}

func TestRunUsage(t *testing.T) {
	for _, args := range [][]string{
		{"run", "--no-such-flag"}, {"run", "-o", "yaml"}, {"run", "word"}, {"run", "--config", "/does/not/exist"}, {"run", "--config", t.TempDir()},
		{"lint"}, {"lint", "-o", "xml", "."}, {"lint", "--severity", "bad", "."}, {"lint", "--suppressions", "/does/not/exist", "../../config"}, {"lint", "/does/not/exist"}, {"lint", t.TempDir()}, {"lint", "--no-such-flag"}, {"juggle"}, {},
		{"replay"}, {"replay", "a", "b"}, {"replay", "-o", "yaml", "-"}, {"replay", "--rules", "/does/not/exist", "-"}, {"replay", "--rules", t.TempDir(), "-"},
	} {
		var out, errs bytes.Buffer
		if code := npdctl(args, &out, &errs); code != 2 || out.Len() > 0 || errs.Len() == 0 {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, code, &out, &errs)
		}
		if said := errs.String(); len(args) > 0 && strings.Count(said, "\n") > 2 {
			t.Errorf("%q: more than an error and a hint:\n%s", args, said)
		}
	}
	var errs bytes.Buffer
	npdctl([]string{"run", "--no-such-flag"}, &errs, &errs)
	if want := "npdctl run: flag provided but not defined: -no-such-flag\n\"npdctl run --help\" lists the flags.\n"; errs.String() != want {
		t.Errorf("%q, want %q", &errs, want)
	}
	for _, args := range [][]string{{"help"}, {"--help"}, {"run", "--help"}, {"lint", "-h"}, {"version"}, {"lint", "--traps"}, {"replay", "--help"}} {
		var out, errs bytes.Buffer
		if code := npdctl(args, &out, &errs); code != 0 || out.Len() == 0 || errs.Len() > 0 {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, code, &out, &errs)
		}
	}
}

// --watch prints when a condition changes, and ends with the state it saw last.
func TestRunWatch(t *testing.T) {
	s := newSite(t)
	flag := filepath.Join(s.dir, "flag")
	s.check("Flips", fmt.Sprintf("test -e %s && { echo is there; exit 1; }; echo not there", flag))
	config, err := os.ReadFile(filepath.Join(s.dir, "config/Flips.json"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("config/Flips.json", strings.Replace(string(config), `"30s"`, `"100ms"`, 1))
	time.AfterFunc(400*time.Millisecond, func() { _ = os.WriteFile(flag, nil, 0o644) })
	time.AfterFunc(1500*time.Millisecond, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM) })
	code, out, _ := s.run("--watch", "-o", "json")
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	s.has(lines[0], `"status":"False"`)
	s.has(lines[1], `"status":"True"`, "is there")
}

// entry is an entry of the journal as journalctl -o export prints it.
func entry(at time.Time, fields string) string {
	return fmt.Sprintf("__CURSOR=s=1\n__REALTIME_TIMESTAMP=%d\n%s\n\n", at.UnixMicro(), fields)
}

// binaryField is a field with control characters, as it stands in an entry.
func binaryField(name, text string) string {
	return name + "\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(text)))) + text
}

func (s site) journalRules(extra string) {
	s.write("rules/kubelet.json", fmt.Sprintf(`{"plugin": "journald", "pluginConfig": {"source": "kubelet"}, "logPath": %q, "source": "kubelet-rules",
		"rules": [{"type": "temporary", "reason": "KubeletSighs", "pattern": "it sighs.*"}%s]}`, filepath.Join(s.dir, "journal"), extra))
}

// entryAt is an entry of an identifier.
func entryAt(at time.Time, identifier string, texts ...string) journaltest.Entry {
	return journaltest.Entry{Realtime: uint64(at.UnixMicro()), Fields: journaltest.Texts(append(texts, "SYSLOG_IDENTIFIER="+identifier)...)}
}

func TestRunJournal(t *testing.T) {
	s := newSite(t)
	s.check("Good", "echo fine")
	s.journalRules("")
	now := time.Now().Add(-time.Minute)
	journaltest.File{Entries: []journaltest.Entry{
		entryAt(now.Add(-2*time.Hour), "kubelet", "MESSAGE=it sighs long ago"),
		entryAt(now, "kubelet", "MESSAGE=it sighs once"),
		entryAt(now, "kubelet", "MESSAGE=x"+strings.Repeat("y", 2<<20)+"it sighs"),
		entryAt(now, "kubelet", "MESSAGE=\x1b[1mit sighs"),
		entryAt(now, "kubelet", "PRIORITY=6"),
		entryAt(now, "sshd", "MESSAGE=it sighs elsewhere"),
		entryAt(now.Add(time.Second), "kubelet", "MESSAGE=quiet", "MESSAGE= it sighs 50% louder "),
	}}.Write(t, filepath.Join(s.dir, "journal/system.journal"))
	code, out, errs := s.run("--rules", filepath.Join(s.dir, "rules"))
	if code != 0 {
		t.Errorf("exit %d, %s", code, errs)
	}
	s.has(out, now.Add(time.Second).Format(time.TimeOnly), "3      KubeletSighs", "it sighs 50%!l(MISSING)ouder", "lines read: kubelet 5")

	s.write("journal/broken.journal", "broken")
	_, out, _ = s.run("--rules", filepath.Join(s.dir, "rules"))
	s.has(out, "3      KubeletSighs", "not read: kubelet.json: 1 of 2 files are not whole: ", "broken.journal: too short")
}

func TestRunJournalUnreadable(t *testing.T) {
	s := newSite(t)
	s.check("Good", "echo fine")
	s.journalRules("")
	s.write("rules/kernel.json", `{"plugin": "filelog", "source": "k", "logPath": "/does/not/exist.log", "rules": []}`)
	s.write("rules/far.json", `{"plugin": "journald", "pluginConfig": {"source": "x"}, "logPath": "/does/not/exist"}`)
	s.write("rules/none.json", `{"plugin": "journald"}`)
	code, out, _ := s.run("--rules", filepath.Join(s.dir, "rules"))
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "  none\n", "not read: kernel.json: open /does/not/exist.log: no such file or directory: node-problem-detector would not start this monitor", "far.json: no directory /does/not/exist", "none.json: no source", "kubelet.json: no *.journal in "+s.dir)

	s.journalRules(`, {"type": "temporary", "reason": "R", "pattern": "("}`)
	code, _, errs := s.run("--rules", filepath.Join(s.dir, "rules"))
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "kubelet.json", "missing closing )")
}

// Where the kernel's lines are looked for: whatever of the two places there is.
func TestHostJournals(t *testing.T) {
	for _, dir := range hostJournals() {
		if !isDir(dir) || !strings.HasSuffix(filepath.Dir(dir)+"/", "/log/journal/") && dir != "/run/log/journal" {
			t.Errorf("%s", dir)
		}
	}
}

func TestLintFiles(t *testing.T) {
	s := newSite(t)
	s.check("Good", "echo fine")
	if err := os.MkdirAll(filepath.Join(s.dir, "config/testdata"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("config/testdata/broken.json", "{")
	s.write("config/notes.txt", "{")
	var out, errs bytes.Buffer
	if code := npdctl([]string{"lint", filepath.Join(s.dir, "config")}, &out, &errs); code != 0 || out.Len() > 0 || errs.Len() > 0 {
		t.Errorf("exit %d, %s%s", code, &out, &errs)
	}
	broken := filepath.Join(s.dir, "config/testdata/broken.json")
	if code := npdctl([]string{"lint", "--root", s.dir, filepath.Join(s.dir, "config/Good.json"), broken}, &out, &errs); code != 1 || errs.Len() > 0 {
		t.Errorf("exit %d, %s", code, &errs)
	}
	s.has(out.String(), broken+":1:1: fatal: ", "[json]", "Good.json:4:", "[path-missing]")
}

func (s site) lint(args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	code = npdctl(append([]string{"lint"}, args...), &out, &errs)
	return code, strings.ReplaceAll(out.String(), s.dir, "DIR"), errs.String()
}

const lintedRule = `{"plugin": "kmsg", "source": "k", "rules": [{"type": "temporary", "reason": "R", "pattern": "it ends."}, {"type": "temporary", "reason": "R", "pattern": "it .*"}]}`

func TestLintYAML(t *testing.T) {
	s := newSite(t)
	manifest := s.write("config/map.yaml", "kind: ConfigMap\ndata:\n  kernel.json: |\n    "+lintedRule+"\n")
	code, out, errs := s.lint(filepath.Join(s.dir, "config"))
	if code != 1 || errs != "" {
		t.Errorf("exit %d, %s", code, errs)
	}
	s.has(out, "DIR/config/map.yaml:4:142: warning: R, also in DIR/config/map.yaml:4")
	stdin := os.Stdin
	defer func() { os.Stdin = stdin }()
	for _, data := range []string{"data:\n  kernel.json: |\n    " + lintedRule, lintedRule, `{"apiVersion": "v1", "kind": "ConfigMap", "data": {"kernel.json": "` + strings.ReplaceAll(lintedRule, `"`, `\"`) + `"}}`} {
		in, err := os.Open(s.write("stdin", data))
		if err != nil {
			t.Fatal(err)
		}
		os.Stdin = in
		code, out, _ := s.lint("-")
		in.Close()
		if code != 1 {
			t.Errorf("exit %d", code)
		}
		s.has(out, "stdin:", "[reason-twice]")
	}
	for name, content := range map[string]string{"other.yaml": "a: 1\n", "template.yaml": "a: {{ .x }}\n- b"} {
		if code, out, errs := s.lint(manifest, s.write(name, content)); code != 2 || out != "" || !strings.Contains(errs, name) {
			t.Errorf("%s: exit %d, %s%s", name, code, out, errs)
		}
	}
}

func TestLintSeverityAndSuppressions(t *testing.T) {
	s := newSite(t)
	rules := s.write("rules/kernel.json", lintedRule)
	for severity, want := range map[string]int{"note": 2, "warning": 1, "error": 0, "fatal": 0} {
		if code, out, _ := s.lint("--severity", severity, rules); strings.Count(out, "\n") != want || (code == 1) != (want > 0) {
			t.Errorf("%s: exit %d, %s", severity, code, out)
		}
	}
	known := s.write("known", "# looked at\nkernel.json reason-twice R, also # one for both\n*.json pattern-end it ends # it does\n")
	if code, out, errs := s.lint("--severity", "note", "--suppressions", known, rules); code != 0 || out != "" || errs != "" {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	if code, out, _ := s.lint("--suppressions", known, s.write("rules/fine.json", strings.Replace(lintedRule, `"R"`, `"Q"`, 1))); code != 1 || strings.Count(out, "suppression-unused") != 1 {
		t.Errorf("exit %d, %s", code, out)
	}
	for _, broken := range []string{"kernel.json reason-twice\n", "kernel.json # why\n", "kernel.json no-such-trap # why\n", "[ reason-twice # why\n"} {
		if code, _, errs := s.lint("--suppressions", s.write("known", broken), rules); code != 2 || !strings.Contains(errs, "line 1") {
			t.Errorf("%s: exit %d, %s", broken, code, errs)
		}
	}
}

func TestLintJSON(t *testing.T) {
	s := newSite(t)
	code, out, _ := s.lint("-o", "json", s.write("rules/kernel.json", lintedRule))
	var got struct{ Findings []jsonFinding }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	want := jsonFinding{"DIR/rules/kernel.json", 1, 138, "warning", "reason-twice", "R, also in DIR/rules/kernel.json:1",
		"problem_counter and problem_gauge cannot tell the two apart", "a reason for each"}
	if code != 1 || len(got.Findings) != 1 || got.Findings[0] != want {
		t.Errorf("exit %d, got %+v, want %+v", code, got.Findings, want)
	}
	if code, out, _ := s.lint("-o", "json", "../../config"); code != 0 || out != "{\n  \"findings\": []\n}\n" {
		t.Errorf("exit %d, %q", code, out)
	}
}

func TestUserStateDir(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	dir, cleanUp, err := ownStateDir()
	if err != nil || dir != filepath.Join(cache, "npd-plugins") {
		t.Fatalf("%s, %v", dir, err)
	}
	cleanUp()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	if dir, cleanUp, err = ownStateDir(); err != nil {
		t.Fatal(err)
	}
	cleanUp()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}
