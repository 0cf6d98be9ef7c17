package logread

import (
	"bytes"
	"encoding/binary"
	"io"
)

// maxName is the length of the longest field name the journal takes.
const maxName = 64

var (
	messageField    = []byte("MESSAGE")
	identifierField = []byte("SYSLOG_IDENTIFIER")
	priorityField   = []byte("PRIORITY")
	timeField       = []byte("__REALTIME_TIMESTAMP")
)

// nextExport reads fields up to a blank line: NAME=text, or NAME, a newline, the length in 8 bytes, that many bytes, a newline.
// Of several messages the last one counts, as for NPD.
func (r *Reader) nextExport(e *Entry) error {
	r.message, r.identifiers, r.stamp = r.message[:0], r.identifiers[:0], r.stamp[:0]
	fields := 0
	for {
		line, _, open, err := r.line(maxLine)
		switch {
		case err == io.EOF && fields > 0: // the blank line behind the last entry is missing
			r.fill(e)
			return nil
		case err != nil:
			return err
		case open:
			return io.ErrUnexpectedEOF
		case len(line) == 0 && fields == 0:
			continue
		case len(line) == 0:
			r.fill(e)
			return nil
		}
		fields++
		name, value, text := bytes.Cut(line, []byte{'='})
		if !isName(name) {
			return malformed("%q is no field", line[:min(len(line), maxName)])
		}
		if text {
			r.field(e, name, value)
			continue
		}
		if err := r.binaryField(e, name); err != nil {
			return err
		}
	}
}

func isName(name []byte) bool {
	if len(name) == 0 || len(name) > maxName {
		return false
	}
	for _, c := range name {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// binaryField reads a field that is announced with its length. Only as much of it is held as is kept.
func (r *Reader) binaryField(e *Entry, name []byte) error {
	var copied [maxName]byte
	name = copied[:copy(copied[:], name)]
	var head [8]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	size := binary.LittleEndian.Uint64(head[:])
	kept := min(size, MaxMessage)
	if uint64(cap(r.value)) < kept {
		r.value = make([]byte, kept)
	}
	r.value = r.value[:kept]
	if _, err := io.ReadFull(r.in, r.value); err != nil {
		return io.ErrUnexpectedEOF
	}
	for rest := size - kept; rest > 0; {
		n, err := r.in.Discard(int(min(rest, readAhead)))
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		rest -= uint64(n)
	}
	if end, err := r.in.ReadByte(); err != nil {
		return io.ErrUnexpectedEOF
	} else if end != '\n' {
		return malformed("no newline behind the %d bytes of %s", size, name)
	}
	if size > kept && bytes.Equal(name, messageField) {
		r.Cut++
	}
	r.field(e, name, r.value)
	return nil
}

// field takes in a field.
func (r *Reader) field(e *Entry, name, value []byte) {
	if len(name) == 0 {
		return
	}
	switch name[0] {
	case 'M':
		if bytes.Equal(name, messageField) {
			r.message = append(r.message[:0], r.keep(value)...)
		}
	case 'S':
		if bytes.Equal(name, identifierField) {
			r.addIdentifier(value)
		}
	case 'P':
		if bytes.Equal(name, priorityField) {
			e.Priority = priority(value)
		}
	case '_':
		if bytes.Equal(name, timeField) {
			r.stamp = append(r.stamp[:0], value[:min(len(value), 20)]...)
		}
	}
}

// maxIdentifiers is how many identifiers of one entry are looked at. journald writes one; a client can send more.
const maxIdentifiers = 8

// maxIdentifier is how long an identifier can be that is looked at. systemd's unit names are up to 255 bytes.
const maxIdentifier = 256

// addIdentifier keeps a copy, in memory of an earlier entry where there is some.
func (r *Reader) addIdentifier(value []byte) {
	n := len(r.identifiers)
	if n == maxIdentifiers || len(value) > maxIdentifier {
		return
	}
	if n < cap(r.identifiers) {
		r.identifiers = r.identifiers[:n+1]
		r.identifiers[n] = append(r.identifiers[n][:0], value...)
		return
	}
	r.identifiers = append(r.identifiers, bytes.Clone(value))
}

func (r *Reader) fill(e *Entry) {
	e.Message, e.Identifiers = r.message, r.identifiers
	e.stamp = stamp{kind: microseconds, text: r.stamp}
}

func priority(value []byte) int {
	if len(value) == 1 && '0' <= value[0] && value[0] <= '7' {
		return int(value[0] - '0')
	}
	return -1
}
