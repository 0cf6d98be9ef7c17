package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUpToDate(t *testing.T) {
	files, err := generate("../..")
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
