//go:build sdjournal

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/sdjournal"

	"npd-plugins/internal/plugin"
)

// scan reads the journal with libsystemd, which is loaded when the check runs.
// An error says that it is not there, or cannot read the journal.
func (c *check) scan(ctx context.Context, l *plugin.Look, dirs []string, t *tally) error {
	for span := c.window; ; span /= 2 {
		*t = tally{dirs: t.dirs, from: l.Now.Add(-span), fromBegin: span == c.window}
		for _, dir := range slices.Backward(dirs) { // what is in memory is newer than what is on disk
			name, release, err := l.Host.Reach(dir)
			if err == nil {
				t.stopped, err = c.scanDir(ctx, name, t, l.Now)
				release()
			}
			if err != nil {
				return fmt.Errorf("%s: %w", l.Host.Path(dir), err)
			}
			if t.stopped != nil {
				break
			}
		}
		if t.stopped != errTooMany || span < time.Second {
			return nil
		}
	}
}

// scanDir reads to the end of the journal in a directory of this process;
// stopped says why it did not get there.
func (c *check) scanDir(ctx context.Context, dir string, t *tally, now time.Time) (stopped, err error) {
	j, err := sdjournal.NewJournalFromDir(dir)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return nil, errno
	case err != nil:
		return nil, fmt.Errorf("%w: install libsystemd.so.0, or build the check without the tag sdjournal", err)
	}
	defer j.Close()
	if err := errors.Join(j.SetDataThreshold(maxMessage), j.SeekTail()); err != nil {
		return nil, err
	}
	if n, err := j.Previous(); err != nil || n == 0 {
		return nil, err
	}
	end, err := realtime(j)
	if err != nil {
		return nil, err
	}
	if end.After(t.end) {
		t.end = end
	}
	for _, identifier := range c.identifiers { // one of them
		if err := j.AddMatch("SYSLOG_IDENTIFIER=" + identifier); err != nil {
			return nil, err
		}
	}
	if err := j.SeekRealtimeUsec(uint64(t.from.UnixMicro())); err != nil {
		return nil, err
	}
	for {
		if n, err := j.Next(); err != nil || n == 0 {
			return nil, err
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err(), nil
		case t.entries == c.maxEntries:
			return errTooMany, nil
		}
		at, err := realtime(j)
		if err != nil {
			return nil, err
		}
		if at.Before(t.from) || at.After(now.Add(ahead)) {
			continue // the clock was set
		}
		identifier, err := j.GetDataValueBytes("SYSLOG_IDENTIFIER")
		if err != nil {
			return nil, err
		}
		message, err := j.GetDataValueBytes("MESSAGE")
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return nil, err
		}
		c.take(t, at, identifier, message[:min(len(message), maxMessage)]) // libsystemd cuts only what is packed
	}
}

func realtime(j *sdjournal.Journal) (time.Time, error) {
	us, err := j.GetRealtimeUsec()
	return time.UnixMicro(int64(us)), err
}
