// npdctl tries out node-problem-detector configurations without node-problem-detector: it runs them on this machine as
// NPD would, runs log rules over the past, and finds the traps in them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// version is set with -ldflags "-X main.version=...".
var version = "devel"

const usage = `npdctl tries out node-problem-detector configurations on this machine.

  npdctl run      evaluate configurations as NPD would, print the conditions
  npdctl lint     find what NPD ignores silently, dies of, or gets wrong in a file
  npdctl replay   run log rules over past logs, print which would have fired how often
  npdctl install  copy checks, configurations and journal rules into a directory
  npdctl cleanup  remove the conditions from nodes after uninstalling
  npdctl version

"npdctl COMMAND --help" says more.
`

// Exit codes. A usage error is 2 as well.
const (
	exitFine    = 0
	exitProblem = 1 // run: a condition is True; lint: there are findings; replay: a rule matched
	exitBroken  = 2 // run: a condition is Unknown, or something cannot be evaluated; lint, replay: a file cannot be read
)

func main() { os.Exit(npdctl(os.Args[1:], os.Stdout, os.Stderr)) }

func npdctl(args []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "run":
		return run(args, stdout, stderr)
	case "lint":
		return lintFiles(args, stdout, stderr)
	case "replay":
		return replay(args, stdout, stderr)
	case "install":
		return install(args, stdout, stderr)
	case "cleanup":
		return cleanup(args, stdout, stderr)
	case "version", "--version", "-version":
		fmt.Fprintln(stdout, "npdctl", version)
		return exitFine
	case "help", "--help", "-help", "-h":
		fmt.Fprint(stdout, usage)
		return exitFine
	case "":
		fmt.Fprint(stderr, usage)
		return exitBroken
	}
	fmt.Fprintf(stderr, "npdctl: no command %q; there are run, lint, replay, install, cleanup and version\n", command)
	return exitBroken
}

// newFlags returns a flag set whose help is text and then the flags.
func newFlags(name, text string, stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet("npdctl "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), text, "\nFlags:\n")
		flags.PrintDefaults()
	}
	return flags
}

// parse reads the flags. With done, there is nothing left to do but exit with code. An error is told with one line of hint: the
// whole help would push it off the screen.
func parse(flags *flag.FlagSet, args []string, stdout io.Writer) (code int, done bool) {
	stderr, help := flags.Output(), flags.Usage
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	flags.Usage = help
	flags.SetOutput(stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		help()
		return exitFine, true
	case err != nil:
		fmt.Fprintf(stderr, "%s: %s\n%q lists the flags.\n", flags.Name(), printable(err.Error()), flags.Name()+" --help")
		return exitBroken, true
	}
	return 0, false
}

// shipped returns what comes with npdctl: the directory of that name beside that of the executable, or here where there is none,
// as in a checkout.
func shipped(name string) string {
	if self, err := os.Executable(); err == nil {
		if dir := filepath.Join(filepath.Dir(self), "..", name); isDir(dir) {
			return dir
		}
	}
	return name
}

// configFiles returns the files among paths, and the *.json files right in the directories among them: folders
// within hold other choices, such as the same rules for hosts without journald.
func configFiles(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return nil, err
		case !info.IsDir():
			files = append(files, path)
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if !e.IsDir() && filepath.Ext(e.Name()) == ".json" {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
	}
	return files, nil
}
