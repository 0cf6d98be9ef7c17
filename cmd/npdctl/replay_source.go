package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"npd-plugins/internal/journalfile"
	"npd-plugins/internal/npd/logread"
)

// read puts the source through the rules.
func (o *replayOptions) read(ctx context.Context, p *past, stderr io.Writer) error {
	began := time.Now()
	defer func() { p.took = time.Since(began) }()
	shown := newProgress(stderr)
	defer shown.clear()
	if o.source == "-" {
		return o.readStream(ctx, p, os.Stdin, shown)
	}
	info, err := os.Stat(o.source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return o.readJournal(ctx, p, shown)
	}
	file, err := os.Open(o.source)
	if err != nil {
		return err
	}
	defer file.Close()
	signature := make([]byte, len(journalfile.Signature))
	if n, _ := file.ReadAt(signature, 0); string(signature[:n]) == journalfile.Signature {
		return o.readJournal(ctx, p, shown)
	}
	if info.Mode().IsRegular() {
		shown.size = info.Size()
	}
	return o.readStream(ctx, p, file, shown)
}

func (o *replayOptions) readStream(ctx context.Context, p *past, from io.Reader, shown *progress) error {
	plain := bufio.NewReader(shown.counting(from))
	from = plain
	if head, _ := plain.Peek(2); string(head) == "\x1f\x8b" {
		unpacked, err := gzip.NewReader(plain)
		if err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		from = unpacked
	}
	reader, err := logread.New(from)
	if err != nil {
		return err
	}
	reader.Identifier = o.identifier
	if reader.Format != logread.Text {
		p.leaveFilelogs()
	}
	err = p.readAll(ctx, reader, shown)
	if p.nameless > 0 && p.tried && reader.Format == logread.Text && o.identifier == "" {
		p.note("%d lines name no identifier, no rule for one was tried on them; --identifier gives them one", p.nameless)
	}
	if p.units > 0 {
		p.note("%d lines show a unit instead of the syslog identifier: kubelet.service counts as kubelet; journalctl -o short-full shows identifiers", p.units)
	}
	if p.blobs > 0 {
		p.note("%d messages are only shown as blob data; journalctl --all or -o export has their text", p.blobs)
	}
	return err
}

// readJournal reads what the rules watch, or all of it if unmatched lines are asked for.
func (o *replayOptions) readJournal(ctx context.Context, p *past, shown *progress) error {
	p.leaveFilelogs()
	var identifiers []string
	if !o.unmatched {
		if identifiers = slices.Sorted(maps.Keys(p.watched)); len(identifiers) == 0 {
			return errors.New("none of the rule files is for a journal")
		}
	}
	watch := func(at time.Time) error {
		shown.update(p.lines, at)
		return interrupted(ctx)
	}
	journal, err := logread.OpenJournal(identifiers, time.Time{}, watch, o.source)
	if err != nil {
		return err
	}
	defer journal.Close()
	if journal.Files() == 0 {
		return fmt.Errorf("no *.journal in %s and the directories of machines in it", o.source)
	}
	shown.end = journal.End()
	err = p.readAll(ctx, logread.NewJournal(journal), shown)
	if err == nil && p.lines == 0 {
		err = o.countOthers(p, watch)
	}
	if n := journal.Damaged(); n > 0 {
		p.note("%d entries or fields are damaged and were left out", n)
	}
	broken := journal.Broken()
	switch {
	case err != nil:
		return err
	case len(broken) == 1:
		return broken[0]
	case len(broken) > 1:
		for _, b := range broken {
			p.note("%v", b)
		}
		return fmt.Errorf("%d of %d files are not whole", len(broken), journal.Files())
	}
	return nil
}

// maxOthers is how many entries of a journal without any that is watched are counted by their identifiers.
const maxOthers = 10_000

// countOthers counts what is in a journal in which nothing is watched.
func (o *replayOptions) countOthers(p *past, watch func(time.Time) error) error {
	journal, err := logread.OpenJournal(nil, time.Time{}, watch, o.source)
	if err != nil {
		return err
	}
	defer journal.Close()
	reader := logread.NewJournal(journal)
	var e logread.Entry
	for range maxOthers {
		if err := reader.Next(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		p.countUnwatched(&e)
	}
	return nil
}

// leaveFilelogs notes that a journal has no lines of a log file.
func (p *past) leaveFilelogs() {
	for _, f := range p.filelogs {
		p.note("%s is left out: a filelog reads lines of a text log", filepath.Base(f.path))
	}
}

func (p *past) note(format string, args ...any) {
	p.notes = append(p.notes, printable(fmt.Sprintf(format, args...)))
}
