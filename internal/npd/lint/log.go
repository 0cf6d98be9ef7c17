package lint

import (
	"regexp"
	"regexp/syntax"
	"slices"

	"npd-plugins/internal/npd"
)

// maxAllocated is more lines than any machine has memory for: 24 TB of pointers and texts.
const maxAllocated = 1_000_000_000_000 - 1

func (f *file) logHead(config *value, plugin string) {
	switch size := f.top.get("bufferSize"); {
	case size == nil || size.kind != '0':
	case whole(size) < 0 || whole(size) > maxAllocated:
		f.report("buffer-size", size.offset, "bufferSize %s", size.text)
	case whole(size) > npd.MaxBufferSize:
		f.report("buffer-large", size.offset, "bufferSize %s", size.text)
	}
	if skip := f.top.get("skipList"); skip != nil && plugin != "filelog" {
		f.report("skip-list", skip.keyAt, "skipList with plugin %q", plugin)
	}
	path := f.top.get("logPath")
	switch plugin {
	case "journald":
		if source := config.exact("source"); source.str() == "" || config == f.top {
			f.report("journald-source", at(source, config), "no source in pluginConfig")
		}
		if path.str() == "" {
			f.report("journald-path", at(path, f.top), "no logPath")
		}
	case "filelog":
		f.filelog(config)
		if path.str() == "" {
			f.report("filelog-path", at(path, f.top), "no logPath")
		}
	}
}

func (f *file) filelog(config *value) {
	for _, key := range []string{"timestamp", "message", "timestampFormat"} {
		v := config.exact(key)
		if v.str() == "" {
			f.report("filelog-config", at(v, config), "no %s", key)
			continue
		}
		if _, err := regexp.Compile(v.text); err != nil && key != "timestampFormat" {
			f.report("filelog-regexp", v.offset, "%v", err)
		}
	}
}

func (f *file) logRule(r *value) {
	if kind := r.get("type"); movesCondition(r) {
		f.report("log-permanent", at(kind, r), "a permanent log rule")
	}
	pattern := r.get("pattern")
	if pattern.str() == "" {
		f.report("pattern-empty", at(pattern, r), "no pattern")
		return
	}
	tree, err := syntax.Parse(pattern.text, syntax.Perl)
	if err == nil {
		_, err = regexp.Compile(pattern.text + `\z`)
	}
	if err != nil {
		f.report("pattern-invalid", pattern.offset, "%v", err)
		return
	}
	if !npd.Anchored(pattern.text) {
		f.report("pattern-alternation", pattern.offset, "%s", pattern.text)
		return
	}
	if !reachesEnd(tree) {
		f.report("pattern-end", pattern.offset, "%s", pattern.text)
	}
	if part := npd.CrossesLines(pattern.text); part != "" {
		f.report("pattern-slow", pattern.offset, "%s accepts a newline or asks where a line begins", part)
	}
}

// reachesEnd says whether each way through an expression ends with what takes the rest of the line, or says that the end is
// meant.
func reachesEnd(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus:
		return spansWords(re.Sub[0])
	case syntax.OpEndText, syntax.OpEndLine:
		return true
	case syntax.OpCapture, syntax.OpConcat, syntax.OpQuest: // with a tail that may be missing, somebody thought about the end
		return reachesEnd(re.Sub[len(re.Sub)-1])
	case syntax.OpAlternate:
		return !slices.ContainsFunc(re.Sub, func(branch *syntax.Regexp) bool { return !reachesEnd(branch) })
	}
	return false
}

// spansWords says whether a part takes blanks: .* does and [^,\n]* does, \S* and \w* do not.
func spansWords(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return true
	case syntax.OpCharClass:
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i] <= ' ' && ' ' <= re.Rune[i+1] {
				return true
			}
		}
	}
	return false
}
