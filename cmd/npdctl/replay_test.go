package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/journalfile/journaltest"
)

var update = flag.Bool("update", false, "write the golden files anew")

const replayRules = `{"plugin": "journald", "pluginConfig": {"source": "kubelet"}, "logPath": "/var/log/journal", "source": "kubelet-rules",
	"rules": [
		{"type": "temporary", "reason": "KubeletSighs", "pattern": "it sighs.*", "patternGeneratedMessageSuffix": "see README.md"},
		{"type": "temporary", "reason": "KubeletMoansTwice", "pattern": "it moans.*\nit moans.*"}], "bufferSize": 2}`

func replaySite(t *testing.T) site {
	s := newSite(t)
	zone := time.Local
	time.Local = time.FixedZone("local", 3600)
	t.Cleanup(func() { time.Local = zone })
	s.write("rules/kubelet.json", replayRules)
	s.write("rules/kernel.json", `{"plugin": "kmsg", "logPath": "/dev/kmsg", "source": "kernel-rules", "metricsReporting": false,
		"conditions": [{"type": "Hung", "reason": "NotHung", "message": "fine"}],
		"rules": [{"type": "permanent", "condition": "Hung", "reason": "KernelHangs", "pattern": "it hangs.*"}]}`)
	return s
}

func (s site) replay(args ...string) (code int, stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	code = npdctl(append([]string{"replay", "--rules", filepath.Join(s.dir, "rules")}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

var seconds = regexp.MustCompile(`in \d+\.\d s;|"seconds": [\d.]+`)

// golden compares an output with a file, but for the time it took and the directory.
func (s site) golden(name, output string) {
	s.Helper()
	got := strings.ReplaceAll(seconds.ReplaceAllString(output, "TIME"), s.dir, "DIR")
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			s.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		s.Errorf("%s: %s", name, diff)
	}
}

func TestReplayText(t *testing.T) {
	s := replaySite(t)
	s.write("messages", `2026-01-02T15:04:05+01:00 node kubelet[1]:  it sighs 50% louder `+"\x1b[31m"+`
2026-01-02T15:04:06+01:00 node kubelet[1]: it moans
2026-01-02T15:04:07+01:00 node kernel: [   12.345678] it hangs
2026-01-02T15:04:08+01:00 node kubelet[1]: it moans louder
2026-01-02T15:04:09+01:00 node sshd[1]: it sighs
2026-01-02T15:04:10+01:00 node kernel: [   13.345678] it hangs again
2026-01-02T15:04:11+01:00 node kubelet[1]: it sighs
2026-01-02T15:04:12+01:00 node kubelet[1]: E0102 15:04:12.123456    1234 kubelet.go:2419] "Skipping pod synchronization" err="PLEG is off for 3m4.5s of pod \"web-7d4b9c6f5-x2k9z\"" pod="a/b"
2026-01-02T15:04:13+01:00 node kubelet[1]: E0102 15:04:13.123456    1234 kubelet.go:2420] "Skipping pod synchronization" err="PLEG is off for 9m4.1s of pod \"db-0\"" pod="c/d"
2026-01-02T15:04:14+01:00 node sshd[99]: error: kex_exchange_identification: Connection closed by 192.0.2.7 port 4711
no prefix at all, but it failed
`)
	code, out, errs := s.replay("--unmatched", filepath.Join(s.dir, "messages"))
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "1 lines name no identifier")
	s.golden("replay-table.golden", out)
	code, out, _ = s.replay("--unmatched", "-o", "json", filepath.Join(s.dir, "messages"))
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	s.golden("replay-json.golden", out)
	packed, err := os.Create(filepath.Join(s.dir, "messages.1.gz"))
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := os.ReadFile(filepath.Join(s.dir, "messages"))
	w := gzip.NewWriter(packed)
	if _, err := w.Write(plain); err != nil || w.Close() != nil || packed.Close() != nil {
		t.Fatal(err)
	}
	_, unpacked, _ := s.replay("--unmatched", "-o", "json", packed.Name())
	s.golden("replay-json.golden", unpacked)
	_ = os.Truncate(packed.Name(), 200)
	if code, out, errs := s.replay(packed.Name()); code != 2 || !strings.Contains(errs, "unexpected EOF") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}

func TestReplayNothing(t *testing.T) {
	s := replaySite(t)
	code, out, errs := s.replay("--unmatched", s.write("quiet", "Jan  2 15:04:05 node kubelet[1]: it smiles\n"))
	if code != 0 || errs != "" {
		t.Errorf("exit %d, %s", code, errs)
	}
	s.has(out, "Rules that matched:\n  none\n", "match no rule:\n  none\n", "1 lines in ", "for kubelet.json 1\n")
}

// Where no rule was tried on any line, that is no success: the reason says what would help.
func TestReplayNothingTried(t *testing.T) {
	s := replaySite(t)
	journaltest.File{Entries: []journaltest.Entry{entryAt(time.Unix(1e9, 0), "k3s", "MESSAGE=it sighs")}}.Write(t, filepath.Join(s.dir, "journal/x.journal"))
	for path, want := range map[string]string{
		s.write("empty", ""):                                                            "is empty",
		s.write("cat", "it sighs\nit hangs\n"):                                          "no line has a syslog identifier, and the rules watch kernel, kubelet; use --identifier kubelet",
		s.write("other", "Jan  2 15:04:05 node k3s[1]: it sighs\n"):                     "the rules watch kernel, kubelet, but the lines are from k3s (1); npdctl install",
		s.write("binary", "\x7fELF\x02\x01\x01\x00\x00it sighs\n"):                      "binary, no log",
		filepath.Join(s.dir, "journal"):                                                 "the rules watch kernel, kubelet, but the lines are from k3s (1)",
		s.write("export", entry(time.Now(), "SYSLOG_IDENTIFIER=k3s\nMESSAGE=it sighs")): "the lines are from k3s (1)",
	} {
		code, _, errs := s.replay(path)
		if code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %s", path, code, errs)
		}
	}
	for path, identifier := range map[string]string{"cat": "kubelet", "other": "kubelet"} {
		if code, _, _ := s.replay("--identifier", identifier, filepath.Join(s.dir, path)); (code == 1) != (path == "cat") {
			t.Errorf("%s: exit %d", path, code)
		}
	}
}

// The forms in which people have their logs.
func TestReplayForms(t *testing.T) {
	s := replaySite(t)
	for name, data := range map[string]string{
		"short-full": "Fri 2026-01-02 15:04:05 UTC node kubelet[1]: it sighs\n",
		"with-unit":  "Fri 2026-01-02 15:04:05 UTC node kubelet.service[1]: it sighs\n",
		"dmesg":      "[    1.5] it hangs\n",
		"dmesg-T":    "[Fri Jan  2 15:04:05 2026] it hangs\n",
		"verbose":    "Fri 2026-01-02 15:04:05.123456 UTC [s=1;i=1]\n    SYSLOG_IDENTIFIER=kubelet\n    MESSAGE=it sighs\n",
	} {
		code, out, errs := s.replay(s.write(name, data))
		if code != 1 || (errs != "") != (name == "with-unit") {
			t.Errorf("%s: exit %d, %s%s", name, code, out, errs)
		}
	}
	_, _, errs := s.replay(s.write("blob", "Fri 2026-01-02 15:04:05 UTC node kubelet[1]: [12B blob data]\n"))
	s.has(errs, "1 messages are only shown as blob data; journalctl --all")
}

func TestReplayStdin(t *testing.T) {
	s := replaySite(t)
	stdin := os.Stdin
	defer func() { os.Stdin = stdin }()
	in, err := os.Open(s.write("stream", entry(time.Unix(1e9, 0), "SYSLOG_IDENTIFIER=kubelet\nMESSAGE=it sighs")))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	os.Stdin = in
	code, out, _ := s.replay("-")
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "2001-09-09 02:46:40", "KubeletSighs")
}

func TestReplayIdentifier(t *testing.T) {
	s := replaySite(t)
	path := s.write("kubelet.log", "I0102 15:04:05.123456    1 a.go:1] it sighs\n"+strings.Repeat("x", 2<<20)+"\n")
	code, _, errs := s.replay("-o", "json", path)
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "no line has a syslog identifier", "--identifier")
	code, out, errs := s.replay("--identifier", "kubelet", path)
	if code != 1 || errs != "" {
		t.Errorf("exit %d, %s", code, errs)
	}
	s.has(out, "01-02 15:04:05", "1 lines are longer than 1 MiB")
}

// Events: 25 at once, then none; the counter counts all.
func TestReplayBurst(t *testing.T) {
	s := replaySite(t)
	_, out, _ := s.replay("-o", "json", s.write("burst", strings.Repeat("Jan  2 15:04:05 node kubelet[1]: it sighs\n", 100)))
	var got replayed
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	want := eventCount{Written: 25, Created: 1, Counted: 24, Dropped: 75}
	if r := got.Rules[0]; r.Count != 100 || r.ProblemCounter != 100 || r.Events != want {
		t.Errorf("got %+v", r)
	}
}

func TestReplayFilelog(t *testing.T) {
	s := replaySite(t)
	for _, name := range []string{"kubelet", "kernel"} {
		if err := os.Remove(filepath.Join(s.dir, "rules", name+".json")); err != nil {
			t.Fatal(err)
		}
	}
	s.write("rules/file.json", `{"plugin": "filelog", "logPath": "/var/log/syslog", "source": "file-rules", "skipList": ["node-problem-detector"],
		"pluginConfig": {"timestamp": "^\\S+", "message": "kubelet\\[\\d+\\]: (.*)", "timestampFormat": "2006-01-02T15:04:05Z07:00"},
		"rules": [{"type": "temporary", "reason": "KubeletSighs", "pattern": "it sighs.*"}]}`)
	path := s.write("syslog", `2026-01-02T15:04:05+01:00 node kubelet[1]: it sighs
2026-01-02T15:04:06+01:00 node sshd[1]: it sighs
2026-01-02T15:04:07+01:00 node node-problem-detector[1]: kubelet[1]: it sighs
today node kubelet[1]: it sighs
`)
	code, out, _ := s.replay(path)
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "1      1       2026-01-02 15:04:05  2026-01-02 15:04:05  KubeletSighs", "4 lines", "file.json 1")
	code, _, errs := s.replay(s.write("export", entry(time.Now(), "SYSLOG_IDENTIFIER=kubelet\nMESSAGE=it sighs")))
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "file.json is left out", "no rule was tried: the filelog rules")
	code, _, errs = s.replay(s.write("sshd", "2026-01-02T15:04:06+01:00 node sshd[1]: it smiles\n"))
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "no rule was tried: the filelog rules cannot parse any line")
	if err := os.WriteFile(filepath.Join(s.dir, "journal/x.journal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, errs = s.replay(filepath.Join(s.dir, "journal"))
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "none of the rule files is for a journal")
}

// sighs has an entry of kubelet and one of something else for each second.
func sighs(begin time.Time, seconds int) (entries []journaltest.Entry) {
	for i := range seconds {
		at := uint64(begin.Add(time.Duration(i) * time.Second).UnixMicro())
		entries = append(entries,
			journaltest.Entry{Realtime: at, Fields: journaltest.Texts("SYSLOG_IDENTIFIER=kubelet", "MESSAGE=it sighs")},
			journaltest.Entry{Realtime: at, Fields: journaltest.Texts("SYSLOG_IDENTIFIER=sshd", "PRIORITY=3", "MESSAGE=it sighs too")})
	}
	return entries
}

func TestReplayJournal(t *testing.T) {
	s := replaySite(t)
	dir := filepath.Join(s.dir, "journal")
	code, _, errs := s.replay(dir)
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "no *.journal in")

	good := journaltest.File{Entries: sighs(time.Unix(1e9, 0), 3)}
	good.Write(t, filepath.Join(dir, "x.journal"))
	code, out, errs := s.replay(dir)
	if code != 1 || errs != "" {
		t.Errorf("exit %d, %s", code, errs)
	}
	s.has(out, "3      3       2001-09-09 02:46:40  2001-09-09 02:46:42  KubeletSighs", "3 lines in")
	code, out, _ = s.replay("--unmatched", filepath.Join(dir, "x.journal"))
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "it sighs too", "6 lines in")

	// What is damaged is told of.
	bad := good.Bytes()
	bad[bytes.Index(bad, []byte("it sighs"))-len("MESSAGE=")-64] = 99 // the type of the object
	s.write("journal/x.journal", string(bad))
	code, out, errs = s.replay(dir)
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "3 lines in")
	s.has(errs, "3 entries or fields are damaged and were left out")
	good.Write(t, filepath.Join(dir, "x.journal"))

	// A file that cannot be read, or not to its end, is no success. The others are read.
	s.write("journal/y.journal", string(good.Bytes()[:1200]))
	code, out, errs = s.replay(dir)
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(out, "KubeletSighs")
	s.has(errs, "not read to the end: ", "y.journal: ")
	s.write("journal/z.journal", "")
	code, _, errs = s.replay(dir)
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	s.has(errs, "z.journal: too short", "not read to the end: 2 of 3 files are not whole")
	code, out, errs = s.replay(filepath.Join(dir, "x.journal"))
	if code != 1 || strings.Contains(errs, "not read") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	for _, name := range []string{"x", "y"} {
		if err := os.Remove(filepath.Join(dir, name+".journal")); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs = s.replay(dir)
	if code != 2 || out != "" {
		t.Errorf("exit %d, %s", code, out)
	}
	s.has(errs, "z.journal: too short")
}

// Interrupted, it ends also when nothing matches.
func TestReplayJournalInterrupted(t *testing.T) {
	s := replaySite(t)
	path := filepath.Join(s.dir, "journal/x.journal")
	journaltest.File{Array: 1000, Entries: sighs(time.Unix(1e9, 0), 3000)}.Write(t, path)
	p, err := newPast([]string{filepath.Join(s.dir, "rules/kernel.json")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := replayOptions{source: path}
	if err := o.read(ctx, p, io.Discard); err == nil || err.Error() != "interrupted" {
		t.Errorf("%v", err)
	}
}

// journalRemote writes a journal file from the export format, as a journal receiver does.
func journalRemote(t *testing.T, file, export string) {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/lib/systemd:/lib/systemd")
	for _, name := range []string{"systemd-journal-remote", "journalctl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s here: what npdctl reads is compared with it", name)
		}
	}
	cmd := exec.Command("systemd-journal-remote", "--output="+file, "-")
	cmd.Stdin = strings.NewReader(export)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestReplayRealJournal(t *testing.T) {
	s := replaySite(t)
	var export strings.Builder
	at := time.Date(2026, 1, 2, 15, 4, 5, 123456000, time.Local)
	for i, fields := range []string{
		"SYSLOG_IDENTIFIER=kubelet\nMESSAGE= it sighs ",
		"SYSLOG_IDENTIFIER=kernel\nMESSAGE=it hangs",
		"SYSLOG_IDENTIFIER=sshd\nMESSAGE=it sighs",
		"SYSLOG_IDENTIFIER=kubelet\n" + binaryField("MESSAGE", "it sighs\nover two lines"),
		"SYSLOG_IDENTIFIER=kubelet\nPRIORITY=3",
		"SYSLOG_IDENTIFIER=kubelet\n" + binaryField("MESSAGE", "\x1b[0m it moans"),
		"SYSLOG_IDENTIFIER=kubelet\nMESSAGE=it moans " + strings.Repeat("a", 2<<20),
		"PRIORITY=3\nMESSAGE=without identifier 7",
	} {
		fmt.Fprintf(&export, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=0123456789abcdef0123456789abcdef\n%s\n\n", at.Add(time.Duration(i)*time.Second).UnixMicro(), 1000+i, fields)
	}
	dir := filepath.Join(s.dir, "journal")
	journalRemote(t, filepath.Join(dir, "test.journal"), export.String())
	code, out, errs := s.replay("-o", "json", dir)
	if code != 1 || errs != "" {
		t.Errorf("exit %d, %s", code, errs)
	}
	var got replayed
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Lines != 6 || got.Cut != 1 {
		t.Errorf("%d lines, %d cut", got.Lines, got.Cut)
	}
	counts := map[string]int{}
	for _, r := range got.Rules {
		counts[r.Reason] = r.Count
		if r.Reason == "KubeletSighs" && !r.First.Equal(at) {
			t.Errorf("first %v, want %v", r.First, at)
		}
	}
	// "it sighs\nover two lines" does not match to its end, "it moans" did before the long line.
	if diff := cmp.Diff(map[string]int{"KubeletSighs": 1, "KernelHangs": 1, "KubeletMoansTwice": 1}, counts); diff != "" {
		t.Error(diff)
	}
	_, out, _ = s.replay("--unmatched", filepath.Join(dir, "test.journal"))
	s.has(out, "without identifier N", "8 lines in ")

	// The same through a pipe, in both forms.
	for _, format := range []string{"export", "json"} {
		stream, err := exec.Command("journalctl", "--directory="+dir, "--output="+format, "--all").Output()
		if err != nil {
			t.Fatal(err)
		}
		_, out, _ := s.replay("-o", "json", s.write(format, string(stream)))
		var piped replayed
		if err := json.Unmarshal([]byte(out), &piped); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got.Rules, piped.Rules); diff != "" || piped.Lines != 8 {
			t.Errorf("%s: %d lines, %s", format, piped.Lines, diff)
		}
	}
}

func TestReplayUnreadable(t *testing.T) {
	s := replaySite(t)
	for name, want := range map[string]string{
		filepath.Join(s.dir, "gone"):                           "no such file",
		s.write("json", "{\"__CURSOR\":\"a\"\n"):               "no line of it is an entry",
		s.write("pretty", "{\n\t\"__CURSOR\" : \"a\"\n}\n"):    "json-pretty",
		s.write("xz", "\xfd7zXZ\x00"):                          "compressed",
		s.write("bad.gz", "\x1f\x8bx"):                         "gzip",
		s.write("export", "__CURSOR=a\nnonsense\n"):            "not in the form",
		s.write("cut", entry(time.Now(), "MESSAGE=a")+"MESSA"): "unexpected EOF",
	} {
		code, _, errs := s.replay(name)
		if code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
	}
	s.write("rules/none.json", `{"plugin": "journald"}`)
	if code, _, errs := s.replay(s.write("quiet", "")); code != 2 || !strings.Contains(errs, "no source in pluginConfig") {
		t.Errorf("exit %d, %s", code, errs)
	}
	s.write("rules/none.json", `{`)
	if code, _, errs := s.replay(s.write("quiet", "")); code != 2 || !strings.Contains(errs, "NPD does not come up") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestProgress(t *testing.T) {
	for want, got := range map[string]string{
		"5000 lines, 2500 lines/s":                                            bar(-1, 5000, 2*time.Second),
		"[##########..........]  50%  5000 lines, 2500 lines/s, 2s left":      bar(0.5, 5000, 2*time.Second),
		"[....................]   0%  0 lines, 0 lines/s":                     bar(0, 0, time.Second),
		"[####################] 100%  9999999 lines, 100000 lines/s, 0s left": bar(1, 9999999, 99999990*time.Microsecond),
	} {
		if got != want || len(got) > 79 {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	var out bytes.Buffer
	p := newProgress(&out)
	p.update(1, time.Now())
	p.clear()
	if out.Len() > 0 {
		t.Errorf("%q on what is no terminal", &out)
	}
}

// BenchmarkReplay is the whole command on a text log of a busy kubelet, with all rules for it, on one core: lines/s, and the memory
// that is held at the end.
func BenchmarkReplay(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const perRound = 200_000
	var text strings.Builder
	samples, err := os.ReadFile("../../journal-rules/testdata/kubelet.txt")
	if err != nil {
		b.Fatal(err)
	}
	rare := strings.Split(string(samples), "\n")
	for i := range perRound {
		line := fmt.Sprintf(`I1021 10:11:%02d.131415    1234 reconciler_common.go:%d] "operationExecutor.VerifyControllerAttachedVolume started for volume \"kube-api-access-%x\" (UniqueName: \"kubernetes.io/projected/0f1e2d3c\") pod \"web-%d\""`, i%60, i%300, i, i%110)
		if i%100 == 0 { // one line in a hundred is one that rules match, or nearly
			if _, sample, ok := strings.Cut(rare[i/100%len(rare)], " "); ok {
				line = sample
			}
		}
		fmt.Fprintf(&text, "Jan  2 15:%02d:%02d node kubelet[1234]: %s\n", i/60%60, i%60, line)
	}
	path := filepath.Join(b.TempDir(), "messages")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	text.Reset()
	for b.Loop() {
		var out, errs bytes.Buffer
		if code := npdctl([]string{"replay", "--rules", "../../journal-rules/kubelet.json", path}, &out, &errs); code != 1 {
			b.Fatalf("exit %d: %s", code, &errs)
		}
	}
	b.ReportMetric(float64(b.N*perRound)/b.Elapsed().Seconds(), "lines/s")
}
