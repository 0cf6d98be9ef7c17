package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestFresh(t *testing.T) {
	files, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(counted) {
		t.Errorf("%d configurations, %d in counted", len(files), len(counted))
	}
	for path, want := range files {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: go generate ./config/...", path)
		}
		if strings.Count(string(got), "--identifier=kubelet,") != 1 {
			t.Errorf("%s does not count kubelet's lines", path)
		}
		if strings.Contains(string(got), "rke2-server") {
			t.Errorf("%s has a unit among the identifiers", path)
		}
	}
}

func TestUnknownConfiguration(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/journal-count-new.json", []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := generate(dir); err == nil || !strings.Contains(err.Error(), "whose lines it counts") {
		t.Error(err)
	}
}
