// Package lint finds what node-problem-detector ignores silently, dies of, or gets wrong in its configuration files.
package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"npd-plugins/internal/npd"
)

// Source is a file to look at.
type Source struct {
	Path    string
	Data    []byte
	Samples *Samples // nil if there are none to try the rules on

	outer   []byte // the file, if Data is a text in it
	offsets []int  // in outer, of each byte of Data and of its end

	found []Finding // of the file that others stand in; there is no Data then
}

// Finding is a trap that a file steps into.
type Finding struct {
	Path   string
	Line   int // from 1
	Column int // from 1, in characters
	Trap   *Trap
	Detail string // the value or key at the position

	Suppressed string // why it is as it should be; "" for a finding that was not looked at
}

func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s: %s; mend: %s [%s]", f.Path, f.Line, f.Column, f.Trap.Severity, f.Detail, f.Trap.Happens, f.Trap.Mend, f.Trap.ID)
}

// Lint looks at files one by one and at what they do to each other, and returns the findings in the order of files and
// positions. Log rules are tried on the samples of their file. With a root, the paths of plugins are looked up below it.
func Lint(sources []Source, root string) []Finding {
	var files []*file
	for _, s := range sources {
		f := &file{Source: s, root: root}
		f.look()
		files = append(files, f)
	}
	lookTogether(files)
	trySamples(files)
	var all []Finding
	for _, f := range files {
		slices.SortStableFunc(f.findings, func(a, b Finding) int {
			return cmp.Or(cmp.Compare(own(f, b), own(f, a)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		all = append(all, f.findings...)
	}
	return all
}

// own is 1 for a finding in the file itself, 0 for one in its samples.
func own(f *file, found Finding) int {
	if found.Path == f.Path {
		return 1
	}
	return 0
}

// file is one source while it is looked at.
type file struct {
	Source
	root       string
	shape      *shape
	custom     bool
	top        *value
	conditions []*value // the declared ones
	rules      []*value
	findings   []Finding
}

func (f *file) report(id string, offset int, detail string, args ...any) {
	line, column := f.position(offset)
	f.findings = append(f.findings, Finding{Path: f.Path, Line: line, Column: column, Trap: trap(id), Detail: fmt.Sprintf(detail, args...)})
}

func (f *file) line(offset int) int {
	line, _ := f.position(offset)
	return line
}

// position is the line and the column in characters, both from 1, of an offset in the data.
func (f *file) position(offset int) (line, column int) {
	data := f.Data
	if f.outer != nil {
		data, offset = f.outer, f.offsets[offset]
	}
	before := data[:offset]
	return 1 + bytes.Count(before, []byte{'\n'}), 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
}

// look finds what can be seen in this file alone.
func (f *file) look() {
	if f.found != nil {
		f.findings = slices.Clone(f.found)
		return
	}
	top, broken := parse(f.Data)
	if broken != nil {
		f.report("json", min(broken.offset, len(f.Data)), "%s", broken.text)
		return
	}
	if isModules(top) {
		return
	}
	if top.kind != '{' {
		f.report("wrong-type", top.offset, "the file is not an object")
		return
	}
	f.top = top
	switch {
	case hasNone(top, "plugin", "rules") && !hasNone(top, statsKeys...):
		f.shape = statsShape
		f.fits(top, f.shape, "the file")
		f.stats()
		return
	case hasNone(top, "plugin", "rules") && !hasNone(top, stackdriverKeys...):
		f.stackdriver()
		return
	}
	plugin := top.get("plugin").str()
	f.custom = isCustom(top, plugin)
	f.shape = logShape(plugin)
	if f.custom {
		f.shape = customShape
	}
	f.fits(top, f.shape, "the file")
	f.conditions = objects(top.get("conditions"))
	f.rules = objects(top.get("rules"))
	f.head(plugin)
	for _, c := range f.conditions {
		f.condition(c)
	}
	f.conditionsTwice()
	for _, r := range top.get("rules").list() {
		switch {
		case r.kind == 'n' && f.custom:
			f.report("rule-null", r.offset, "null")
		case r.kind == 'n':
			f.report("rule-empty", r.offset, "null")
		}
	}
	for _, r := range f.rules {
		f.rule(r)
	}
	f.conditionsUsed()
}

// isModules says whether a document is the list of kernel modules that system stats files refer to.
func isModules(top *value) bool {
	return len(top.list()) > 0 && !slices.ContainsFunc(top.members, func(m *value) bool { return m.get("moduleName") == nil })
}

// hasNone says whether an object has none of the keys.
func hasNone(object *value, keys ...string) bool {
	return !slices.ContainsFunc(object.members, func(m *value) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return strings.EqualFold(m.key, key) })
	})
}

// isCustom decides whom a file is for; without a plugin that NPD knows, by what its rules have.
func isCustom(top *value, plugin string) bool {
	if plugin == "custom" || slices.Contains(npd.LogPlugins, plugin) {
		return plugin == "custom"
	}
	return slices.ContainsFunc(top.get("rules").list(), func(r *value) bool { return r.get("path") != nil })
}

func objects(v *value) []*value {
	return slices.DeleteFunc(slices.Clone(v.list()), func(m *value) bool { return m.kind != '{' })
}

// at is the offset of what a key holds, or of the object that lacks it.
func at(v *value, object *value) int {
	if v != nil {
		return v.offset
	}
	return object.offset
}

func (f *file) head(plugin string) {
	config := f.top.get("pluginConfig")
	if config == nil {
		config = f.top
	}
	if plugin != "custom" && !slices.Contains(npd.LogPlugins, plugin) {
		f.report("plugin-unknown", at(f.top.get("plugin"), f.top), "plugin %q", plugin)
	}
	if f.top.get("source").str() == "" {
		f.report("source-empty", at(f.top.get("source"), f.top), "no source")
	}
	if len(f.top.get("rules").list()) == 0 && !f.turnedOff() {
		f.report("no-rules", at(f.top.get("rules"), f.top), "no rules")
	}
	if f.custom {
		f.customHead(config)
		return
	}
	f.logHead(config, plugin)
}

func (f *file) percent(object *value, keys ...string) {
	for _, key := range keys {
		if v := object.get(key); strings.Contains(v.str(), "%") {
			f.report("percent", v.offset, "%s %q", key, v.text)
		}
	}
}

// kubeletConditions are written by the kubelet and the node controllers.
var kubeletConditions = []string{"Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"}

// shippedConditions are in the configs of NPD's own image, and in remediation that is built on them.
var shippedConditions = []string{
	"KernelDeadlock", "ReadonlyFilesystem", "XfsShutdown", "CperHardwareErrorFatal", "DiskBadBlock", "CorruptDockerOverlay2",
	"FrequentKubeletRestart", "FrequentDockerRestart", "FrequentContainerdRestart", "FrequentUnregisterNetDevice",
	"KubeletUnhealthy", "ContainerRuntimeUnhealthy", "KubeProxyUnhealthy", "NTPProblem",
}

func (f *file) condition(c *value) {
	for _, key := range []string{"type", "reason", "message"} {
		if v := c.get(key); v.str() == "" {
			f.report("condition-incomplete", at(v, c), "no %s", key)
		}
	}
	f.percent(c, "type", "reason", "message")
	name := c.get("type")
	switch {
	case slices.Contains(kubeletConditions, name.str()):
		f.report("condition-of-kubelet", name.offset, "%s", name.text)
	case slices.Contains(shippedConditions, name.str()):
		f.report("condition-of-others", name.offset, "%s", name.text)
	case strings.HasSuffix(name.str(), "Ready"):
		f.report("condition-ready", name.offset, "%s", name.text)
	}
}

func (f *file) conditionsTwice() {
	seen := map[string]*value{}
	for _, c := range f.conditions {
		name := c.get("type")
		if name.str() == "" {
			continue
		}
		if before := seen[name.text]; before != nil {
			f.report("condition-twice", name.offset, "%s, first in line %d", name.text, f.line(before.offset))
			continue
		}
		seen[name.text] = name
	}
}

// movesCondition says whether NPD takes a rule for a permanent one.
func movesCondition(rule *value) bool { return rule.get("type").str() != npd.Temporary }

func (f *file) conditionsUsed() {
	for _, c := range f.conditions {
		name := c.get("type")
		used := slices.ContainsFunc(f.rules, func(r *value) bool {
			return movesCondition(r) && r.get("condition").str() == name.str()
		})
		if !used && name.str() != "" {
			f.report("condition-unused", name.offset, "%s", name.text)
		}
	}
}

func (f *file) declares(name string) bool {
	return slices.ContainsFunc(f.conditions, func(c *value) bool { return c.get("type").str() == name })
}

func (f *file) rule(r *value) {
	kind, condition := r.get("type"), r.get("condition")
	if k := kind.str(); k != npd.Temporary && k != npd.Permanent {
		f.report("type-unknown", at(kind, r), "type %q", k)
	}
	if movesCondition(r) {
		switch declared := f.declares(condition.str()); {
		case !declared && f.custom && kind.str() == npd.Permanent:
			f.report("condition-undeclared", at(condition, r), "condition %q", condition.str())
		case !declared:
			f.report("condition-unknown", at(condition, r), "condition %q", condition.str())
		}
	} else if condition.str() != "" {
		f.report("condition-ignored", condition.offset, "condition %s of a temporary rule", condition.text)
	}
	if r.get("reason").str() == "" {
		f.report("reason-empty", at(r.get("reason"), r), "no reason")
	}
	f.labels(r)
	f.percent(r, "reason", "patternGeneratedMessageSuffix")
	if f.custom {
		f.customRule(r)
		return
	}
	f.logRule(r)
}

// labels reports what NPD cannot make a metric of: the reason of each rule, the condition of a permanent one.
func (f *file) labels(r *value) {
	if f.top.get("metricsReporting").isFalse() {
		return
	}
	for _, key := range []string{"reason", "condition"} {
		v := r.get(key)
		if npd.IsLabel(v.str()) || key == "condition" && r.get("type").str() != npd.Permanent {
			continue
		}
		f.report("label", v.offset, "%s %q", key, v.text)
	}
}

// turnedOff says whether the file is that of a check which npdctl install has turned off: it has neither conditions nor rules, both written.
func (f *file) turnedOff() bool {
	conditions := f.top.get("conditions")
	return f.custom && conditions != nil && f.top.get("rules") != nil && len(conditions.list()) == 0
}

// lookTogether finds what files do to each other, and what is used twice over all of them.
func lookTogether(files []*file) {
	conditions, sources, reasons := firsts{}, firsts{}, map[string]reasonOf{}
	metrics := ownMetrics()
	for _, f := range files {
		if f.shape == statsShape {
			f.metrics(metrics)
		}
		f.clash(sources, "source-shared", f.top.get("source"))
		for _, c := range f.conditions {
			f.clash(conditions, "condition-two-files", c.get("type"))
		}
		for _, r := range f.rules {
			f.reasonTwice(reasons, r)
		}
	}
	for _, f := range files {
		for _, c := range f.conditions {
			if v := c.get("reason"); v.str() != "" {
				if first, ok := reasons[v.text]; ok {
					f.report("reason-twice", v.offset, "%s says that all is well, and what is wrong in %s", v.text, first.place())
				}
			}
		}
	}
}

// firsts holds where a name was seen first.
type firsts map[string]place

type place struct {
	path string
	line int
}

func (p place) String() string {
	if p.line == 0 {
		return p.path
	}
	return fmt.Sprintf("%s:%d", p.path, p.line)
}

// clash reports a name that another file has too.
func (f *file) clash(seen firsts, id string, name *value) {
	if name.str() == "" {
		return
	}
	first, ok := seen[name.text]
	if !ok {
		seen[name.text] = place{f.Path, f.line(name.offset)}
		return
	}
	if first.path != f.Path {
		f.report(id, name.offset, "%s, also in %s", name.text, first)
	}
}

// reasonOf is the first rule with a reason.
type reasonOf struct {
	file *file
	rule *value
}

func (r reasonOf) place() place { return place{r.file.Path, r.file.line(r.rule.get("reason").offset)} }

// reasonTwice reports a reason that is used a second time, in whichever file. The same rule for other lines means the same thing.
func (f *file) reasonTwice(seen map[string]reasonOf, rule *value) {
	reason := rule.get("reason")
	if reason.str() == "" {
		return
	}
	first, ok := seen[reason.text]
	if !ok {
		seen[reason.text] = reasonOf{f, rule}
		return
	}
	same := func(key string) bool { return rule.get(key).str() == first.rule.get(key).str() }
	if f.watches() != first.file.watches() && same("type") && same("condition") && same("pattern") {
		return
	}
	f.report("reason-twice", reason.offset, "%s, also in %s", reason.text, first.place())
}

// watches is the identifier or the file whose lines a log file watches, "" for others.
func (f *file) watches() string {
	switch {
	case f.custom:
		return ""
	case f.top.get("plugin").str() == "filelog":
		return f.top.get("logPath").str()
	}
	return f.top.get("pluginConfig").exact("source").str()
}
