package npd

import (
	"fmt"
	"slices"
	"strings"
)

// Sample is a line that a rule file is tried on.
type Sample struct {
	Line    int      // its number in the file of samples, from 1
	Text    string   // the message as NPD sees it
	Reasons []string // of the rules that must fire on it, sorted; none for a look-alike, on which no rule may fire
}

// SampleError is a line of a file of samples that cannot be understood.
type SampleError struct {
	Line int // from 1
	Text string
}

func (e *SampleError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// ParseSamples reads a file of samples, which stands in testdata/NAME.txt beside the rule file NAME.json:
//
//	# KubeletPLEGUnhealthy                      the reason that the following lines must fire
//	# KubeletNodeNotReady KubeletRuntimeDown    or several, where one line tells of more than one thing
//	+ a line that fires each of these reasons once, and no other rule of the file
//	- a line that looks like them and fires no rule of the file at all
//	; a comment
//
// Blank lines mean nothing. An error is a *SampleError; what comes before it is returned with it.
func ParseSamples(data []byte) ([]Sample, error) {
	var samples []Sample
	var reasons []string
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case "", ";":
		case "#":
			reasons = strings.Fields(rest)
			slices.Sort(reasons)
		case "+":
			if len(reasons) == 0 {
				return samples, &SampleError{number, "a + line without a reason"}
			}
			samples = append(samples, Sample{number, rest, reasons})
		case "-":
			samples = append(samples, Sample{number, rest, nil})
		default:
			return samples, &SampleError{number, "a line starts with #, +, - or ;"}
		}
	}
	return samples, nil
}
