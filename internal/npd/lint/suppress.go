package lint

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Suppression is a finding that was looked at and is as it should be.
type Suppression struct {
	Line int    // in its file, from 1
	File string // pattern of path.Match for the path of the finding or its last part
	Trap string
	Text string // part of the finding's detail; "" for any
	Why  string
}

// ParseSuppressions reads a file of suppressions, one a line:
//
//	kernel.json  pattern-end  blocked for more than  # the kernel ends the line there
//
// the file, where * stands for any part of its name, the trap, if need be a part of what the finding shows, and behind " # " why.
// Blank lines and lines that begin with # mean nothing.
func ParseSuppressions(data []byte) ([]Suppression, error) {
	var all []Suppression
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rule, why, explained := strings.Cut(line, " # ")
		fields := strings.Fields(rule)
		if !explained || len(fields) < 2 {
			return nil, fmt.Errorf("line %d: not FILE TRAP [TEXT] # WHY", number)
		}
		_, rest, _ := strings.Cut(rule, fields[0])
		_, text, _ := strings.Cut(rest, fields[1])
		s := Suppression{number, fields[0], fields[1], strings.TrimSpace(text), strings.TrimSpace(why)}
		if _, err := path.Match(s.File, ""); err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", number, s.File, err)
		}
		if !slices.ContainsFunc(Traps, func(t Trap) bool { return t.ID == s.Trap }) {
			return nil, fmt.Errorf("line %d: no trap %q", number, s.Trap)
		}
		all = append(all, s)
	}
	return all, nil
}

// covers says whether a finding is the one that was looked at.
func (s *Suppression) covers(f Finding) bool {
	whole, _ := path.Match(s.File, filepath.ToSlash(f.Path))
	last, _ := path.Match(s.File, filepath.Base(f.Path))
	return (whole || last) && s.Trap == f.Trap.ID && strings.Contains(f.Detail, s.Text)
}

// Suppress tells each finding that was looked at why it is as it should be. A suppression that covers none is a finding itself, in the
// file at path.
func Suppress(findings []Finding, suppressions []Suppression, path string) []Finding {
	used := make([]bool, len(suppressions))
	for i := range findings {
		for j := range suppressions {
			if s := &suppressions[j]; s.covers(findings[i]) {
				findings[i].Suppressed, used[j] = s.Why, true
			}
		}
	}
	for j, s := range suppressions {
		if !used[j] {
			findings = append(findings, Finding{Path: path, Line: s.Line, Column: 1, Trap: trap("suppression-unused"), Detail: fmt.Sprintf("%s %s %s", s.File, s.Trap, s.Text)})
		}
	}
	return findings
}
