package npd

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DefaultBufferSize is how many lines a log pattern can look back over when the file does not say.
const DefaultBufferSize = 10

// MaxBufferSize is far above any sense. NPD has no limit and dies when it cannot allocate the lines.
const MaxBufferSize = 1_000_000

// LogPlugins are the log watchers NPD has.
var LogPlugins = []string{"journald", "kmsg", "filelog"}

// LogConfig is a configuration file of the system log monitor.
type LogConfig struct {
	Plugin           string            `json:"plugin"`       // journald, kmsg or filelog
	PluginConfig     map[string]string `json:"pluginConfig"` // journald: source; filelog: timestamp, message, timestampFormat
	SkipList         []string          `json:"skipList"`     // filelog only: lines with one of these words are not looked at
	LogPath          string            `json:"logPath"`      // journald: a directory; filelog: a file
	Lookback         string            `json:"lookback"`     // a duration
	Delay            string            `json:"delay"`        // a duration, after boot
	BufferSize       int               `json:"bufferSize"`   // lines
	Source           string            `json:"source"`
	Conditions       []Condition       `json:"conditions"`
	Rules            []LogRule         `json:"rules"`
	MetricsReporting *bool             `json:"metricsReporting"`
}

// LogRule is a pattern and the condition or event it stands for.
type LogRule struct {
	Type      string `json:"type"` // Temporary or Permanent
	Condition string `json:"condition"`
	Reason    string `json:"reason"`
	Pattern   string `json:"pattern"`
	Suffix    string `json:"patternGeneratedMessageSuffix"` // put behind the message, after "; "
}

// ParseLogConfig reads a system log file as NPD does at its start, without compiling its patterns.
func ParseLogConfig(data []byte) (*LogConfig, error) {
	var c LogConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if !slices.Contains(LogPlugins, c.Plugin) {
		return nil, fmt.Errorf("plugin %q is none of %s", c.Plugin, strings.Join(LogPlugins, ", "))
	}
	for _, d := range []string{c.Lookback, c.Delay} {
		if _, err := time.ParseDuration(d); d != "" && err != nil {
			return nil, err
		}
	}
	if c.BufferSize < 0 || c.BufferSize > MaxBufferSize {
		return nil, fmt.Errorf("bufferSize %d is not in 0 to %d", c.BufferSize, MaxBufferSize)
	}
	if c.Plugin == "filelog" {
		for _, key := range []string{"timestamp", "message"} {
			if _, err := regexp.Compile(c.PluginConfig[key]); err != nil {
				return nil, err
			}
		}
	}
	if c.BufferSize == 0 {
		c.BufferSize = DefaultBufferSize
	}
	return &c, nil
}

// LogMonitor matches lines against the rules of one file as NPD does. It is not safe for concurrent use.
type LogMonitor struct {
	Config     *LogConfig
	patterns   []*pattern
	literals   *literals
	translator *translator // of a filelog
	lines      ring
	conditions []Condition
}

// Match is a rule that a line made fire.
type Match struct {
	Rule    *LogRule
	Message string // the matched lines joined with newlines, and the rule's suffix
	Event   *Event // nil if NPD writes none: the condition has this reason already, or is not declared
}

// LoadLogMonitor reads a system log file. An error is what NPD dies of.
func LoadLogMonitor(path string) (*LogMonitor, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := ParseLogMonitor(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// ParseLogMonitor is LoadLogMonitor on bytes.
func ParseLogMonitor(data []byte) (*LogMonitor, error) {
	c, err := ParseLogConfig(data)
	if err != nil {
		return nil, err
	}
	m := &LogMonitor{
		Config:     c,
		lines:      ring{lines: make([]string, c.BufferSize)},
		conditions: initialConditions(c.Conditions, time.Now()),
	}
	for _, r := range c.Rules {
		p, err := compilePattern(r.Pattern)
		if err != nil {
			return nil, fmt.Errorf("reason %s: %w", r.Reason, err)
		}
		if err := checkLabels(c.MetricsReporting, r.Type, r.Condition, r.Reason); err != nil {
			return nil, err
		}
		m.patterns = append(m.patterns, p)
	}
	m.literals = newLiterals(m.patterns)
	if c.Plugin == "filelog" {
		m.translator = newTranslator(c)
	}
	return m, nil
}

// Identifier returns the SYSLOG_IDENTIFIER of the lines that the file watches: for kmsg that of the kernel, "" for a filelog and
// for a journald file without one, which NPD does not start.
func (m *LogMonitor) Identifier() string {
	switch m.Config.Plugin {
	case "journald":
		return m.Config.PluginConfig["source"]
	case "kmsg":
		return "kernel"
	}
	return ""
}

// Match takes in the next line, stamped now, and returns the rules that fire. NPD's journald and kmsg watchers trim the
// line first, and so does Match; a line of a filelog is what Translate selects.
func (m *LogMonitor) Match(line string) []Match { return m.MatchAt(line, time.Now) }

// MatchAt is Match with the clock that stamps the event; it is read only when a rule fires.
func (m *LogMonitor) MatchAt(line string, clock func() time.Time) []Match {
	if m.Config.Plugin != "filelog" {
		line = strings.TrimSpace(line)
	}
	m.lines.push(line)
	if !m.literals.search(line) {
		return nil
	}
	var matches []Match
	for i, p := range m.patterns {
		if p.lastLine && !m.literals.enough(i) {
			continue
		}
		if lines := p.match(&m.lines); lines != nil {
			matches = append(matches, m.fire(&m.Config.Rules[i], lines, clock()))
		}
	}
	return matches
}

func (m *LogMonitor) fire(rule *LogRule, lines []string, at time.Time) Match {
	message := strings.Join(lines, "\n")
	if rule.Suffix != "" {
		message += "; " + rule.Suffix
	}
	match := Match{Rule: rule, Message: message}
	if rule.Type == Temporary {
		event := newEvent("Warning", m.Config.Source, rule.Reason, message, at)
		match.Event = &event
		return match
	}
	i := slices.IndexFunc(m.conditions, func(c Condition) bool { return c.Type == rule.Condition })
	if i < 0 {
		return match
	}
	if c := &m.conditions[i]; c.Status == ConditionFalse || c.Reason != rule.Reason {
		*c = Condition{Type: c.Type, Status: ConditionTrue, Transition: at, Reason: rule.Reason, Message: message}
		event := conditionEvent(m.Config.Source, *c)
		match.Event = &event
	}
	return match
}

// Conditions returns the conditions, in the order of the file. Nothing ever sets one back to False.
func (m *LogMonitor) Conditions() []Condition { return slices.Clone(m.conditions) }

// Reset forgets the lines seen, as a restart of NPD does, but not the conditions.
func (m *LogMonitor) Reset() { m.lines = ring{lines: make([]string, len(m.lines.lines))} }
