package contract

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/plugin"
)

func TestConfig(t *testing.T) {
	sources := map[string]string{}
	for name, c := range configs(t) {
		t.Run(name, func(t *testing.T) {
			config, err := npd.LoadCustom(filepath.Join("../../config", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if len(config.Conditions) != 1 || len(config.Rules) != 1 {
				t.Fatalf("%d conditions and %d rules, want one each", len(config.Conditions), len(config.Rules))
			}
			condition, rule := config.Conditions[0], config.Rules[0]
			if own := ownCondition(t, c, rule.Args); own != condition.Type {
				t.Errorf("condition %s, and the check says %s", condition.Type, own)
			}
			if rule.Type != npd.Permanent || rule.Condition != condition.Type {
				t.Errorf("the rule is %s for %s, want permanent for %s", rule.Type, rule.Condition, condition.Type)
			}
			if rule.Reason == "" || rule.Reason == condition.Reason {
				t.Errorf("reason %q of the Problem beside %q", rule.Reason, condition.Reason)
			}
			if want := "/opt/npd-plugins/bin/" + c.name; rule.Path != want {
				t.Errorf("path %s, want %s", rule.Path, want)
			}
			p := config.PluginConfig
			if p.MaxOutputLength != plugin.MaxMessage || !p.SkipInitialStatus || p.UpdateOnMessageChange != (name == "service-restarts") { // whose message changes with the services that it tells of
				t.Errorf("max_output_length %d, skip_initial_status %v, enable_message_change_based_condition_update %v; want %d, true, false",
					p.MaxOutputLength, p.SkipInitialStatus, p.UpdateOnMessageChange, plugin.MaxMessage)
			}
			if other := sources[config.Source]; other != "" || config.Source == "" {
				t.Errorf("source %q is also that of %q", config.Source, other)
			}
			sources[config.Source] = name
			if own := ownTimeout(t, c, rule.Args); own >= config.RuleTimeout(rule) {
				t.Errorf("--timeout %v, want less than the rule's %v", own, config.RuleTimeout(rule))
			}
			// The arguments are right when a look with them fails for want of a host, and not for wrong usage.
			r := c.run(t, append(slices.Clone(rule.Args), "--host-root=/no/such/host")...)
			if !strings.Contains(r.Message, "/no/such/host") {
				t.Errorf("arguments %q: %s", rule.Args, r.Message)
			}
		})
	}
}

// ownCondition is the condition that the check says it is with these arguments.
func ownCondition(t *testing.T, c check, args []string) string {
	t.Helper()
	args = append(slices.Clone(args), "--host-root=/no/such/host", "--state-dir="+t.TempDir(), "--output=json")
	r := npd.RunPlugin(t.Context(), c.path, args, 2*timeout, npd.MaxPluginOutput)
	var told struct{ Condition string }
	if err := json.Unmarshal([]byte(r.Message), &told); err != nil {
		t.Errorf("%q: %v: %s", args, err, r.Message)
	}
	return told.Condition
}

// ownTimeout is --timeout as the arguments or else the check set it.
func ownTimeout(t *testing.T, c check, args []string) time.Duration {
	t.Helper()
	value := ""
	for _, f := range c.flags {
		if f.name == "timeout" {
			value = f.preset
		}
	}
	for _, arg := range args {
		if v, ok := strings.CutPrefix(arg, "--timeout="); ok {
			value = v
		}
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// configs returns the check of each file in config/, by its name without .json. It is that of the check, or of a check that is
// many conditions begins with that and "-".
func configs(t *testing.T) map[string]check {
	t.Helper()
	files, err := filepath.Glob("../../config/*.json")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]check{}
	lacking := slices.Clone(checks)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		i := slices.IndexFunc(checks, func(c check) bool {
			return c.name == name || c.has("condition") && strings.HasPrefix(name, c.name+"-")
		})
		if i < 0 {
			t.Errorf("%s has no folder in plugins/", file)
			continue
		}
		found[name] = checks[i]
		lacking = slices.DeleteFunc(lacking, func(c check) bool { return c.name == checks[i].name })
	}
	for _, c := range lacking {
		t.Errorf("plugins/%s has no file in config/", c.name)
	}
	return found
}

// TestConditions wants every condition to be that of one file.
func TestConditions(t *testing.T) {
	owners := map[string]string{}
	for name := range configs(t) {
		config, err := npd.LoadCustom(filepath.Join("../../config", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, condition := range config.Conditions {
			if other := owners[condition.Type]; other != "" {
				t.Errorf("condition %s is in %s.json and %s.json", condition.Type, name, other)
			}
			owners[condition.Type] = name
		}
	}
}

func TestRunbook(t *testing.T) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("../../plugins", c.name, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			for _, section := range []string{"Meaning", "Impact", "Diagnosis", "Mitigation"} {
				if !regexp.MustCompile(`(?m)^## ` + section + `\n\n\S`).Match(b) {
					t.Errorf("no section %q with text", "## "+section)
				}
			}
		})
	}
}
