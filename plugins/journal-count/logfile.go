package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/plugin"
)

// logFiles are files on the node that one component alone writes, in klog's or logrus' text format: kubelet.log and containerd.log
// of rke2 and k3s.
type logFiles []string

func (f *logFiles) String() string { return strings.Join(*f, " ") }

func (f *logFiles) Set(s string) error {
	if !strings.HasPrefix(s, "/") {
		return errors.New("want the path of a log file on the node")
	}
	*f = append(*f, path.Clean(s))
	return nil
}

const (
	// maxFile is how much of the end of a file is looked at, in bytes: k3s and rke2 begin a new one at 50 MiB.
	maxFile = 64 << 20
	// probe is what is read to find the time at a place in a file, in bytes. It is more than kubelet writes in a line.
	probe = 64 << 10
)

// scanFiles counts the lines of the window in the log files. An error says which cannot be read.
func (c *check) scanFiles(ctx context.Context, l *plugin.Look, t *tally) error {
	zone := time.Local
	if data, err := l.Host.ReadFile("/etc/localtime"); err == nil {
		if host, err := time.LoadLocationFromTZData("", data); err == nil {
			zone = host // klog writes the time of the node, which this container may not have
		}
	}
	for _, name := range c.files {
		f, err := l.Host.OpenNow(name)
		if err != nil {
			return err
		}
		err = c.scanFile(ctx, f, strings.TrimSuffix(path.Base(name), ".log"), l.Now, zone, t)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", l.Host.Path(name), err)
		}
	}
	slices.SortStableFunc(t.recent, func(a, b line) int { return a.at.Compare(b.at) })
	return nil
}

func (c *check) scanFile(ctx context.Context, f *os.File, writer string, now time.Time, zone *time.Location, t *tally) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("is no file")
	}
	from := now.Add(-c.window)
	begin, err := seek(f, info.Size(), from, zone)
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(io.NewSectionReader(f, begin, info.Size()-begin), maxMessage)
	for n := 0; ; n++ {
		text, cut, err := lines.ReadLine()
		for rest := cut; rest && err == nil; {
			_, rest, err = lines.ReadLine()
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n >= c.maxEntries:
			t.stopped = errTooMany
			return nil
		case n%1024 == 0 && ctx.Err() != nil:
			t.stopped = ctx.Err()
			return nil
		}
		at, ok := stamp(text, now, zone)
		if !ok || at.Before(from) || at.After(now.Add(ahead)) {
			continue
		}
		if at.After(t.end) {
			t.end = at
		}
		c.take(t, at, []byte(writer), text)
	}
}

// seek returns a place not far before the first line since from. Lines stand in the order of their times.
func seek(f *os.File, size int64, from time.Time, zone *time.Location) (int64, error) {
	buffer := make([]byte, probe)
	low, high := max(0, size-maxFile), size
	for high-low > probe {
		middle := (low + high) / 2
		n, err := f.ReadAt(buffer, middle)
		if err != nil && err != io.EOF {
			return 0, err
		}
		if at, ok := firstStamp(buffer[:n], from, zone); ok && at.Before(from) {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// firstStamp is the time of the first whole line that has one.
func firstStamp(text []byte, now time.Time, zone *time.Location) (at time.Time, ok bool) {
	for !ok {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			return at, false
		}
		text = text[end+1:]
		at, ok = stamp(text, now, zone)
	}
	return at, true
}

// stamp reads the time at the begin of a line: klog's, which has no year and is the one nearest to now, or logrus'.
func stamp(text []byte, now time.Time, zone *time.Location) (time.Time, bool) {
	if rest, ok := bytes.CutPrefix(text, []byte(`time="`)); ok {
		value, _, ok := bytes.Cut(rest[:min(len(rest), 40)], []byte{'"'})
		at, err := time.Parse(time.RFC3339Nano, string(value))
		return at, ok && err == nil
	}
	const form = "0102 15:04:05.000000"
	if len(text) <= len(form) || !bytes.ContainsRune([]byte("IWEF"), rune(text[0])) {
		return time.Time{}, false
	}
	at, err := time.ParseInLocation("2006"+form, now.In(zone).Format("2006")+string(text[1:1+len(form)]), zone)
	switch { // around New Year
	case at.Sub(now) > 180*24*time.Hour:
		at = at.AddDate(-1, 0, 0)
	case now.Sub(at) > 180*24*time.Hour:
		at = at.AddDate(1, 0, 0)
	}
	return at, err == nil
}
