package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// need is an entry of needs.yaml, where the fields are explained.
type need struct {
	Profile     string   `json:"profile"`
	Paths       []string `json:"paths"`
	Kubelet     string   `json:"kubelet"`
	Privileged  string   `json:"privileged"`
	HostPID     string   `json:"hostPID"`
	HostNetwork string   `json:"hostNetwork"`
}

// needs is needs.yaml.
type needs struct {
	Checks map[string]need   `json:"checks"`
	Rules  map[string]string `json:"journal-rules"` // profile of a file
}

// The profiles. All has what core has.
const (
	core = "core"
	all  = "all"
)

// readNeeds reads needs.yaml, which must have each check that a configuration names, and each file of journal rules.
func readNeeds(root string, conditions []condition) (*needs, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/needs.yaml"))
	if err != nil {
		return nil, err
	}
	n := new(needs)
	if err := yaml.UnmarshalStrict(text, n); err != nil {
		return nil, fmt.Errorf("needs.yaml: %w", err)
	}
	for _, c := range conditions {
		if p := n.Checks[c.Check].Profile; p != core && p != all {
			return nil, fmt.Errorf("needs.yaml: %s has no profile, core or all", c.Check)
		}
	}
	files, err := filepath.Glob(filepath.Join(root, "journal-rules/*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if p := n.Rules[name]; p != core && p != all {
			return nil, fmt.Errorf("needs.yaml: journal-rules/%s.json has no profile, core or all", name)
		}
	}
	if len(files) != len(n.Rules) {
		return nil, fmt.Errorf("needs.yaml has %d files of journal rules, journal-rules has %d", len(n.Rules), len(files))
	}
	return n, nil
}

// installed is where npdctl install puts everything, which is where the configurations name the checks.
const installed = "/opt/npd-plugins"

// plugins are the paths of the configurations that a profile has.
func (n *needs) plugins(conditions []condition, profile string) []string {
	var paths []string
	for _, c := range conditions {
		if profile == all || n.Checks[c.Check].Profile == profile {
			paths = append(paths, installed+"/config/"+c.Config+".json")
		}
	}
	slices.Sort(paths)
	return paths
}

// logs are the paths of the journal rules that a profile has.
func (n *needs) logs(profile string) []string {
	var paths []string
	for name, of := range n.Rules {
		if profile == all || of == profile {
			paths = append(paths, installed+"/journal-rules/"+name+".json")
		}
	}
	slices.Sort(paths)
	return paths
}

const (
	tableStart = "<!-- Made by go generate ./deploy/... from needs.yaml and config/. -->\n"
	tableEnd   = "<!-- End of what is made. -->\n"
)

// page is README.md with its table made anew.
func (n *needs) page(root string, conditions []condition) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/README.md"))
	if err != nil {
		return "", err
	}
	before, rest, start := strings.Cut(string(text), tableStart)
	_, after, end := strings.Cut(rest, tableEnd)
	if !start || !end {
		return "", fmt.Errorf("README.md has not both of the lines %q and %q", tableStart, tableEnd)
	}
	return before + tableStart + n.table(conditions) + tableEnd + after, nil
}

func (n *needs) table(conditions []condition) string {
	var b strings.Builder
	b.WriteString("\n| Check | Profile | Reads of the node | Without privileged | Without hostPID | Without hostNetwork |\n|---|---|---|---|---|---|\n")
	var told []string
	for _, c := range conditions {
		told = append(told, c.Check)
	}
	slices.Sort(told)
	for _, check := range slices.Compact(told) {
		need := n.Checks[check]
		reads := "`" + strings.Join(need.Paths, "` `") + "`"
		if need.Kubelet != "" {
			reads += ", kubelet"
		}
		fmt.Fprintf(&b, "| [%[1]s](../plugins/%[1]s/README.md) | %s | %s | %s | %s | %s |\n", check, need.Profile, reads,
			cmp.Or(need.Privileged, "–"), cmp.Or(need.HostPID, "–"), cmp.Or(need.HostNetwork, "–"))
	}
	b.WriteString("\n")
	return b.String()
}
