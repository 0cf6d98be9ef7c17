package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestUpToDate(t *testing.T) {
	const again = "run go generate ./journal-rules/..."
	files, err := generate("../..")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what its journal rules make; %s", name, again)
		}
	}
	found, err := filepath.Glob("../*/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if name, _ := filepath.Rel("..", path); files[name] == nil {
			t.Errorf("%s has no journal rules; remove it", name)
		}
	}
}
