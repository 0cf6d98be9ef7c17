package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
		h, err := readHour(ctx, monitor)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s: %v", filepath.Base(file), err))
		}
		if h.lines > 0 || err == nil {
			read = append(read, fmt.Sprintf("%s %d", monitor.Identifier(), h.lines))
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
		fmt.Fprintf(r.stdout, "  not read: %s\n", printable(note))
	}
}

// readHour puts the last hour of the journal through a monitor. What was read before an error counts. The kernel's lines,
// which NPD reads from /dev/kmsg for a kmsg file, are in the journal too.
func readHour(ctx context.Context, m *npd.LogMonitor) (hour, error) {
	c := m.Config
	identifier := m.Identifier()
	dirs := hostJournals()
	switch {
	case c.Plugin == "filelog":
		return hour{}, errors.New("plugin filelog; npdctl replay reads log files")
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
		h.lines++
		for _, match := range m.MatchAt(string(e.Message), e.Time) {
			if match.Event != nil {
				h.events[match.Rule.Reason] = told{h.events[match.Rule.Reason].count + 1, *match.Event}
			}
		}
	}
}
