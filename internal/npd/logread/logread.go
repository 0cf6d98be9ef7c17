// Package logread reads what was logged in the past: journal files, the export and JSON streams of journalctl, and text logs such as
// /var/log/messages and /var/log/syslog.
package logread

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"npd-plugins/internal/journalfile"
)

// MaxMessage is how many bytes of a message are kept; the rest is cut off. NPD has no such limit, but such messages are none that a rule
// is for: journald cuts what a service prints at 48 KiB (LineMax= of journald.conf).
const MaxMessage = 1 << 20

const (
	readAhead = 256 << 10          // bytes read at a time
	maxLine   = MaxMessage + 1<<10 // of a text log with its prefix, or of a field with its name
	maxJSON   = 5 * MaxMessage     // one entry as JSON, where a byte that is no UTF-8 takes up to four
)

// Format is the form of a stream.
type Format int

// Text is any log of lines, with or without a prefix of syslog.
const (
	Text Format = iota
	Export
	JSON
	Verbose
	Journal
)

func (f Format) String() string {
	switch f {
	case Export:
		return "journal export"
	case JSON:
		return "journal JSON"
	case Verbose:
		return "journal verbose"
	case Journal:
		return "journal files"
	}
	return "text"
}

// Entry is one log line. Its slices are good until the next one is read.
type Entry struct {
	Message     []byte   // without prefix, not trimmed
	Identifiers [][]byte // SYSLOG_IDENTIFIER; none if unknown, and a journal entry can have several
	Priority    int      // of syslog, 0 to 7; -1 if unknown
	Line        []byte   // all of a line of a text log; nil for other formats
	stamp       stamp
	micros      int64 // of a journal file, since 1970; 0 for other formats, which have a stamp
}

// Time returns when the entry was logged, as exactly as the log tells: of a text log without a year the last such date, of one
// without a zone local time. It is zero if the log does not tell.
func (e *Entry) Time() time.Time {
	if e.micros != 0 {
		return time.UnixMicro(e.micros)
	}
	return e.stamp.time(time.Now())
}

// Reader reads entry by entry, in memory that does not grow.
type Reader struct {
	Format     Format
	Identifier string // of the lines of a text log that name none

	Cut     int // entries whose message was cut at MaxMessage
	Skipped int // lines that are no journal entry, or are longer than 5 MiB as JSON
	Blobs   int // entries of which journalctl shows only how long the message is
	Units   int // lines that name a unit in place of the identifier

	in          *bufio.Reader
	dmesg       bool // a time in brackets is the kernel's
	journal     *journalfile.Journal
	found       journalfile.Entry
	message     []byte
	identifiers [][]byte
	stamp       []byte
	value       []byte // of a field
	long        []byte // a line that does not fit into the buffer
	held        []byte // a line while what follows is looked at
}

// What New returns for a stream that is no log.
var (
	ErrCompressed = errors.New("compressed, unpack it first")
	ErrBinary     = errors.New("binary, no log")
)

// New finds out the format of a stream by how it begins. An empty one is text.
func New(from io.Reader) (*Reader, error) {
	in := bufio.NewReaderSize(from, readAhead)
	head, err := in.Peek(4096)
	if err != nil && err != io.EOF && len(head) == 0 {
		return nil, err
	}
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ", "BZh", "\x04\x22\x4d\x18"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return nil, ErrCompressed
		}
	}
	start := bytes.TrimPrefix(bytes.TrimPrefix(head, recordSeparator), ssePrefix)
	switch {
	case bytes.HasPrefix(head, []byte("__CURSOR=")), bytes.HasPrefix(head, []byte("__REALTIME_TIMESTAMP=")):
		return NewFormat(in, Export), nil
	case bytes.HasPrefix(head, []byte("{\n\t\"__")):
		return nil, errors.New("journalctl's json-pretty, take -o json or -o export")
	case bytes.HasPrefix(start, []byte("{")) && journalJSON(start):
		return NewFormat(in, JSON), nil
	case bytes.IndexByte(head, 0) >= 0:
		return nil, ErrBinary
	case isVerbose(head):
		return NewFormat(in, Verbose), nil
	}
	r := NewFormat(in, Text)
	r.dmesg = isDmesg(head)
	return r, nil
}

// journalJSON tells journalctl's JSON from a log whose lines are JSON. Not all versions begin with the cursor.
func journalJSON(head []byte) bool {
	line, _, _ := bytes.Cut(head, []byte{'\n'})
	return bytes.Contains(line, []byte(`"__REALTIME_TIMESTAMP"`)) || bytes.Contains(line, []byte(`"__CURSOR"`))
}

// NewFormat is New for a known format.
func NewFormat(from io.Reader, format Format) *Reader {
	return &Reader{Format: format, in: bufio.NewReaderSize(from, readAhead)}
}

// Next reads the next entry. At the end it returns io.EOF; an entry that the end cuts off is io.ErrUnexpectedEOF in an export stream.
func (r *Reader) Next(e *Entry) error {
	*e = Entry{Priority: -1}
	switch r.Format {
	case Export:
		return r.nextExport(e)
	case JSON:
		return r.nextJSON(e)
	case Verbose:
		return r.nextVerbose(e)
	case Journal:
		return r.nextJournal(e)
	}
	return r.nextText(e)
}

// line returns the next line without its newline, or its first max bytes or more; cut is then true. The last line may lack its
// newline; open is then true.
func (r *Reader) line(max int) (line []byte, cut, open bool, err error) {
	line, err = r.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		r.long = append(r.long[:0], line...)
		for errors.Is(err, bufio.ErrBufferFull) {
			line, err = r.in.ReadSlice('\n')
			if len(r.long) < max {
				r.long = append(r.long, line...)
			} else {
				cut = true
			}
		}
		line = r.long
	}
	switch {
	case err == nil:
		return bytes.TrimSuffix(line, []byte{'\n'}), cut, false, nil
	case err == io.EOF && len(line) > 0:
		return line, cut, true, nil
	}
	return nil, false, false, err
}

// keep returns at most MaxMessage bytes and counts what it cuts.
func (r *Reader) keep(message []byte) []byte {
	if len(message) <= MaxMessage {
		return message
	}
	r.Cut++
	return message[:MaxMessage]
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("not in the form of a journal export: "+format, args...)
}
