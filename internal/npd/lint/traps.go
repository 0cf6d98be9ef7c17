package lint

import "slices"

// Severity tells a file that breaks something from one that surprises. The worst is the least.
type Severity int

// Fatal: NPD does not start, or dies. Error: the rule or monitor never works. Warning: it works, but not as the file looks.
// Note: that cannot be told from the file alone.
const (
	Fatal Severity = iota
	Error
	Warning
	Note
)

// Severities are the names, in the order of the constants.
var Severities = []string{"fatal", "error", "warning", "note"}

func (s Severity) String() string { return Severities[s] }

// Trap is a way in which NPD does something else than a file seems to say.
type Trap struct {
	ID       string
	Severity Severity
	Happens  string // what NPD does
	Mend     string
}

// Traps are all that lint knows, in the order of a file: the JSON, the head, conditions, rules, patterns, samples, metrics, several files.
var Traps = []Trap{
	{"json", Fatal, "NPD does not start", "make it one valid JSON value without comments, trailing commas or a byte order mark"},
	{"wrong-type", Fatal, "NPD does not start", "write the value in the type NPD decodes it into"},
	{"duration", Fatal, "NPD does not start", `write a number and a unit, as in "30s" or "1m30s"`},
	{"unknown-key", Warning, "NPD ignores it silently", "correct the key or take it out"},
	{"key-case", Warning, "NPD takes it, other tools may not, and a second spelling overrides it", "write the name exactly"},
	{"duplicate-key", Warning, "the last one counts, parts of the first may remain", "keep one"},

	{"plugin-unknown", Fatal, "NPD does not start", "custom for --config.custom-plugin-monitor, journald, kmsg or filelog for --config.system-log-monitor"},
	{"source-empty", Warning, "events have no component, and share their rate limit with every other file without one", "give each file a source of its own"},
	{"interval-not-positive", Fatal, "NPD does not start", "an interval above zero"},
	{"timeout-not-positive", Error, "the plugin is never started, each run is Unknown", "a timeout above zero"},
	{"timeout-over-interval", Warning, "a run that hangs makes the next ones drop out", "a timeout below invoke_interval"},
	{"concurrency", Fatal, "NPD does not start", "1 or more"},
	{"concurrency-zero", Error, "no rule ever runs", "1 or more"},
	{"output-default", Warning, "messages are cut at 80 bytes", "set max_output_length"},
	{"output-negative", Fatal, "NPD dies in the first run", "a length from 1 to 4096"},
	{"output-zero", Error, "each message is empty", "a length from 1 to 4096"},
	{"output-over-4096", Warning, "NPD reads 4096 bytes of stdout and no more", "a length up to 4096"},
	{"message-change", Warning, "each new message writes an event and resets lastTransitionTime, which remediation counts from", "false, or messages that hold no changing number"},
	{"initial-status", Warning, "a restart of NPD sets each condition to False before the first look", `"skip_initial_status": true in pluginConfig (NPD 0.8.18 or newer)`},
	{"buffer-size", Fatal, "NPD dies when it allocates the buffer", "some lines, 10 is the default"},
	{"buffer-large", Error, "NPD holds 24 bytes for each line and joins all of them for each new one", "some lines, 10 is the default"},
	{"journald-source", Error, "the monitor does not start, and /healthz says ok", "pluginConfig.source: a SYSLOG_IDENTIFIER"},
	{"journald-path", Warning, "NPD reads the default journal of its own container", `"logPath": "/var/log/journal", mounted from the host`},
	{"filelog-config", Error, "no line is ever understood", "timestamp, message and timestampFormat in pluginConfig, all three"},
	{"filelog-regexp", Fatal, "NPD does not start", "correct the expression"},
	{"filelog-path", Error, "the monitor does not start, and /healthz says ok", "logPath: the log file"},
	{"skip-list", Warning, "only filelog looks at it", "take it out, or write the exception into the pattern"},

	{"condition-incomplete", Warning, "the condition or its recovery event has an empty field", "type, reason and message, all three"},
	{"condition-twice", Error, "NPD moves the first and reports the last, which stays False for ever", "declare it once"},
	{"condition-of-kubelet", Error, "the kubelet and NPD overwrite each other", "a name of your own"},
	{"condition-of-others", Warning, "configs shipped with NPD own this name, remediation may act on it", "a name of your own"},
	{"condition-ready", Warning, "for a NPD condition True is the problem, for *Ready it is health", "a name that says what is wrong"},
	{"condition-unused", Warning, "no rule moves it, it stays False for ever", "a permanent rule with this condition, or take it out"},
	{"percent", Warning, "the event's text is used as a printf format and comes out garbled", "a text without %"},

	{"no-rules", Warning, "the monitor does nothing", "at least one rule"},
	{"rule-null", Fatal, "NPD does not start", "take it out"},
	{"rule-empty", Warning, "it matches each line, for nothing", "take it out"},
	{"type-unknown", Error, "NPD takes it for permanent without checking that the condition is declared", `"temporary" or "permanent"`},
	{"condition-undeclared", Fatal, "NPD does not start", "declare it under conditions"},
	{"condition-unknown", Error, "the rule does nothing, silently", "declare it under conditions"},
	{"condition-ignored", Warning, "a temporary rule writes events, the condition does not move", `take it out, or "type": "permanent"`},
	{"condition-two-rules", Warning, "each OK of one plugin overwrites the problem of the other", "one condition, one rule, one file"},
	{"temporary-plugin", Warning, "each bad or Unknown run writes a Warning event and counts as a problem", "a permanent rule with a condition"},
	{"reason-empty", Warning, "events and metrics have an empty reason", "a reason"},
	{"label", Fatal, "NPD does not start: its metrics reject it", "printable ASCII of up to 255 bytes"},
	{"reason-twice", Warning, "problem_counter and problem_gauge cannot tell the two apart", "a reason for each"},
	{"rule-interval", Warning, "no release of NPD knows it yet, and all ignore it silently", "one file for each interval"},
	{"rule-timeout", Fatal, "NPD does not start", "a rule's timeout up to that of pluginConfig (5s if it has none)"},
	{"check-timeout", Warning, "NPD kills the check before it can give its verdict", "a --timeout below the rule's timeout"},
	{"path-missing", Fatal, "NPD does not start", "put the plugin there before NPD starts"},
	{"path-relative", Warning, "it depends on the directory NPD is started in", "an absolute path"},
	{"path-not-executable", Error, "each run is Unknown", "chmod +x, and a regular file"},

	{"log-permanent", Warning, "nothing sets the condition back until NPD restarts", `"type": "temporary", and a polled check for the condition`},
	{"pattern-empty", Error, "it matches each line", "a pattern"},
	{"pattern-invalid", Fatal, "NPD does not start", "correct the expression (Go RE2: no lookahead, no backreference)"},
	{"pattern-end", Note, "it matches only lines that end right there", "end it with .* if lines go on after it; a + sample shows that they do not"},
	{"pattern-alternation", Warning, "the end of the line binds only the last branch, others match one line up to bufferSize times", "group it: (?:A|B).*"},
	{"pattern-slow", Warning, "NPD searches all buffered lines for each new line, and may match over several", `no ^ or (?s), and classes without newline: [^"\n] for [^"]`},

	{"pattern-twice", Warning, "each line counts for both reasons", "take one out"},
	{"pattern-shadowed", Warning, "each sample it matches, the other rule matches too, and both count", "take one out, or add the sample that tells them apart"},
	{"sample-missing", Warning, "no sample shows that the rule matches anything", "a + line below # and this reason"},
	{"sample-unmatched", Error, "the rule does not fire on a line it must fire on", "correct the pattern or the sample"},
	{"sample-false-alarm", Error, "a rule fires on a line it must not fire on", "narrow the pattern, or name the reason in the # line"},
	{"sample-reason", Warning, "no rule of the file has this reason", "correct the reason or take its samples out"},
	{"sample-broken", Warning, "this line and what follows is not tried", "begin it with #, +, - or ; and a blank"},

	{"metric-unknown", Warning, "NPD has no such metric, and ignores it silently", "correct the name or take it out"},
	{"metric-name", Fatal, "NPD does not start: it cannot create the metric", "printable ASCII of up to 255 bytes"},
	{"metric-twice", Fatal, "NPD does not start: it cannot create the second one", "a displayName for each metric, and each metric in one file only"},
	{"net-incomplete", Fatal, "NPD dies: it needs all metrics of net or none", "add them, each with a displayName"},
	{"lsblk-timeout", Fatal, "NPD does not start", "a lsblkTimeout (default 5s) up to invokeInterval (default 60s)"},

	{"condition-two-files", Warning, "each file overwrites the condition with what it knows", "one condition, one file"},
	{"file-undefined", Fatal, "NPD does not start: the list names a file that is not there", "define it in custom_monitor_definitions, or take it off the list"},
	{"list-wrong", Fatal, "NPD does not start", "plugin custom belongs into custom_plugin_monitors, the others into log_monitors"},
	{"file-unused", Warning, "NPD does not load it", "name it as /custom-config/NAME in custom_plugin_monitors or log_monitors"},
	{"suppression-unused", Warning, "it matches no finding", "take it out"},
	{"source-shared", Warning, "events are limited per source: 25, then one in 5 minutes, for both files together", "a source for each file"},
}

func trap(id string) *Trap {
	i := slices.IndexFunc(Traps, func(t Trap) bool { return t.ID == id })
	return &Traps[i]
}
