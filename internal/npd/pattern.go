package npd

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// ring holds the last lines.
type ring struct {
	lines  []string
	pushed int
	joined string // of all lines, oldest first; empty until asked for
}

func (r *ring) push(line string) {
	r.lines[r.pushed%len(r.lines)] = line
	r.pushed++
	r.joined = ""
}

func (r *ring) last() string { return r.lines[(r.pushed-1)%len(r.lines)] }

// join returns the lines, oldest first, with newlines between them. A ring that is not full yet starts with empty lines.
func (r *ring) join() string {
	if r.joined == "" {
		oldest := r.pushed % len(r.lines)
		r.joined = strings.Join(append(slices.Clone(r.lines[oldest:]), r.lines[:oldest]...), "\n")
	}
	return r.joined
}

// tail returns the lines that the last n bytes of join touch, oldest first, and no line that was never pushed.
func (r *ring) tail(n int) []string {
	var lines []string
	size := 0
	for i := r.pushed - 1; i >= 0 && i >= r.pushed-len(r.lines); i-- {
		line := r.lines[i%len(r.lines)]
		lines = append(lines, line)
		size += len(line) + 1
		if size >= n {
			break
		}
	}
	slices.Reverse(lines)
	return lines
}

// pattern is a rule's expression with \z behind it, as NPD compiles it.
type pattern struct {
	re *regexp.Regexp
	// lastLine says that a match can only lie in the last line, so that the lines need not be joined.
	lastLine bool
	// needs are lists of literals: every match holds at least one of each list. Looking for them first is many times
	// faster than the expression. Empty if nothing can be said.
	needs [][]string
}

func compilePattern(expr string) (*pattern, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(expr + `\z`)
	if err != nil {
		return nil, err
	}
	p := &pattern{re: re}
	tree, err := syntax.Parse(expr+`\z`, syntax.Perl)
	if err != nil {
		return p, nil
	}
	p.lastLine = Anchored(expr) && crossesLines(tree) == nil
	p.needs = needed(tree)
	return p, nil
}

// match returns the lines that the rule matches now, oldest first, or nil.
func (p *pattern) match(r *ring) []string {
	if p.lastLine {
		if line := r.last(); p.re.MatchString(line) {
			return []string{line}
		}
		return nil
	}
	text := r.join()
	if !p.mayMatch(text) {
		return nil
	}
	at := p.re.FindStringIndex(text)
	if at == nil {
		return nil
	}
	return r.tail(len(text) - at[0])
}

func (p *pattern) mayMatch(text string) bool {
	for _, some := range p.needs {
		if !slices.ContainsFunc(some, func(literal string) bool { return strings.Contains(text, literal) }) {
			return false
		}
	}
	return true
}

// Anchored says whether the \z that NPD puts behind expr binds all of it. Behind an alternation that is not grouped it binds
// the last branch only; the two trees are then not the same.
func Anchored(expr string) bool {
	bare, err := syntax.Parse(expr+`\z`, syntax.Perl)
	if err != nil {
		return false
	}
	grouped, err := syntax.Parse(`(?:`+expr+`)\z`, syntax.Perl)
	return err == nil && bare.Equal(grouped)
}

// CrossesLines returns the first part of expr that makes NPD search all buffered lines instead of the last one, or "".
func CrossesLines(expr string) string {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return ""
	}
	part := crossesLines(tree)
	switch {
	case part == nil:
		return ""
	case part.Op == syntax.OpBeginText:
		return "^" // String would say \A, which is rarely what was written
	}
	return part.String()
}

// crossesLines returns the first part of an expression that accepts a newline or looks at where the text or a line begins
// or ends, or nil. Without such a part and bound by \z, a match cannot reach over the newline before the last line and is the
// same in the last line alone.
func crossesLines(re *syntax.Regexp) *syntax.Regexp {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpBeginText, syntax.OpBeginLine, syntax.OpEndLine:
		return re
	case syntax.OpLiteral:
		if slices.Contains(re.Rune, '\n') {
			return re
		}
	case syntax.OpCharClass:
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i] <= '\n' && '\n' <= re.Rune[i+1] {
				return re
			}
		}
	}
	for _, sub := range re.Sub {
		if part := crossesLines(sub); part != nil {
			return part
		}
	}
	return nil
}

// needed returns lists of literals: every match of re holds at least one of each list.
func needed(re *syntax.Regexp) [][]string {
	switch re.Op {
	case syntax.OpLiteral:
		// The expression takes a byte that is no UTF-8 for U+FFFD, a search for the literal does not.
		if re.Flags&syntax.FoldCase == 0 && !slices.Contains(re.Rune, utf8.RuneError) {
			return [][]string{{string(re.Rune)}}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return needed(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return needed(re.Sub[0])
		}
	case syntax.OpConcat:
		var all [][]string
		for _, sub := range re.Sub {
			all = append(all, needed(sub)...)
		}
		return all
	case syntax.OpAlternate:
		var some []string
		for _, sub := range re.Sub {
			of := needed(sub)
			if len(of) == 0 {
				return nil
			}
			some = append(some, slices.MaxFunc(of, func(a, b []string) int { return shortest(a) - shortest(b) })...)
		}
		return [][]string{some}
	}
	return nil
}

// shortest is the length of the shortest literal: the longer it is, the rarer it is in lines that do not match.
func shortest(literals []string) int {
	return len(slices.MinFunc(literals, func(a, b string) int { return len(a) - len(b) }))
}
