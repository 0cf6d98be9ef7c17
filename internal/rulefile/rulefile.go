// Package rulefile rewrites the files that node-problem-detector reads: journal rules for another syslog identifier and for
// the text files of a syslog daemon, custom plugins for another place and other arguments.
package rulefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// file is a rule file with its keys in their order. The rules stay as they are.
type file struct {
	Plugin           string            `json:"plugin"`
	PluginConfig     map[string]string `json:"pluginConfig,omitempty"`
	SkipList         []string          `json:"skipList,omitempty"`
	LogPath          string            `json:"logPath"`
	Lookback         string            `json:"lookback"`
	BufferSize       int               `json:"bufferSize"`
	Source           string            `json:"source"`
	MetricsReporting bool              `json:"metricsReporting"`
	Conditions       json.RawMessage   `json:"conditions"`
	Rules            json.RawMessage   `json:"rules"`
}

func parse(rules []byte) (*file, error) {
	var f file
	if err := strict(rules, &f); err != nil {
		return nil, err
	}
	return &f, nil
}

func (f *file) format() ([]byte, error) { return format(f) }

// strict refuses keys that v does not know, as they would be lost.
func strict(data []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(v)
}

func format(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(v)
	return b.Bytes(), err
}

// ForIdentifier returns a journald file that watches another identifier. name is added to the source, which names the file in
// Events: NPD writes only so many of each source. It is empty for a file that takes the place of the one it is made from.
func ForIdentifier(rules []byte, identifier, name string) ([]byte, error) {
	f, err := parse(rules)
	if err != nil {
		return nil, err
	}
	if f.Plugin != "journald" {
		return nil, fmt.Errorf("plugin %s has no identifier", f.Plugin)
	}
	f.PluginConfig["source"] = identifier
	f.addToSource(name)
	return f.format()
}

func (f *file) addToSource(name string) {
	if name != "" {
		f.Source += "-" + name
	}
}

// ForJournal returns a journald file that reads the journal in another directory, and any other file as it is.
func ForJournal(rules []byte, dir string) ([]byte, error) {
	f, err := parse(rules)
	if err != nil {
		return nil, err
	}
	if f.Plugin == "journald" {
		f.LogPath = dir
	}
	return f.format()
}

// Style is a way in which a syslog daemon begins a line.
type Style struct {
	Name            string
	Timestamp       string // regular expression of the time stamp at the begin of a line
	TimestampFormat string // in Go's notation
	LogPath         string // where most hosts with this style have their log
}

// Styles are those of rsyslog: RSYSLOG_TraditionalFileFormat and RSYSLOG_FileFormat. syslog-ng and busybox' syslogd write
// the first.
var Styles = []Style{
	{"traditional", `.{15}`, "Jan _2 15:04:05", "/var/log/messages"},
	{"rfc3339", `\S+`, "2006-01-02T15:04:05Z07:00", "/var/log/syslog"},
}

// ForFile returns what a journald or kmsg file is for a text file in that style.
//
// A text file holds the lines of all identifiers. NPD logs a warning with the whole line for each one in which it finds no
// message; so the expression finds an empty one, which no rule matches, in what others wrote. NPD's own lines are skipped
// before they are parsed: what it says about its log would otherwise grow that log for ever.
func ForFile(rules []byte, style Style) ([]byte, error) {
	f, err := parse(rules)
	if err != nil {
		return nil, err
	}
	var writer string
	switch f.Plugin {
	case "journald":
		writer = regexp.QuoteMeta(f.PluginConfig["source"]) + `(?:\[\d+\])?: *`
	case "kmsg":
		// Before the message the kernel's clock, if the daemon has left it there, and its caller, if so built.
		writer = `kernel: *(?:\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? *)?`
	default:
		return nil, errors.New("only journald and kmsg files have an identifier")
	}
	f.Plugin = "filelog"
	f.PluginConfig = map[string]string{
		"timestamp":       "^" + style.Timestamp,
		"timestampFormat": style.TimestampFormat,
		"message":         `^(?:` + style.Timestamp + ` \S+ ` + writer + `(.*\S))?`,
	}
	f.SkipList = []string{" node-problem-detector["}
	f.LogPath = style.LogPath
	return f.format()
}

// Own is a way in which a program begins the lines of its own log file.
type Own struct{ timestamp, timestampFormat string }

// The ways of kubelet (klog, without a year) and of containerd (logrus).
var (
	Klog   = Own{`^[IWEF](\d{4} \d\d:\d\d:\d\d\.\d{6}) `, "0102 15:04:05.000000"}
	Logrus = Own{`^time="([^"]+)" `, "2006-01-02T15:04:05Z07:00"}
)

// ForOwnFile returns what a journald file is for a log file that only the program in question writes. What does not begin
// as its lines do, such as the stack of a crash, NPD cannot read.
func ForOwnFile(rules []byte, own Own, path, name string) ([]byte, error) {
	f, err := parse(rules)
	if err != nil {
		return nil, err
	}
	f.Plugin = "filelog"
	f.PluginConfig = map[string]string{"timestamp": own.timestamp, "timestampFormat": own.timestampFormat, "message": `^(.*\S)`}
	f.LogPath = path
	f.addToSource(name)
	return f.format()
}
