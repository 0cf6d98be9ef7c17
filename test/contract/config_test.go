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
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join("../../config", c.name+".json")
			config, err := npd.LoadCustom(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(config.Conditions) != 1 || len(config.Rules) != 1 {
				t.Fatalf("%d conditions and %d rules, want one each", len(config.Conditions), len(config.Rules))
			}
			condition, rule := config.Conditions[0], config.Rules[0]
			if !strings.HasPrefix(c.help, c.name+": node condition "+condition.Type+"\n") {
				t.Errorf("condition %s is not the one of --help", condition.Type)
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
			if p.MaxOutputLength != plugin.MaxMessage || !p.SkipInitialStatus || p.UpdateOnMessageChange {
				t.Errorf("max_output_length %d, skip_initial_status %v, enable_message_change_based_condition_update %v; want %d, true, false",
					p.MaxOutputLength, p.SkipInitialStatus, p.UpdateOnMessageChange, plugin.MaxMessage)
			}
			if other := sources[config.Source]; other != "" || config.Source == "" {
				t.Errorf("source %q is also that of %q", config.Source, other)
			}
			sources[config.Source] = c.name
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

// TestConfigsHaveChecks finds the config of a check that is gone.
func TestConfigsHaveChecks(t *testing.T) {
	configs, err := filepath.Glob("../../config/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range configs {
		b, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b) {
			t.Errorf("%s is no JSON", config)
		}
		name := strings.TrimSuffix(filepath.Base(config), ".json")
		if !slices.ContainsFunc(checks, func(c check) bool { return c.name == name }) {
			t.Errorf("%s has no plugins/%s", config, name)
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
