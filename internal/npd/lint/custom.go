package lint

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"npd-plugins/internal/npd"
)

func (f *file) customHead(config *value) {
	interval, timeout := config.get("invoke_interval"), config.get("timeout")
	f.positive("interval-not-positive", interval)
	f.positive("timeout-not-positive", timeout)
	every, limit := length(interval, npd.DefaultInvokeInterval), length(timeout, npd.DefaultTimeout)
	if every > 0 && limit > every {
		f.report("timeout-over-interval", at(cmp.Or(timeout, interval), config), "timeout %v, invoke_interval %v", limit, every)
	}
	switch c := config.get("concurrency"); {
	case c == nil || c.kind != '0':
	case whole(c) < 0:
		f.report("concurrency", c.offset, "concurrency %s", c.text)
	case whole(c) == 0:
		f.report("concurrency-zero", c.offset, "concurrency %s", c.text)
	}
	switch output := config.get("max_output_length"); {
	case output == nil:
		f.report("output-default", config.offset, "no max_output_length")
	case output.kind == '0' && whole(output) < 0:
		f.report("output-negative", output.offset, "max_output_length %s", output.text)
	case output.kind == '0' && whole(output) == 0:
		f.report("output-zero", output.offset, "max_output_length %s", output.text)
	case output.kind == '0' && whole(output) > npd.MaxPluginOutput:
		f.report("output-over-4096", output.offset, "max_output_length %s", output.text)
	}
	if update := config.get("enable_message_change_based_condition_update"); update != nil && update.text == "true" && !f.tellsServices() {
		f.report("message-change", update.offset, "enable_message_change_based_condition_update is true")
	}
	skip := config.get("skip_initial_status")
	if len(f.conditions) > 0 && (skip == nil || skip.text == "false") {
		f.report("initial-status", at(skip, config), "skip_initial_status is not true")
	}
}

// tellsServices says whether all rules run the check service-restarts. Its message
// holds no changing number, and changes when it tells of another service.
func (f *file) tellsServices() bool {
	rules := f.top.get("rules").list()
	return len(rules) > 0 && !slices.ContainsFunc(rules, func(r *value) bool { return filepath.Base(r.get("path").str()) != "service-restarts" })
}

func (f *file) positive(id string, v *value) {
	if d, err := time.ParseDuration(v.str()); err == nil && d <= 0 {
		f.report(id, v.offset, "%q is %v", v.key, d)
	}
}

// length is a duration, or the default if it is absent or none.
func length(v *value, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(v.str()); err == nil {
		return d
	}
	return otherwise
}

// whole is a whole number, or 1, which no check finds fault with, if it is none.
func whole(v *value) int {
	if n, err := strconv.Atoi(v.text); err == nil {
		return n
	}
	return 1
}

func (f *file) customRule(r *value) {
	if !movesCondition(r) {
		f.report("temporary-plugin", r.get("type").offset, "a temporary rule with a plugin")
	}
	for _, earlier := range f.rules {
		if earlier == r {
			break
		}
		if c := r.get("condition"); movesCondition(r) && movesCondition(earlier) && c.str() != "" && c.text == earlier.get("condition").str() {
			f.report("condition-two-rules", c.offset, "%s, also in line %d", c.text, f.line(earlier.get("condition").offset))
			break
		}
	}
	if v := r.get("invoke_interval"); v != nil {
		f.report("rule-interval", v.keyAt, "invoke_interval on a rule")
		f.positive("interval-not-positive", v)
	}
	global, own := f.top.get("pluginConfig").get("timeout"), r.get("timeout")
	limit := length(global, npd.DefaultTimeout)
	if length(own, limit) > limit {
		f.report("rule-timeout", own.offset, "timeout %s, that of pluginConfig is %v", own.text, limit)
	}
	f.positive("timeout-not-positive", own)
	f.checkTimeout(r, min(length(own, limit), limit))
	f.path(r)
}

// checkTimeout compares the --timeout among the arguments with the time NPD gives.
func (f *file) checkTimeout(r *value, limit time.Duration) {
	args := r.get("args").list()
	for i, arg := range args {
		name, text, joined := strings.Cut(strings.TrimLeft(arg.str(), "-"), "=")
		if name != "timeout" || !strings.HasPrefix(arg.str(), "-") {
			continue
		}
		if !joined && i+1 < len(args) {
			text = args[i+1].str()
		}
		if d, err := time.ParseDuration(text); err == nil && d >= limit {
			f.report("check-timeout", arg.offset, "--timeout %v, NPD kills after %v", d, limit)
		}
	}
}

// windowsPath is an absolute path where NPD runs on Windows.
var windowsPath = regexp.MustCompile(`^[A-Za-z]:[\\/]`)

func (f *file) path(r *value) {
	path := r.get("path")
	if path.str() == "" {
		f.report("path-missing", at(path, r), "no path")
		return
	}
	if !filepath.IsAbs(path.text) && !windowsPath.MatchString(path.text) {
		f.report("path-relative", path.offset, "%s", path.text)
	}
	if f.root == "" {
		return
	}
	info, err := os.Stat(filepath.Join(f.root, path.text))
	switch {
	case os.IsNotExist(err):
		f.report("path-missing", path.offset, "%s does not exist below %s", path.text, f.root)
	case err == nil && !executable(info):
		f.report("path-not-executable", path.offset, "%s is %v", path.text, info.Mode())
	}
}

func executable(info fs.FileInfo) bool { return info.Mode().IsRegular() && info.Mode()&0o111 != 0 }
