// Command generate makes the rule files for syslog daemons' text files from the journal rules.
package main

//go:generate go run .

import (
	"fmt"
	"os"
	"path/filepath"

	"npd-plugins/internal/rulefile"
)

func main() {
	files, err := generate("../..")
	if err == nil {
		err = write("..", files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// generate returns the content of each file, by its path below journal-rules/filelog.
func generate(journalRules string) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(journalRules, "*.json"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, path := range paths {
		rules, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, style := range rulefile.Styles {
			converted, err := rulefile.ForFile(rules, style)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			files[filepath.Join(style.Name, filepath.Base(path))] = converted
		}
	}
	return files, nil
}

func write(dir string, files map[string][]byte) error {
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
