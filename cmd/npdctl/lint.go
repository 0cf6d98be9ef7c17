package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"npd-plugins/internal/npd/lint"
)

const lintUsage = `npdctl lint [flags] FILE|DIR|-...

Finds what node-problem-detector ignores silently, dies of, or gets wrong in its configuration files, one by one and
together: give it all files that one NPD loads. It knows the files of the custom plugin, system log and system stats
monitors and of the Stackdriver exporter, whoever wrote them.

A FILE is JSON, or YAML with configurations as text under keys that end in .json: ConfigMaps, lists and streams of them,
Helm values with settings.custom_monitor_definitions. A DIR stands for the *.json, *.yaml and *.yml files right in it,
- for stdin. Render Helm templates first.

The rules of a log file NAME.json are tried on the samples in testdata/NAME.txt beside it, where there are some:
  # Reason [Reason...]   what the + lines that follow must fire
  + a message that fires these, and nothing else of the file
  - a message that fires no rule of the file, and of others with this identifier only one that it is a + sample of
  ; a comment

Each finding is one line: file:line:column: severity: what: what happens; mend: what to do [trap]
  fatal    NPD does not start, or dies
  error    the rule or monitor never works
  warning  it works, but not as the file looks
  note     it may be intended; shown only with --severity note

A --suppressions file lists findings that are accepted, one per line, each with its reason:
  kernel.json pattern-end blocked for more than # the kernel ends the line there
The first word is the file (* matches any part of its name), the second the trap. A text after that must be part of what
the finding shows. A line that matches no finding is a finding itself. SARIF keeps suppressed findings, marked as such.

Exit codes: 0 no findings, 1 findings, 2 a file cannot be read or holds no configuration of NPD, or a usage error.

Examples:
  npdctl lint config journal-rules
  kubectl get configmap -n kube-system node-problem-detector-config -o yaml | npdctl lint -
  npdctl lint -o sarif values.yaml > lint.sarif
`

func lintFiles(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("lint", lintUsage, stderr)
	root := flags.String("root", "", "`directory` below which the paths of plugins are looked up; they are not without it")
	traps := flags.Bool("traps", false, "list all traps and exit")
	output := flags.String("o", "text", "text, json, or sarif (2.1.0)")
	least := flags.String("severity", "warning", "least severity to report: "+strings.Join(lint.Severities, ", "))
	suppressions := flags.String("suppressions", "", "`file` with accepted findings")
	if code, done := parse(flags, args, stdout); done {
		return code
	}
	if *traps {
		listTraps(stdout)
		return exitFine
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "npdctl lint:", printable(err.Error()))
		return exitBroken
	}
	severity := slices.Index(lint.Severities, *least)
	switch {
	case severity < 0:
		return fail(fmt.Errorf("--severity %s: %s", *least, strings.Join(lint.Severities, ", ")))
	case !slices.Contains([]string{"text", "json", "sarif"}, *output):
		return fail(fmt.Errorf("-o %s: text, json or sarif", *output))
	case flags.NArg() == 0:
		return fail(errors.New("no files given"))
	}
	sources, err := lintSources(flags.Args())
	if err != nil {
		return fail(err)
	}
	findings := lint.Lint(sources, *root)
	if *suppressions != "" {
		if findings, err = suppress(findings, *suppressions); err != nil {
			return fail(err)
		}
	}
	findings = slices.DeleteFunc(findings, func(f lint.Finding) bool { return f.Trap.Severity > lint.Severity(severity) })
	if err := reportFindings(findings, *output, stdout); err != nil {
		return fail(err)
	}
	if slices.ContainsFunc(findings, func(f lint.Finding) bool { return f.Suppressed == "" }) {
		return exitProblem
	}
	return exitFine
}

// suppress reads the file of suppressions.
func suppress(findings []lint.Finding, path string) ([]lint.Finding, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	suppressions, err := lint.ParseSuppressions(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return lint.Suppress(findings, suppressions, path), nil
}

// stdinName is what stdin is called in findings.
const stdinName = "stdin"

// lintSources reads what is to be looked at. That nothing of a file, or of a directory, is a configuration is an error.
func lintSources(args []string) ([]lint.Source, error) {
	var all []lint.Source
	for _, arg := range args {
		found, err := lintArgument(arg)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%s holds no node-problem-detector configuration: neither JSON nor YAML with JSON text under a key that ends in .json", arg)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func lintArgument(arg string) ([]lint.Source, error) {
	if arg == "-" {
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, err
		}
		return lintSource(stdinName, data)
	}
	info, err := os.Stat(arg)
	if err != nil {
		return nil, err
	}
	paths := []string{arg}
	if info.IsDir() {
		entries, err := os.ReadDir(arg)
		if err != nil {
			return nil, err
		}
		paths = nil
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".json" || isYAML(ext)) {
				paths = append(paths, filepath.Join(arg, e.Name()))
			}
		}
	}
	var all []lint.Source
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		found, err := lintSource(path, data)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func isYAML(ext string) bool { return ext == ".yaml" || ext == ".yml" }

// lintSource returns the configurations in a file.
func lintSource(path string, data []byte) ([]lint.Source, error) {
	text := bytes.TrimLeft(data, " \t\r\n")
	unnamed := path == stdinName && !bytes.HasPrefix(text, []byte("{")) && !bytes.HasPrefix(text, []byte("["))
	if isYAML(filepath.Ext(path)) || unnamed || isObject(data) {
		return lint.FromYAML(path, data)
	}
	return []lint.Source{{Path: path, Data: data, Samples: samplesOf(path)}}, nil
}

// isObject says whether JSON, which is YAML too, is an object of Kubernetes.
func isObject(data []byte) bool {
	var object struct{ APIVersion, Kind string }
	return json.Unmarshal(data, &object) == nil && object.APIVersion != "" && object.Kind != ""
}

// jsonFinding is a finding as -o json prints it.
type jsonFinding struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"` // in characters
	Severity string `json:"severity"`
	Trap     string `json:"trap"`
	Detail   string `json:"detail"`
	Happens  string `json:"happens"`
	Mend     string `json:"mend"`
}

// reportFindings prints them; only SARIF has those that are suppressed.
func reportFindings(findings []lint.Finding, output string, stdout io.Writer) error {
	if output == "sarif" {
		return lint.WriteSARIF(stdout, findings, version)
	}
	all := []jsonFinding{}
	for _, f := range findings {
		switch {
		case f.Suppressed != "":
		case output == "json":
			all = append(all, jsonFinding{f.Path, f.Line, f.Column, f.Trap.Severity.String(), f.Trap.ID, f.Detail, f.Trap.Happens, f.Trap.Mend})
		default:
			fmt.Fprintln(stdout, printable(f.String()))
		}
	}
	if output != "json" {
		return nil
	}
	out := json.NewEncoder(stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(map[string][]jsonFinding{"findings": all})
}

// samplesOf returns the samples of a rule file, testdata/NAME.txt beside NAME.json. Where other files have some and this one has
// none, they are empty. They are nil where there are none at all.
func samplesOf(path string) *lint.Samples {
	dir := filepath.Join(filepath.Dir(path), "testdata")
	name := filepath.Join(dir, strings.TrimSuffix(filepath.Base(path), ".json")+".txt")
	data, err := os.ReadFile(name)
	if err != nil {
		if any, _ := fs.Glob(os.DirFS(dir), "*.txt"); len(any) == 0 {
			return nil
		}
	}
	return &lint.Samples{Path: name, Data: data}
}

func listTraps(stdout io.Writer) {
	table := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	for _, t := range lint.Traps {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", t.ID, t.Severity, t.Happens, t.Mend)
	}
	table.Flush()
}
