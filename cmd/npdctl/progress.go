package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows on a terminal how far the reading is: by bytes where the size of the source is known, by the time of the
// entry where that of the last one is, else only how many lines there were.
type progress struct {
	on         bool
	to         io.Writer
	began      time.Time
	shown      time.Time
	size       int64 // bytes, 0 if unknown
	read       int64 // bytes
	first, end time.Time
}

// progressEvery is how often it is drawn.
const progressEvery = 200 * time.Millisecond

func newProgress(to io.Writer) *progress {
	return &progress{on: isTerminal(to), to: to, began: time.Now(), shown: time.Now()}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// counting returns a reader that counts the bytes read.
func (p *progress) counting(from io.Reader) io.Reader { return countingReader{from, &p.read} }

type countingReader struct {
	io.Reader
	read *int64
}

func (c countingReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	*c.read += int64(n)
	return n, err
}

// update draws it, if it is time to, for an entry of this time.
func (p *progress) update(lines int, at time.Time) {
	if !p.on || time.Since(p.shown) < progressEvery {
		return
	}
	p.shown = time.Now()
	if p.first.IsZero() {
		p.first = at
	}
	fmt.Fprintf(p.to, "\r\x1b[K%s", bar(p.part(at), lines, time.Since(p.began)))
}

// part is how much is read, from 0 to 1, or -1 if that is not known.
func (p *progress) part(at time.Time) float64 {
	switch {
	case p.size > 0:
		return min(1, float64(p.read)/float64(p.size))
	case p.end.After(p.first) && !p.first.IsZero():
		return min(1, max(0, float64(at.Sub(p.first))/float64(p.end.Sub(p.first))))
	}
	return -1
}

func (p *progress) clear() {
	if p.on {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}

// bar draws one line of at most 79 characters.
func bar(part float64, lines int, took time.Duration) string {
	rate := float64(lines) / took.Seconds()
	if part < 0 {
		return fmt.Sprintf("%d lines, %.0f lines/s", lines, rate)
	}
	const width = 20
	full := int(part * width)
	left := ""
	if part > 0 {
		left = fmt.Sprintf(", %v left", (time.Duration(float64(took) * (1 - part) / part)).Round(time.Second))
	}
	return fmt.Sprintf("[%s%s] %3.0f%%  %d lines, %.0f lines/s%s", strings.Repeat("#", full), strings.Repeat(".", width-full), 100*part, lines, rate, left)
}
