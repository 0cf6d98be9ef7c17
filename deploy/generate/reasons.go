package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"

	"npd-plugins/internal/npd"
)

// reasons is reasons.yaml, where the fields are explained.
type reasons struct {
	Critical []string `json:"critical"`
	Info     []string `json:"info"`
}

// readReasons reads reasons.yaml, whose reasons must be those of journal rules, each once.
func readReasons(root string) (r reasons, err error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/reasons.yaml"))
	if err != nil {
		return r, err
	}
	if err := yaml.UnmarshalStrict(text, &r); err != nil {
		return r, fmt.Errorf("reasons.yaml: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(root, "journal-rules/*.json"))
	if err != nil {
		return r, err
	}
	var known []string
	for _, file := range files {
		m, err := npd.LoadLogMonitor(file)
		if err != nil {
			return r, err
		}
		for _, rule := range m.Config.Rules {
			known = append(known, rule.Reason)
		}
	}
	all := slices.Concat(r.Critical, r.Info)
	for i, reason := range all {
		if !slices.Contains(known, reason) || slices.Contains(all[:i], reason) {
			return r, fmt.Errorf("reasons.yaml: %s is no reason of journal-rules, or is there twice", reason)
		}
	}
	return r, nil
}
