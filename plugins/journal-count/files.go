//go:build !sdjournal

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"npd-plugins/internal/host"
	"npd-plugins/internal/journalfile"
	"npd-plugins/internal/plugin"
)

// scan reads the files of the journal. An error says that there is none.
func (c *check) scan(ctx context.Context, l *plugin.Look, dirs []string, t *tally) error {
	j, span, err := c.open(ctx, l, dirs)
	if err != nil {
		return err
	}
	defer j.Close()
	if j.Files() == 0 {
		return fmt.Errorf("no *.journal in %s: mount the directory that journald writes to, or set --journal", strings.Join(t.dirs, " and "))
	}
	t.from, t.fromBegin, t.end = l.Now.Add(-span), span == c.window, j.End()
	t.stopped = c.scanAll(ctx, j, t, l.Now)
	for _, broken := range j.Broken() {
		l.Log.Infof("not whole: %v", broken)
		if matters(broken, t.from) {
			t.damaged = append(t.damaged, broken)
		}
	}
	if n := j.Damaged(); n > 0 {
		l.Log.Infof("%d entries or fields are damaged and were left out", n)
	}
	return nil
}

// matters says whether a file that could not be read may hold lines since from.
// One that is gone was too old for journald.
func matters(broken *journalfile.FileError, from time.Time) bool {
	return !host.Gone(broken.Err) && (broken.Modified.IsZero() || !broken.Modified.Before(from))
}

// open goes to the begin of the window, or of as much of its end as may be
// read: the files tell how many entries they have, and going to a time in them
// costs next to nothing.
func (c *check) open(ctx context.Context, l *plugin.Look, dirs []string) (*journalfile.Journal, time.Duration, error) {
	left := 0
	q := journalfile.Query{
		Fields:   []string{"SYSLOG_IDENTIFIER", "MESSAGE"},
		Match:    c.identifiers,
		MaxValue: maxMessage,
		OpenFile: l.Host.OpenNow,
		Watch: func(time.Time) error {
			if left -= journalfile.WatchEvery; left < 0 {
				return errTooMany
			}
			return ctx.Err()
		},
	}
	for span := c.window; ; span /= 2 {
		q.Since = l.Now.Add(-span)
		j, err := journalfile.Open(q, dirs...)
		if err != nil {
			return nil, 0, err
		}
		if j.Left() <= c.maxEntries || span < time.Second {
			left = c.maxEntries
			return j, span, nil
		}
		j.Close()
	}
}

// scanAll reads to the end. The error says why it did not get there.
func (c *check) scanAll(ctx context.Context, j *journalfile.Journal, t *tally, now time.Time) error {
	var e journalfile.Entry
	for {
		switch err := j.Next(&e); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		at := time.UnixMicro(e.Realtime)
		if at.Before(t.from) || at.After(now.Add(ahead)) {
			continue // the clock was set
		}
		// Of several messages in one entry the last counts, as for node-problem-detector.
		var identifier, message []byte
		for _, f := range e.Fields {
			if f.Name == 0 {
				identifier = f.Value
			} else {
				message = f.Value
			}
		}
		c.take(t, at, identifier, message)
	}
}
