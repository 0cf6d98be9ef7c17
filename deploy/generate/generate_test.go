package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func TestUpToDate(t *testing.T) {
	files, err := generate("../..", defaults)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil || string(got) != want {
			t.Errorf("deploy/%s is stale: run go generate ./deploy/...", name)
		}
	}
}

func TestAdvice(t *testing.T) {
	conditions, err := readConditions("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conditions {
		if s := c.Advice.Severity; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", c.Type, s)
		}
		if _, err := time.ParseDuration(c.Advice.For); err != nil {
			t.Errorf("%s: for: %v", c.Type, err)
		}
		if r := c.Advice.Remedy; r != "alert" && r != "taint" && r != "replace" {
			t.Errorf("%s: remedy %q", c.Type, r)
		}
		if c.Advice.Why == "" || c.Advice.Next == "" {
			t.Errorf("%s: neither why nor next may be empty", c.Type)
		}
		if _, err := os.Stat(filepath.Join("../../plugins", c.Check, "README.md")); err != nil {
			t.Errorf("%s: no runbook: %v", c.Type, err)
		}
	}
}

// TestNewNode: a node that has no condition yet is not tainted.
func TestNewNode(t *testing.T) {
	conditions, err := readConditions("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := readinessRules(conditions)
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	for part := range strings.SplitSeq(text, "\n---\n") {
		var rule struct {
			Kind string
			Spec struct {
				Conditions []struct{ RequiredStatus, DefaultStatus string }
			}
		}
		if err := yaml.Unmarshal([]byte(part), &rule); err != nil {
			t.Fatal(err)
		}
		if rule.Kind == "" {
			continue // the head
		}
		rules++
		if c := rule.Spec.Conditions; len(c) != 1 || c[0].DefaultStatus != "False" || c[0].RequiredStatus != "False" {
			t.Errorf("%+v", c)
		}
	}
	if rules < 10 {
		t.Errorf("%d rules", rules)
	}
}

// TestCriticalReasons: what a tenant can have kubelet write pages nobody.
func TestCriticalReasons(t *testing.T) {
	r, err := readReasons("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range r.Critical {
		if strings.HasPrefix(reason, "Kubelet") {
			t.Errorf("%s is critical: a probe's output can hold its words", reason)
		}
	}
}
