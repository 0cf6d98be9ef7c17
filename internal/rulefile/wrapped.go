package rulefile

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
)

// logRule is a rule of a system log file with its keys in their order.
type logRule struct {
	Type      string `json:"type"`
	Condition string `json:"condition,omitempty"`
	Reason    string `json:"reason"`
	Pattern   string `json:"pattern"`
	Suffix    string `json:"patternGeneratedMessageSuffix,omitempty"`
}

// ForWrapped returns a journald file for lines that a supervisor has made the msg= of its own (k0s): with quotes and
// backslashes escaped, and the component that wrote them behind. Each pattern matches the wrapped line where it
// matched the line itself; of other components it matches none.
func ForWrapped(rules []byte, component string) ([]byte, error) {
	f, err := parse(rules)
	if err != nil {
		return nil, err
	}
	var all []logRule
	if err := strict(f.Rules, &all); err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Pattern, err = wrapped(all[i].Pattern, component); err != nil {
			return nil, fmt.Errorf("%s: %w", all[i].Reason, err)
		}
	}
	if f.Rules, err = format(all); err != nil {
		return nil, err
	}
	return f.format()
}

// wrapped is the pattern for what strconv.Quote makes of the lines that a pattern matches. Of a line longer than 16 KiB k0s
// makes chunks.
func wrapped(pattern, component string) (string, error) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "", err
	}
	quoted := strings.ReplaceAll(quote(tree).String(), "(?-s:", "(?:") // . is no newline where nothing says so
	// Not .* at the end: whoever gets a text into a line could choose the component.
	return `(?:` + quoted + `)"(?: chunk=\d+)? component=` + component + ` stream=std(?:err|out)`, nil
}

// quote replaces each quote and backslash that an expression matches by what escapes it. A string is quoted byte for byte, so what
// is made of the parts matches what is made of the whole.
func quote(re *syntax.Regexp) *syntax.Regexp {
	switch re.Op {
	case syntax.OpLiteral:
		var escaped []rune
		for _, r := range re.Rune {
			if r == '"' || r == '\\' {
				escaped = append(escaped, '\\')
			}
			escaped = append(escaped, r)
		}
		re.Rune = escaped
	case syntax.OpCharClass:
		return quoteClass(re)
	case syntax.OpStar, syntax.OpPlus:
		if re.Sub[0].Op == syntax.OpAnyCharNotNL || re.Sub[0].Op == syntax.OpAnyChar {
			return re // any run of characters is one when it is quoted, too
		}
	case syntax.OpAnyCharNotNL, syntax.OpAnyChar:
		return alternate(re, escapedOne('"'), escapedOne('\\'))
	}
	for i := range re.Sub {
		re.Sub[i] = quote(re.Sub[i])
	}
	return re
}

// quoteClass is a class without quote and backslash, or one of these escaped.
func quoteClass(re *syntax.Regexp) *syntax.Regexp {
	var rest []rune
	var escaped []*syntax.Regexp
	for i := 0; i < len(re.Rune); i += 2 {
		lo, hi := re.Rune[i], re.Rune[i+1]
		for _, r := range []rune{'"', '\\'} {
			if lo <= r && r <= hi {
				escaped = append(escaped, escapedOne(r))
				if lo < r {
					rest = append(rest, lo, r-1)
				}
				lo = r + 1
			}
		}
		if lo <= hi {
			rest = append(rest, lo, hi)
		}
	}
	if escaped == nil {
		return re
	}
	if rest == nil {
		return alternate(escaped...)
	}
	return alternate(append([]*syntax.Regexp{{Op: syntax.OpCharClass, Rune: rest, Flags: re.Flags}}, escaped...)...)
}

func alternate(parts ...*syntax.Regexp) *syntax.Regexp {
	return &syntax.Regexp{Op: syntax.OpAlternate, Sub: slices.Clone(parts), Flags: syntax.Perl}
}

func escapedOne(r rune) *syntax.Regexp {
	return &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{'\\', r}, Flags: syntax.Perl}
}
