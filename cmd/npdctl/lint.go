package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"npd-plugins/internal/npd/lint"
)

const lintUsage = `npdctl lint [--root DIR] FILE|DIR...

Finds what node-problem-detector ignores silently, dies of, or gets wrong in its configuration files, one by one and
together: give it all files that one NPD loads. Custom plugin and system log files of any origin; those of system stats
and exporters have no known traps. A directory stands for the *.json files right in it.

The rules of a log file NAME.json are tried on the samples in testdata/NAME.txt beside it, where there are some:
  # Reason [Reason...]   what the + lines that follow must fire
  + a message that fires these, and nothing else of the file
  - a message that fires no rule of any file with this identifier
  ; a comment

Each finding is one line: file:line:column: severity: what: what happens; mend: what to do [trap]
  error    NPD does not start, or the rule or monitor never works
  warning  it works, but not as the file looks

Exit codes: 0 no findings, 1 findings, 2 a file cannot be read or a usage error.

Example: npdctl lint config journal-rules
`

func lintFiles(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("lint", lintUsage, stderr)
	root := flags.String("root", "", "directory below which the paths of plugins are looked up; they are not without it")
	traps := flags.Bool("traps", false, "list all traps and exit")
	if code, done := parse(flags, args, stdout); done {
		return code
	}
	if *traps {
		listTraps(stdout)
		return exitFine
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(stderr, "npdctl lint: no files given")
		return exitBroken
	}
	paths, err := configFiles(flags.Args())
	if err == nil && len(paths) == 0 {
		err = fmt.Errorf("no *.json in %s", strings.Join(flags.Args(), " "))
	}
	if err != nil {
		fmt.Fprintln(stderr, "npdctl lint:", err)
		return exitBroken
	}
	var sources []lint.Source
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(stderr, "npdctl lint:", err)
			return exitBroken
		}
		sources = append(sources, lint.Source{Path: path, Data: data, Samples: samplesOf(path)})
	}
	findings := lint.Lint(sources, *root)
	for _, f := range findings {
		fmt.Fprintln(stdout, printable(f.String()))
	}
	if len(findings) > 0 {
		return exitProblem
	}
	return exitFine
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
