package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"npd-plugins/internal/npd"
)

// shipped has, for each configuration, the journal rules whose patterns it takes: by reason without the name of the component.
var shipped = map[string][]string{
	"cni-teardown": {"CNITeardownFailed", "CNIPluginTeardownFailed", "PodNetworkTeardownFailed", "CNIDeleteError", "NetworkTeardownFailed", "CNIStopFailed",
		"NetnsRemoveFailed", "NetnsBusy"},
	"cri-message-size": {"GRPCMessageTooLarge"},
	"pleg":             {"PLEGUnhealthy"},
	"task-delete":      {"StopTimeout", "ContainerNotKilled", "KillTimeout", "TerminationTimeout"},
	"task-fork":        {"PthreadCreateFailed", "OSThreadCreateFailed", "ForkFailed"},
}

// left are rules of those reasons whose patterns are not taken, and why.
var left = map[string]string{
	"DockerKillTimeout": "dockerd writes it of each container that does not end on SIGTERM, and kills it then",
}

// configured returns the check as its configuration has it, and the patterns in it.
func configured(t testing.TB, name string) (c *check, patterns []string) {
	t.Helper()
	config, err := npd.LoadCustom("../../config/journal-count-" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	c = new(check)
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Duration("timeout", 0, "")
	c.flags(fs)
	if err := fs.Parse(config.Rules[0].Args); err != nil {
		t.Fatal(err)
	}
	for _, arg := range config.Rules[0].Args {
		if pattern, ok := strings.CutPrefix(arg, "--pattern="); ok {
			patterns = append(patterns, pattern)
		}
	}
	if string(c.condition) != config.Conditions[0].Type {
		t.Errorf("%s: --condition=%s, and the condition is %s", name, c.condition, config.Conditions[0].Type)
	}
	return c, patterns
}

func TestShipped(t *testing.T) {
	files, err := filepath.Glob("../../config/journal-count-*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "journal-count-"), ".json")
		if shipped[name] == nil {
			t.Errorf("%s: say in shipped which journal rules it is about", file)
		}
	}
	if len(files) != len(shipped) {
		t.Errorf("%d configurations, %d in shipped", len(files), len(shipped))
	}
}

var component = regexp.MustCompile(`^(?:Kubelet|Containerd|Crio|Docker|Kernel|Systemd)`)

// ruleFiles are the journal rules by identifier.
func ruleFiles(t testing.TB) map[string]*npd.LogMonitor {
	t.Helper()
	files, err := filepath.Glob("../../journal-rules/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no journal rules: %v", err)
	}
	rules := map[string]*npd.LogMonitor{}
	for _, file := range files {
		m, err := npd.LoadLogMonitor(file)
		if err != nil {
			t.Fatal(err)
		}
		rules[strings.TrimSuffix(filepath.Base(file), ".json")] = m
	}
	return rules
}

// about says whether a rule is one of those that a configuration is about.
func about(name, reason string) bool {
	return left[reason] == "" && slices.Contains(shipped[name], component.ReplaceAllString(reason, ""))
}

// The patterns are those of the journal rules. Where one of them changes, the other has to.
func TestPatternsOfJournalRules(t *testing.T) {
	for name := range shipped {
		_, patterns := configured(t, name)
		wanted := map[string][]string{} // the reasons, by pattern
		for _, m := range ruleFiles(t) {
			for _, rule := range m.Config.Rules {
				if about(name, rule.Reason) {
					wanted[rule.Pattern] = append(wanted[rule.Pattern], rule.Reason)
				}
			}
		}
		for pattern, reasons := range wanted {
			if !slices.Contains(patterns, pattern) {
				t.Errorf("config/journal-count-%s.json lacks the pattern of %s in journal-rules:\n%s", name, reasons, pattern)
			}
		}
		for _, pattern := range patterns {
			if wanted[pattern] == nil {
				t.Errorf("config/journal-count-%s.json has a pattern that no rule in journal-rules has:\n%s", name, pattern)
			}
		}
	}
}

// The lines that the journal rules are tried on: what is for a rule that is taken counts, a look-alike does not.
func TestLinesOfJournalRules(t *testing.T) {
	for name := range shipped {
		c, _ := configured(t, name)
		lines := 0
		for file, m := range ruleFiles(t) {
			if !slices.Contains(c.identifiers, m.Identifier()) {
				continue
			}
			for _, s := range samplesOf(t, file) {
				counts := c.patterns.find([]byte(strings.TrimSpace(s.Text))) >= 0
				wanted := slices.ContainsFunc(s.Reasons, func(reason string) bool { return about(name, reason) })
				switch {
				case wanted && !counts:
					t.Errorf("%s: journal-rules/testdata/%s.txt:%d does not count\n%s", name, file, s.Line, s.Text)
				case counts && s.Reasons == nil:
					t.Errorf("%s: journal-rules/testdata/%s.txt:%d counts, and is a look-alike\n%s", name, file, s.Line, s.Text)
				case counts:
					lines++
				}
			}
		}
		if lines < 10 {
			t.Errorf("%s: only %d lines count", name, lines)
		}
	}
}

func samplesOf(t testing.TB, file string) []npd.Sample {
	t.Helper()
	data, err := os.ReadFile("../../journal-rules/testdata/" + file + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	samples, err := npd.ParseSamples(data)
	if err != nil {
		t.Fatal(err)
	}
	return samples
}

// Every configuration watches kubelet under all the names it has where it is not on its own.
func TestKubeletIdentifiers(t *testing.T) {
	pleg, _ := configured(t, "pleg")
	for name := range shipped {
		c, _ := configured(t, name)
		for _, identifier := range pleg.identifiers {
			if !slices.Contains(c.identifiers, identifier) {
				t.Errorf("%s does not watch %s", name, identifier)
			}
		}
	}
}
