package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/npd/logread"
)

// journalMagic is what a journal file begins with (HEADER_SIGNATURE of journal-def.h).
const journalMagic = "LPKSHHRH"

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
		if !hasJournal(o.source) {
			return fmt.Errorf("no *.journal in %s and the directories in it", o.source)
		}
		return o.readJournal(ctx, p, "--directory="+o.source, shown)
	}
	file, err := os.Open(o.source)
	if err != nil {
		return err
	}
	defer file.Close()
	magic := make([]byte, len(journalMagic))
	if n, _ := file.ReadAt(magic, 0); string(magic[:n]) == journalMagic {
		return o.readJournal(ctx, p, "--file="+o.source, shown)
	}
	if info.Mode().IsRegular() {
		shown.size = info.Size()
	}
	return o.readStream(ctx, p, file, shown)
}

// hasJournal says whether journalctl finds a file in dir: right there, or in the directory of a machine.
func hasJournal(dir string) bool {
	for _, pattern := range []string{"*.journal", "*.journal~", "*/*.journal", "*/*.journal~"} {
		if files, _ := fs.Glob(os.DirFS(dir), pattern); len(files) > 0 {
			return true
		}
	}
	return false
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
	if p.nameless > 0 && reader.Format == logread.Text && o.identifier == "" {
		p.note("%d lines name no identifier, no rule for one was tried on them; --identifier gives them one", p.nameless)
	}
	return err
}

// readJournal reads what the rules watch, or all of it if unmatched lines are asked for.
func (o *replayOptions) readJournal(ctx context.Context, p *past, where string, shown *progress) error {
	p.leaveFilelogs()
	args := []string{where}
	if !o.unmatched {
		for _, identifier := range slices.Sorted(maps.Keys(p.watched)) {
			args = append(args, "--identifier="+identifier)
		}
		if len(p.watched) == 0 {
			return errors.New("none of the rule files is for a journal")
		}
	}
	shown.end = journalEnd(ctx, args, shown)
	err := p.readChild(ctx, append(args, exportFields), shown)
	if err != nil && p.lines == 0 && strings.Contains(err.Error(), "output-fields") {
		err = p.readChild(ctx, args, shown)
	}
	return err
}

func (p *past) readChild(ctx context.Context, args []string, shown *progress) error {
	child, err := startJournalctl(ctx, args...)
	if err != nil {
		return err
	}
	if err := p.readAll(ctx, logread.NewFormat(child, logread.Export), shown); err != nil {
		child.stop()
		if ctx.Err() == nil && len(child.complaint) > 0 {
			err = fmt.Errorf("journalctl: %s", child.complaint)
		}
		return err
	}
	return child.wait()
}

// journalEnd returns the time of the last entry, which is only needed to show how far the reading is.
func journalEnd(ctx context.Context, args []string, shown *progress) time.Time {
	if !shown.on {
		return time.Time{}
	}
	child, err := startJournalctl(ctx, append(args, "--reverse", "--lines=1")...)
	if err != nil {
		return time.Time{}
	}
	defer child.stop()
	var last logread.Entry
	if logread.NewFormat(child, logread.Export).Next(&last) != nil {
		return time.Time{}
	}
	return last.Time()
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
