// npdctl tries out node-problem-detector configurations without node-problem-detector: it runs them on this machine as
// NPD would, and finds the traps in them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// version is set with -ldflags "-X main.version=...".
var version = "devel"

const usage = `npdctl tries out node-problem-detector configurations on this machine.

  npdctl run   evaluate configurations as NPD would, print the conditions
  npdctl lint  find what NPD ignores silently, dies of, or gets wrong in a file
  npdctl version

"npdctl run --help" and "npdctl lint --help" say more.
`

// Exit codes. A usage error is 2 as well.
const (
	exitFine    = 0
	exitProblem = 1 // run: a condition is True; lint: there are findings
	exitBroken  = 2 // run: a condition is Unknown, or something cannot be evaluated; lint: a file cannot be read
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
	fmt.Fprintf(stderr, "npdctl: no command %q; there are run, lint and version\n", command)
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

// parse reads the flags. With done, there is nothing left to do but exit with code.
func parse(flags *flag.FlagSet, args []string, stdout io.Writer) (code int, done bool) {
	for _, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "-h" || strings.TrimLeft(arg, "-") == "help" {
			flags.SetOutput(stdout)
		}
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitFine, true
	case err != nil:
		return exitBroken, true
	}
	return 0, false
}
