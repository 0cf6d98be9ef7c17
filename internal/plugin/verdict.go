package plugin

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"npd-plugins/internal/host"
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
	// Suspicion is what this look saw of which only the next one can tell whether
	// it is a Problem, "" for nothing. Where nothing can be kept until then, the
	// driver makes the verdict Unknown.
	Suspicion string
	// Measurements are the numbers behind the verdict.
	Measurements []Measurement
	// Details are logged on stderr when a Problem begins, a line each.
	Details []string
	// Looked is for an Unknown of a look that did not fail: what it asks about
	// is gone, or is something else. The driver keeps the last verdict for a look
	// that failed, and never for this one.
	Looked bool
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
// missing, and which mount or flag mends it. An error among the arguments may
// say that the look did not fail but saw that something is not there
// (host.ErrGone), that nobody listens, or that the server is another: then it is
// Undecidedf's.
func Unknownf(format string, args ...any) Verdict {
	v := Verdict{Status: Unknown, Message: fmt.Sprintf(format, args...)}
	for _, arg := range args {
		err, _ := arg.(error)
		for _, seen := range []error{host.ErrGone, syscall.ECONNREFUSED, errors.ErrUnsupported} {
			v.Looked = v.Looked || errors.Is(err, seen)
		}
	}
	return v
}

// Undecidedf is the verdict of a look that did not fail and still tells neither
// OK nor Problem: what it asks about is gone, or is something else. No earlier
// verdict stands in for it.
func Undecidedf(format string, args ...any) Verdict {
	return Verdict{Status: Unknown, Message: fmt.Sprintf(format, args...), Looked: true}
}

// unkept is the verdict where nothing can be kept until the next look: what
// has to be seen twice never is, and is not OK for that.
func (v Verdict) unkept(why error) Verdict {
	if v.Suspicion == "" {
		return v
	}
	u := Unknownf("%s; whether it lasts is not known: nothing can be kept in --state-dir: %v", v.Suspicion, why)
	u.Measurements = v.Measurements
	return u
}

// Count writes a number of things: "1 task", "2 tasks", "0 processes".
func Count(n int, thing string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(thing, "s"), strings.HasSuffix(thing, "x"):
		thing += "es"
	case strings.HasSuffix(thing, "y"):
		thing = strings.TrimSuffix(thing, "y") + "ies"
	default:
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
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
