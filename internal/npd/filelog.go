package npd

import (
	"regexp"
	"strings"
	"time"
)

// translator finds time and message in the lines of a filelog.
type translator struct {
	timestamp, message *regexp.Regexp
	format             string
	skip               []string
}

// newTranslator is for a configuration that ParseLogConfig has taken.
func newTranslator(c *LogConfig) *translator {
	return &translator{
		timestamp: regexp.MustCompile(c.PluginConfig["timestamp"]),
		message:   regexp.MustCompile(c.PluginConfig["message"]),
		format:    c.PluginConfig["timestampFormat"],
		skip:      c.SkipList,
	}
}

// Translate returns the message of a line of a log file and its time, as NPD's filelog watcher does: the last group of
// each expression, or all it matches if there is none. A time without a year is one of this year. NPD drops a line that
// has one of the words of the skipList, no time or no message; ok is then false. For other plugins it always is.
func (m *LogMonitor) Translate(line string) (message string, at time.Time, ok bool) {
	t := m.translator
	if t == nil {
		return "", time.Time{}, false
	}
	for _, word := range t.skip {
		if strings.Contains(line, word) {
			return "", time.Time{}, false
		}
	}
	stamp := t.timestamp.FindStringSubmatch(line)
	if stamp == nil {
		return "", time.Time{}, false
	}
	at, err := time.ParseInLocation(t.format, stamp[len(stamp)-1], time.Local)
	if err != nil {
		return "", time.Time{}, false
	}
	if at.Year() == 0 {
		at = at.AddDate(time.Now().Year(), 0, 0)
	}
	text := t.message.FindStringSubmatch(line)
	if text == nil {
		return "", time.Time{}, false
	}
	return text[len(text)-1], at, true
}

// CanMatch is a cheap look at a whole line of a log file, or at a message: false if no rule can fire on it, whatever came
// before. Such a line need not be translated nor given to Match.
func (m *LogMonitor) CanMatch(line string) bool {
	return m.literals.search(line)
}
