// Command journal-count tells of what only logs show: so many lines that match
// in so much time. What it looks for, and which condition that is, its flags
// say; config/journal-count-*.json has them.
package main

import (
	"context"
	"flag"
	"fmt"
	"path"
	"strings"
	"time"

	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

type check struct {
	condition   conditionName
	summary     string
	identifiers names
	patterns    expressions
	count       int
	window      time.Duration
	maxEntries  int
	journal     string
	files       logFiles
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "journal-count",
		Condition: "JournalLinesCounted",
		Named:     (*string)(&c.condition),
		Purpose: "What components of the node only write to their logs becomes a condition that clears by itself: Problem when --count lines of the --identifier " +
			"match a --pattern within --window, until fewer are that young. What came and went between two looks is told for as long.\n" +
			"Reads the journal's files itself, from the beginning of the window on, once for all patterns: without libsystemd, so that the binary is static.\n" +
			"Where kubelet or the runtime writes a log file instead (k3s, rke2), --file has its lines count, too.",
		Reads: []string{"/run/log/journal, /var/log/journal/<machine-id>, or --journal; the log files of --file", "/etc/machine-id, /etc/localtime"},
		Needs: "the directories of the journal below --host-root, and the right to read them (root)",
		LookAlikes: "fewer lines; lines of other identifiers, such as those in which node-problem-detector repeats what it saw; " +
			"lines that were logged before the window",
		Example:          "--host-root=/host --condition=DiskSlow --summary='the disk is slow' --identifier=etcd '--pattern=slow fdatasync.*' --count=5 --window=10m",
		FailureThreshold: 1,
		Timeout:          20 * time.Second,
		Flags:            c.flags,
		Look:             c.look,
	})
}

func (c *check) flags(fs *flag.FlagSet) {
	fs.Var(&c.condition, "condition", "`condition` of the node that this is; each has a memory of its own")
	fs.StringVar(&c.summary, "summary", "lines of the journal match", "`text` that a Problem begins with")
	fs.Var(&c.identifiers, "identifier", "`identifiers` whose lines count (SYSLOG_IDENTIFIER), separated by commas")
	fs.Var(&c.patterns, "pattern", "`expression` (RE2) for the end of a message or all of it, as in node-problem-detector's log rules; may be repeated")
	plugin.CountVar(fs, &c.count, "count", 3, "Problem at this `number` of lines within --window")
	plugin.DurationVar(fs, &c.window, "window", 10*time.Minute, "only lines of the last `duration` count")
	plugin.CountVar(fs, &c.maxEntries, "max-entries", 1_000_000, "at most this `number` of entries is read, of all identifiers; of a longer window the last part")
	fs.StringVar(&c.journal, "journal", "", "`directory` with files of the journal, below --host-root, instead of the node's own two")
	fs.Var(&c.files, "file", "log `file` on the node that kubelet or the runtime writes instead of logging to the journal; its lines count, too; may be repeated")
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	if len(c.patterns) == 0 || len(c.identifiers) == 0 {
		return plugin.Unknownf("nothing to count: give --identifier and --pattern, as config/journal-count-*.json do")
	}
	dirs, err := c.journals(l.Host)
	if err != nil {
		return plugin.Unknownf("cannot read the journal: %v", err)
	}
	t, err := c.read(ctx, l, dirs)
	if err != nil {
		return plugin.Unknownf("cannot read the journal: %v", err)
	}
	return c.judge(t, l.Now)
}

// Directories of the journal (journalctl(1)): in memory, and on disk.
const (
	volatile   = "/run/log/journal"
	persistent = "/var/log/journal"
)

// journals returns the directories of the journal that are there.
func (c *check) journals(h *host.Root) ([]string, error) {
	wanted := []string{volatile, persistent}
	if c.journal != "" {
		wanted = []string{path.Join("/", c.journal)}
	} else if own := machineJournal(h); own != "" {
		wanted[1] = own
	}
	var dirs, missing []string
	for _, dir := range wanted {
		switch info, err := h.Stat(dir); {
		case err == nil && info.IsDir():
			dirs = append(dirs, dir)
		case err == nil || host.Gone(err):
			missing = append(missing, h.Path(dir))
		default:
			return nil, err
		}
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("no directory %s: mount the one that journald writes to, or set --journal", strings.Join(missing, " and no "))
	}
	return dirs, nil
}

// machineJournal is where journald of this machine writes on disk. Others that
// are there are those of its containers, or of machines it was copied from. In
// a container without the host's /etc all of them are read.
func machineJournal(h *host.Root) string {
	content, err := h.ReadFile("/etc/machine-id")
	id := strings.TrimSpace(string(content))
	if err != nil || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	dir := path.Join(persistent, id)
	if info, err := h.Stat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return dir
}

// judge weighs what was read. What was not read can hold more lines that
// match.
func (c *check) judge(t *tally, now time.Time) plugin.Verdict {
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "lines", Value: float64(t.lines), Limit: float64(c.count), Unit: "lines"},
		{Name: "entries_read", Value: float64(t.entries), Unit: "entries"},
	}}
	whole := t.toEnd && len(t.damaged) == 0 && t.fromBegin
	switch {
	case t.lines >= c.count:
		v.Status = plugin.Problem
		v.Message = fmt.Sprintf("%s: %s, %s", c.summary, c.counted(t), c.describe(t))
		for i := range t.recent {
			v.Details = append(v.Details, t.recent[i].detail())
		}
	case whole && t.end.Before(now.Add(-max(c.window, quiet))):
		v = plugin.Undecidedf("journald does not write to %s, where %s: mount the directory it writes to, or set --journal", strings.Join(t.dirs, " or "), t.newest())
	case whole:
		v.Message = c.counted(t)
	default:
		v = plugin.Unknownf("%s, but %s", c.counted(t), t.unread())
	}
	return v
}

// quiet is how long a node that is well may log nothing at all: systemd and
// kubelet have timers that log more often.
const quiet = time.Hour

func (c *check) counted(t *tally) string {
	return fmt.Sprintf("%s in %s (limit %d)", plugin.Count(t.lines, "line"), short(c.window), c.count)
}

// describe names the times and the last line.
func (c *check) describe(t *tally) string {
	last := t.last()
	return fmt.Sprintf("%s to %s UTC, last %s: %s", clock(t.first, c.window), clock(last.at, c.window), last.identifier, last.excerpt(shownExcerpt))
}

// clock writes a time, with the day where a window is long.
func clock(t time.Time, window time.Duration) string {
	if window > 12*time.Hour {
		return t.UTC().Format("01-02 15:04:05")
	}
	return t.UTC().Format(time.TimeOnly)
}

// short writes 10m for Go's 10m0s.
func short(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if rest, ok := strings.CutSuffix(s, zero); ok {
			s = rest + zero[:1]
		}
	}
	return s
}
