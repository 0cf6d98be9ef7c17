// Command generate makes the files of deploy/ that repeat what config/, journal-rules/ and deploy/conditions.yaml say.
package main

//go:generate go run .

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
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

// generate returns the content of each file, by its path below deploy.
func generate(root string) (map[string]string, error) {
	conditions, err := readConditions(root)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for name, content := range map[string]func([]condition) (string, error){
		"monitoring/rules.yaml":                 rules,
		"monitoring/prometheusrule.yaml":        prometheusRule,
		"monitoring/dashboard.json":             dashboard,
		"monitoring/dashboard.svg":              picture,
		"remediation/node-readiness-rules.yaml": readinessRules,
		"remediation/machine-health-check.yaml": machineHealthCheck,
		"remediation/node-health-check.yaml":    nodeHealthCheck,
		"remediation/README.md":                 remedies,
	} {
		if files[name], err = content(conditions); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	made, err := ways(root, conditions)
	maps.Copy(files, made)
	return files, err
}

func write(dir string, files map[string]string) error {
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
