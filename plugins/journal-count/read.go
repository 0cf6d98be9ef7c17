package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

// tally is what was read of the window.
type tally struct {
	dirs      []string
	lines     int       // that match
	first     time.Time // of those lines
	entries   int       // of the identifiers that were looked at
	recent    []line    // the last of the lines, oldest first
	from      time.Time // where the reading began
	fromBegin bool      // that of the window
	toEnd     bool
	stopped   error     // why not to the end
	end       time.Time // when the last entry of all was logged
	damaged   []error   // of files that may hold more lines of the window
}

// line is a message that matched, from the match on.
type line struct {
	at         time.Time
	identifier string
	text       []byte
}

const (
	// maxMessage is how much of a message is looked at, in bytes. journald cuts what services print at 48 KiB (LineMax= of journald.conf(5)).
	maxMessage = 64 << 10
	// maxRecent is how many lines are kept for the details of a Problem.
	maxRecent = 10
	// ahead is how far in the future a line may be: the clock is read before the journal. What is later was logged when the clock was wrong.
	ahead = time.Minute
)

var errTooMany = errors.New("too many entries")

// read counts the lines of the window.
func (c *check) read(ctx context.Context, l *plugin.Look, dirs []string) (*tally, error) {
	t := &tally{dirs: onHost(l.Host, dirs)}
	err := c.scan(ctx, l, dirs, t)
	if err == nil {
		err = c.scanFiles(ctx, l, t)
	}
	t.toEnd = t.stopped == nil
	return t, err
}

func onHost(h *host.Root, dirs []string) []string {
	var paths []string
	for _, dir := range dirs {
		paths = append(paths, h.Path(dir))
	}
	return paths
}

// take counts an entry.
func (c *check) take(t *tally, at time.Time, identifier, message []byte) {
	t.entries++
	message, counts := unwrap(bytes.TrimSpace(message))
	if !counts {
		return
	}
	if begin := c.patterns.find(message); begin >= 0 {
		if t.lines == 0 || at.Before(t.first) {
			t.first = at
		}
		t.lines++
		t.keep(at, identifier, message[wordAt(message, begin):])
	}
}

// keep remembers a line in the place of the oldest.
func (t *tally) keep(at time.Time, identifier, text []byte) {
	if len(t.recent) < maxRecent {
		t.recent = append(t.recent, line{})
	} else {
		oldest := t.recent[0]
		copy(t.recent, t.recent[1:])
		t.recent[maxRecent-1] = oldest
	}
	last := t.last()
	last.at = at
	if last.identifier != string(identifier) {
		last.identifier = string(identifier)
	}
	last.text = append(last.text[:0], text[:min(len(text), keptText)]...)
}

func (t *tally) last() *line { return &t.recent[len(t.recent)-1] }

// newest tells of the last entry there is.
func (t *tally) newest() string {
	if t.end.IsZero() {
		return "is no entry"
	}
	return "the last entry is of " + t.end.UTC().Format(time.DateTime) + " UTC"
}

// unread says what of the window was not read, and what mends that.
func (t *tally) unread() string {
	switch {
	case t.stopped != nil && !errors.Is(t.stopped, errTooMany):
		return "the journal could not be read to its end in time: raise --timeout, or shorten --window"
	case len(t.damaged) > 0:
		return fmt.Sprintf("a part of the journal cannot be read (journalctl --verify): %v", t.damaged[0])
	}
	return fmt.Sprintf("only those since %s UTC were looked at: the window has more than --max-entries", t.from.UTC().Format(time.TimeOnly))
}
