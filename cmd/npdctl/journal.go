package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/npd/logread"
)

// journalTime is what all rule files together may take.
const journalTime = 10 * time.Second

// hour is what a monitor made of an hour of the journal.
type hour struct {
	lines  int
	events map[string]told // by reason
	note   string          // on where they are from
}

// told is how often a rule wrote an event, and the last one.
type told struct {
	count int
	last  npd.Event
}

// journal lists the events that the journal rules would have written in the last hour.
func (r *runner) journal(ctx context.Context) {
	if r.options.rules == "" {
		return
	}
	files, err := configFiles([]string{r.options.rules})
	if err != nil {
		r.complain("%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, journalTime)
	defer cancel()
	fmt.Fprintln(r.stdout, "Events of the journal rules in the last hour:")
	t := r.table("Last seen", "Count", "Reason", "From", "Message")
	var notes, read []string
	found := false
	for _, file := range files {
		monitor, err := npd.LoadLogMonitor(file)
		if err != nil {
			r.complain("%v: NPD does not come up with this file", err)
			continue
		}
		h, err := readHour(ctx, monitor, kmsgDevice)
		if err != nil {
			notes = append(notes, fmt.Sprintf("not read: %s: %v", filepath.Base(file), err))
		}
		if h.note != "" {
			notes = append(notes, fmt.Sprintf("%s: %s", filepath.Base(file), h.note))
		}
		if h.lines > 0 || err == nil {
			log := fmt.Sprintf("%s %d", cmp.Or(monitor.Identifier(), monitor.Config.LogPath), h.lines)
			if !slices.Contains(read, log) { // the kernel's log has several files of rules
				read = append(read, log)
			}
		}
		for _, reason := range slices.Sorted(maps.Keys(h.events)) {
			e := h.events[reason]
			found = true
			t.row(e.last.Time.Format(time.TimeOnly), strconv.Itoa(e.count), reason, e.last.Source, e.last.Message)
		}
	}
	if found {
		t.Flush()
	} else {
		fmt.Fprintln(r.stdout, "  none")
	}
	if len(read) > 0 {
		fmt.Fprintf(r.stdout, "  lines read: %s\n", printable(strings.Join(read, ", ")))
	}
	for _, note := range notes {
		fmt.Fprintf(r.stdout, "  %s\n", printable(note))
	}
}

// readHour puts the last hour of the log that NPD reads through a monitor. What was read before an error counts. Kernel lines that
// may not be read from kmsg are in the journal, too.
func readHour(ctx context.Context, m *npd.LogMonitor, kmsg string) (hour, error) {
	switch m.Config.Plugin {
	case "filelog":
		return readFileHour(ctx, m)
	case "journald":
		return readJournalHour(ctx, m)
	}
	h, err := readKmsgHour(ctx, m, kmsg)
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	const mend = "node-problem-detector reads it as root in a privileged container"
	reason := err
	if h, err = readJournalHour(ctx, m); err != nil {
		return h, fmt.Errorf("%w (%s); the journal instead: %w", reason, mend, err)
	}
	h.note = fmt.Sprintf("read in the journal instead of kmsg: %v (%s)", reason, mend)
	return h, nil
}

// readFileHour puts the last hour of a log file through a monitor.
func readFileHour(ctx context.Context, m *npd.LogMonitor) (hour, error) {
	f, err := os.Open(m.Config.LogPath)
	if err != nil {
		return hour{}, fmt.Errorf("%w: node-problem-detector would not start this monitor", err)
	}
	defer f.Close()
	h := hour{events: map[string]told{}}
	since := time.Now().Add(-time.Hour)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLogLine)
	for lines.Scan() && ctx.Err() == nil {
		if message, at, ok := m.Translate(lines.Text()); ok && at.After(since) {
			h.take(m, message, func() time.Time { return at })
		}
	}
	return h, cmp.Or(lines.Err(), ctx.Err())
}

// maxLogLine is the longest line of a log file in bytes.
const maxLogLine = 1 << 20

func readJournalHour(ctx context.Context, m *npd.LogMonitor) (hour, error) {
	c := m.Config
	identifier := m.Identifier()
	dirs := hostJournals()
	switch {
	case identifier == "":
		return hour{}, errors.New("no source in pluginConfig, NPD would not start this monitor")
	case c.Plugin == "journald" && c.LogPath != "":
		if !isDir(c.LogPath) {
			return hour{}, fmt.Errorf("no directory %s, NPD would not start this monitor", c.LogPath)
		}
		dirs = []string{c.LogPath}
	}
	watch := func(time.Time) error { return ctx.Err() }
	journal, err := logread.OpenJournal([]string{identifier}, time.Now().Add(-time.Hour), watch, dirs...)
	if err != nil {
		return hour{}, err
	}
	defer journal.Close()
	if journal.Files() == 0 {
		return hour{}, fmt.Errorf("no *.journal in %s", cmp.Or(strings.Join(dirs, " "), "/run/log/journal or /var/log/journal"))
	}
	h, err := readEntries(logread.NewJournal(journal), m)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("more than can be read in %v, the rest", journalTime)
	}
	if broken := journal.Broken(); err == nil && len(broken) > 0 {
		err = fmt.Errorf("%d of %d files are not whole: %w", len(broken), journal.Files(), broken[0])
	}
	return h, err
}

// hostJournals are the directories that journalctl reads when it is not told one, those of this machine. There may be none.
func hostJournals() []string {
	dirs := []string{"/run/log/journal"}
	if machine, err := os.ReadFile("/etc/machine-id"); err == nil {
		dirs = append(dirs, filepath.Join("/var/log/journal", strings.TrimSpace(string(machine))))
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return !isDir(dir) })
}

func readEntries(from *logread.Reader, m *npd.LogMonitor) (hour, error) {
	h := hour{events: map[string]told{}}
	var e logread.Entry
	for {
		err := from.Next(&e)
		if err == io.EOF {
			return h, nil
		}
		if err != nil {
			return h, err
		}
		h.take(m, string(e.Message), e.Time)
	}
}

// take puts a line through the monitor.
func (h *hour) take(m *npd.LogMonitor, message string, clock func() time.Time) {
	h.lines++
	for _, match := range m.MatchAt(message, clock) {
		if match.Event != nil {
			h.events[match.Rule.Reason] = told{h.events[match.Rule.Reason].count + 1, *match.Event}
		}
	}
}
