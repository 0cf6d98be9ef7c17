// Package npd compares npdctl with a real node-problem-detector, where one is at hand: NPD_BINARY, or node-problem-detector on
// PATH. It has no code of its own.
package npd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

const (
	rulesDir  = "../../journal-rules"
	minLines  = 2000
	countTime = 2 * time.Minute // that NPD gets to read them
)

// tool finds a program, or skips the test.
func tool(t *testing.T, name, why string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/lib/systemd/", "/lib/systemd/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	t.Skipf("no %s here: %s", name, why)
	return ""
}

// message is one line of a journal.
type message struct{ identifier, text string }

// special are rules that look over lines, stay, or count one line more than once, as rules of others do; and messages that are
// trimmed, long, cut or empty.
const special = `{"plugin": "journald", "pluginConfig": {"source": "special"}, "bufferSize": 3, "source": "special-rules",
	"conditions": [{"type": "SpecialStuck", "reason": "SpecialIsFine", "message": "fine"}],
	"rules": [
		{"type": "temporary", "reason": "SpecialTwoLines", "pattern": "first.*\nsecond.*"},
		{"type": "temporary", "reason": "SpecialUngrouped", "pattern": "left|right"},
		{"type": "temporary", "reason": "SpecialBegin", "pattern": "^begin.*"},
		{"type": "temporary", "reason": "SpecialExact", "pattern": "exactly this"},
		{"type": "temporary", "reason": "SpecialEmpty", "pattern": "second\n\n"},
		{"type": "temporary", "reason": "SpecialLongBegin", "pattern": "long begin.*"},
		{"type": "temporary", "reason": "SpecialLongEnd", "pattern": "the long end.*"},
		{"type": "temporary", "reason": "SpecialBytes", "pattern": "bytes \\x{FFFD} here.*"},
		{"type": "permanent", "condition": "SpecialStuck", "reason": "SpecialStuckNow", "pattern": "stuck.*"},
		{"type": "permanent", "condition": "SpecialStuck", "reason": "SpecialStuckMore", "pattern": "more stuck.*"}]}`

var specialTexts = []string{
	"first", "second", "first of three", "between", "second again", "left", "quiet", "quiet", "quiet", "right", "  exactly this\t", "exactly this and more",
	"", "second", "", "", "begin", "\nbegin", "first\nsecond", "stuck", "stuck again", "more stuck", "stuck", "bytes \xff here", "\x1b[31mexactly this",
	"long begin" + strings.Repeat(" and on", 15000), "a" + strings.Repeat(" b", 40000) + " the long end", "a" + strings.Repeat(" c", 200000) + " the long end",
}

// messages are the samples of all rule files, shuffled and some of them repeated, the same in each run.
func messages(t *testing.T, configs map[string]*npd.LogConfig) []message {
	t.Helper()
	var all []message
	for name, config := range configs {
		data, err := os.ReadFile(filepath.Join(rulesDir, "testdata", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		samples, err := npd.ParseSamples(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples {
			all = append(all, message{config.PluginConfig["source"], s.Text})
		}
	}
	slices.SortFunc(all, func(a, b message) int { return strings.Compare(a.identifier+a.text, b.identifier+b.text) })
	random := rand.New(rand.NewPCG(1, 2))
	for n := len(all) + 300; len(all) < max(minLines, n); {
		all = append(all, all[random.IntN(len(all))])
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for range 3 {
		for _, text := range specialTexts {
			all = append(all, message{"special", text})
		}
	}
	return all
}

// configs writes the rule files for journals in logPath, and reads the kernel's lines from there too.
func configs(t *testing.T, dir, logPath string) (paths []string, byName map[string]*npd.LogConfig) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(rulesDir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no rule files: %v", err)
	}
	byName = map[string]*npd.LogConfig{}
	write := func(name string, data []byte) *npd.LogConfig {
		config, err := npd.ParseLogConfig(data)
		if err != nil {
			t.Fatal(err)
		}
		if config.Plugin == "kmsg" {
			config.Plugin, config.PluginConfig = "journald", map[string]string{"source": "kernel"}
		}
		config.LogPath, config.Lookback, config.Delay = logPath, "1h", ""
		out, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name+".json")
		if err := os.WriteFile(path, out, 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
		return config
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		byName[name] = write(name, data)
	}
	write("special", []byte(special))
	return paths, byName
}

// writeJournal makes a journal file of messages that were logged in the last seconds: NPD looks back no further than the boot.
func writeJournal(t *testing.T, remote, file string, all []message) {
	t.Helper()
	var export bytes.Buffer
	at := time.Now().Add(-2 * time.Second).UnixMicro()
	for i, m := range all {
		fmt.Fprintf(&export, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=0123456789abcdef0123456789abcdef\nSYSLOG_IDENTIFIER=%s\nMESSAGE\n", at+int64(i), 1000+i, m.identifier)
		export.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(m.text))))
		export.WriteString(m.text + "\n\n")
	}
	cmd := exec.Command(remote, "--output="+file, "-")
	cmd.Stdin = &export
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// replayed returns what npdctl says problem_counter goes up, by reason.
func replayed(t *testing.T, npdctl, journal string, configs []string) map[string]int {
	t.Helper()
	args := []string{"replay", "-o", "json"}
	for _, path := range configs {
		args = append(args, "--rules", path)
	}
	out, err := exec.Command(npdctl, append(args, journal)...).Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("npdctl replay: %v", err)
	}
	var report struct {
		Rules []struct {
			Reason         string
			ProblemCounter int
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, r := range report.Rules {
		counts[r.Reason] += r.ProblemCounter
	}
	return counts
}

// settled returns NPD's counters once they have been the same for some seconds.
func settled(t *testing.T, d *lab.Detector) map[string]int {
	t.Helper()
	const quiet = 8 // looks, half a second apart
	var last map[string]int
	same := 0
	for deadline := time.Now().Add(countTime); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		now := d.Counters()
		if len(now) == 0 || !cmp.Equal(now, last) {
			last, same = now, 0
			continue
		}
		if same++; same == quiet {
			return now
		}
	}
	t.Fatalf("the counters of NPD do not settle within %v: %v", countTime, last)
	return nil
}

func TestReplayCountsAsNPD(t *testing.T) {
	lab.NeedDetector(t)
	remote := tool(t, "systemd-journal-remote", "it writes the journal file")
	dir := t.TempDir()
	npdctl := filepath.Join(dir, "npdctl")
	if out, err := exec.Command("go", "build", "-o", npdctl, "npd-plugins/cmd/npdctl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	journal, rules := filepath.Join(dir, "journal"), filepath.Join(dir, "rules")
	for _, d := range []string{journal, rules} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	paths, byName := configs(t, rules, journal)
	all := messages(t, byName)
	writeJournal(t, remote, filepath.Join(journal, "test.journal"), all)

	ours := replayed(t, npdctl, journal, paths)
	theirs := settled(t, lab.StartDetector(t, "--config.system-log-monitor="+strings.Join(paths, ",")))
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("NPD (-) and npdctl replay (+) count differently:\n%s", diff)
	}
	sum := 0
	for _, n := range ours {
		sum += n
	}
	t.Logf("%d lines, %d reasons, %d times counted", len(all), len(ours), sum)
}
