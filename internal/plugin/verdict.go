package plugin

import (
	"fmt"
	"strings"
)

// Status is what a look at the host came to. Its number is the exit code that
// node-problem-detector expects of a custom plugin.
type Status int

const (
	OK      Status = 0 // looked, and nothing is wrong
	Problem Status = 1 // seen to be wrong
	Unknown Status = 2 // could not look
)

func (s Status) String() string {
	switch s {
	case OK:
		return "OK"
	case Problem:
		return "Problem"
	default:
		return "Unknown"
	}
}

// Verdict is what a check says of the host.
type Verdict struct {
	Status Status
	// Message is one line: the fact in the first 80 bytes, then the culprit and
	// the next step. The driver makes it safe and cuts it at MaxMessage bytes.
	Message string
	// Measurements are the numbers behind the verdict.
	Measurements []Measurement
	// Details are logged on stderr when a Problem begins, a line each.
	Details []string
}

// Measurement is one number behind a verdict.
type Measurement struct {
	Name  string  `json:"name"`  // in snake_case
	Value float64 `json:"value"` // in Unit
	Limit float64 `json:"limit"` // where the node fails, in Unit; 0 when there is no such limit
	Unit  string  `json:"unit"`  // "bytes", "seconds", or what is counted
	// Forecast asks for "full in about ..." when the value grows toward its limit.
	Forecast bool `json:"-"`
}

// Unknownf is the verdict of a look that failed. The message says what is
// missing, and which mount or flag mends it.
func Unknownf(format string, args ...any) Verdict {
	return Verdict{Status: Unknown, Message: fmt.Sprintf(format, args...)}
}

// MaxMessage is the longest message in bytes. node-problem-detector cuts at
// max_output_length, which is 256 in all configs of the suite.
const MaxMessage = 256

// Safe makes a name that others chose (comm, label, path, an error of a
// server) fit for a message: printable ASCII without "%" (which
// node-problem-detector takes for a printf verb), at most max bytes.
func Safe(s string, max int) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() == max {
			cut := b.String()
			return cut[:max-2] + ".."
		}
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		case r < ' ' || r > '~' || r == '%':
			b.WriteByte('?')
		default:
			b.WriteByte(byte(r))
		}
	}
	return b.String()
}
