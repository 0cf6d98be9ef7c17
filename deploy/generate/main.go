// Command generate makes the files of deploy/ that repeat what config/, journal-rules/ and deploy/conditions.yaml say.
package main

//go:generate go run .

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
)

// settings are what differs between clusters. The files of the repository have the defaults.
type settings struct {
	runbooks string // URL at which the repository can be read
	cluster  string // label that tells clusters apart in Prometheus
	pods     string // regular expression of the names of node-problem-detector's pods
	job      string // regular expression of its scrape jobs, where it is a service of the host; "" where it is in pods
}

// defaults are those of node-problem-detector's own DaemonSet and of the Helm chart.
var defaults = settings{runbooks: "npd-plugins", cluster: "cluster", pods: "(.+-)?node-problem-detector-.+"}

func main() {
	s := defaults
	root := flag.String("root", "../..", "`directory` of the repository")
	out := flag.String("out", "", "`directory` to write to (default deploy in that of the repository)")
	flag.StringVar(&s.runbooks, "runbooks", s.runbooks, "`URL` at which the repository can be read, for runbook_url of the alerts")
	flag.StringVar(&s.cluster, "cluster-label", s.cluster, "`label` that tells clusters apart")
	flag.StringVar(&s.pods, "detector-pods", s.pods, "regular `expression` of the names of node-problem-detector's pods")
	flag.StringVar(&s.job, "detector-job", s.job, "regular `expression` of the scrape jobs of node-problem-detector, where it is a service of the host; its series need the label node")
	flag.Parse()
	if *out == "" {
		*out = filepath.Join(*root, "deploy")
	}
	files, err := generate(*root, s)
	if err == nil {
		err = write(*out, files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// generate returns the content of each file, by its path below deploy.
func generate(root string, s settings) (map[string]string, error) {
	conditions, err := readConditions(root)
	if err != nil {
		return nil, err
	}
	reasons, err := readReasons(root)
	if err != nil {
		return nil, err
	}
	groups := s.groups(conditions, reasons)
	files := map[string]string{"monitoring/rules.yaml": rules(groups), "monitoring/prometheusrule.yaml": prometheusRule(groups)}
	for name, content := range map[string]func([]condition) (string, error){
		"monitoring/dashboard.json":             s.dashboard,
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
