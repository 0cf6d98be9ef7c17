package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"

	"npd-plugins/internal/npd"
)

// condition is a NodeCondition of ours and what is advised about it.
type condition struct {
	Type   string // ContainerGCStalled
	Check  string // of the folder below plugins/: cri-gc
	Config string // of the file below config/: cri-gc
	Advice advice
}

// advice is an entry of conditions.yaml, where the fields are explained.
type advice struct {
	Severity string `json:"severity"`
	For      string `json:"for"`
	Remedy   string `json:"remedy"`
	Why      string `json:"why"`
	Next     string `json:"next"`
}

// readConditions lists the conditions of all configs by their type.
func readConditions(root string) ([]condition, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/conditions.yaml"))
	if err != nil {
		return nil, err
	}
	advices := map[string]advice{}
	if err := yaml.UnmarshalStrict(text, &advices); err != nil {
		return nil, fmt.Errorf("conditions.yaml: %w", err)
	}
	paths, err := filepath.Glob(filepath.Join(root, "config/*.json"))
	if err != nil {
		return nil, err
	}
	var conditions []condition
	for _, path := range paths {
		config, err := npd.LoadCustom(path)
		if err != nil {
			return nil, err
		}
		rule := config.Rules[0]
		advice, ok := advices[rule.Condition]
		if !ok {
			return nil, fmt.Errorf("conditions.yaml has no %s, of %s", rule.Condition, path)
		}
		delete(advices, rule.Condition)
		name := filepath.Base(path)
		conditions = append(conditions, condition{rule.Condition, filepath.Base(rule.Path), name[:len(name)-len(".json")], advice})
	}
	for name := range advices {
		return nil, fmt.Errorf("conditions.yaml has %s, which no config has", name)
	}
	slices.SortFunc(conditions, func(a, b condition) int { return cmp.Compare(a.Type, b.Type) })
	return conditions, nil
}
