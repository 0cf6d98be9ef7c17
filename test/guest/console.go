package guest

import (
	"regexp"
	"strings"
)

// Result is the outcome of one test in the guest.
type Result struct {
	Name    string
	Verdict string // PASS, FAIL or SKIP
	Output  string
}

var (
	testBegins = regexp.MustCompile(`^=== RUN +(\w+)$`)
	testEnds   = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\w+) \(`)
)

// ParseConsole reads the tests' outcomes from what a guest printed, in the format of "go test -v". passed is whether
// the guest reached the end of its tests and said that none had failed, rest what it printed outside of tests.
func ParseConsole(console string) (results []Result, passed bool, rest string) {
	var current Result
	for line := range strings.Lines(console) {
		line = strings.TrimRight(line, "\r\n")
		if m := testBegins.FindStringSubmatch(line); m != nil {
			current = Result{Name: m[1], Verdict: "FAIL"}
			continue
		}
		if m := testEnds.FindStringSubmatch(line); m != nil && m[2] == current.Name {
			current.Verdict = m[1]
			results = append(results, current)
			current = Result{}
			continue
		}
		if current.Name != "" {
			current.Output += line + "\n"
			continue
		}
		rest += line + "\n"
		passed = passed || strings.HasSuffix(line, "tests ended with exit code 0")
	}
	if current.Name != "" { // the guest died in it
		results = append(results, current)
	}
	return results, passed, rest
}
