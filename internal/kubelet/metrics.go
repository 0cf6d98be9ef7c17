package kubelet

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// maxLine is the longest line of a page in bytes that is read. kubelet's
// longest, of a container's logs, have some 500.
const maxLine = 64 << 10

// Sample is one line of a page in the Prometheus text format.
type Sample struct {
	Name   string
	Labels map[string]string // nil without labels
	Value  float64           // finite
}

// Read reads a page in the Prometheus text format, version 0.0.4, and calls
// each for the lines that have one of the names; an error of each ends it. All
// other lines cost no more than being found. It holds one line at a time.
func Read(page io.Reader, names []string, each func(Sample) error) error {
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	l := lines{r: bufio.NewReaderSize(page, maxLine)}
	for {
		line, err := l.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		end := bytes.IndexAny(line, "{ \t\n")
		if end < 0 {
			end = len(line)
		}
		if wanted[string(line[:end])] {
			if bad := l.tell(string(line[:end]), string(line[end:]), each); bad != nil {
				return fmt.Errorf("%s: %w", line[:end], bad)
			}
		}
		if err != nil {
			return nil
		}
	}
}

// lines reads a page line by line.
type lines struct {
	r      *bufio.Reader
	length int  // of what was read
	cut    bool // the last line is longer than what next returned of it
}

// next returns the next line, or the first maxLine bytes of it, and io.EOF with
// the last.
func (l *lines) next() (line []byte, err error) {
	for skip := true; skip; {
		skip = l.cut
		line, err = l.r.ReadSlice('\n')
		if l.length += len(line); l.length > maxPage {
			return nil, fmt.Errorf("the page is longer than %d MiB", maxPage>>20)
		}
		if l.cut = errors.Is(err, bufio.ErrBufferFull); l.cut {
			err = nil
		}
		if skip && err != nil {
			return nil, err
		}
	}
	return line, err
}

func (l *lines) tell(name, rest string, each func(Sample) error) error {
	if l.cut {
		return fmt.Errorf("a line is longer than %d KiB", maxLine>>10)
	}
	s, err := parse(name, rest)
	if err != nil {
		return err
	}
	return each(s)
}

// parse reads what follows the name: labels in braces, the value, and perhaps
// a time in milliseconds.
func parse(name, rest string) (Sample, error) {
	s := Sample{Name: name}
	var err error
	if strings.HasPrefix(rest, "{") {
		if s.Labels, rest, err = labels(rest[1:]); err != nil {
			return s, err
		}
	}
	fields := strings.Fields(rest)
	if len(fields) < 1 || len(fields) > 2 {
		return s, errors.New("no value in the line")
	}
	if s.Value, err = strconv.ParseFloat(fields[0], 64); err != nil || math.IsInf(s.Value, 0) || math.IsNaN(s.Value) {
		return s, fmt.Errorf("value %.20q is no number", fields[0])
	}
	return s, nil
}

// labels reads a="b",c="d"} and returns what follows.
func labels(s string) (map[string]string, string, error) {
	found := map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t,")
		if rest, ok := strings.CutPrefix(s, "}"); ok {
			return found, rest, nil
		}
		name, rest, ok := strings.Cut(s, "=")
		rest = strings.TrimLeft(rest, " \t")
		if !ok || !strings.HasPrefix(rest, `"`) {
			return nil, "", errors.New("broken labels")
		}
		value, after, err := quoted(rest[1:])
		if err != nil {
			return nil, "", err
		}
		found[strings.TrimSpace(name)] = value
		s = after
	}
}

// quoted reads to the closing quote and returns what follows that. The format
// has three escapes: \\, \" and \n.
func quoted(s string) (value, rest string, err error) {
	if end := strings.IndexAny(s, `"\`); end >= 0 && s[end] == '"' {
		return s[:end], s[end+1:], nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			if s[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a label without end")
}

// BuildInfo is the series whose labels have kubelet's version
// (k8s.io/component-base/metrics/version.go, 1.14 and later).
const BuildInfo = "kubernetes_build_info"

// SinceMinor says whether a sample of BuildInfo is of Kubernetes 1.minor or
// later. Builds of vendors have more behind that: v1.37.2-gke.100, v1.37.2+k3s1.
func SinceMinor(s Sample, minor int) bool {
	var major, found int
	if _, err := fmt.Sscanf(s.Labels["git_version"], "v%d.%d.", &major, &found); err != nil {
		return false
	}
	return major > 1 || major == 1 && found >= minor
}
