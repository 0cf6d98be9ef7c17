package logread

import (
	"bytes"
	"slices"
)

// kernelIdentifier is what the kernel's lines carry in the journal and in a log of syslog.
const kernelIdentifier = "kernel"

var kernelName = []byte(kernelIdentifier)

// nextText reads the next line of a text log, in one of these forms:
//
//	Jan  2 15:04:05 host kubelet[123]: message             traditional and journalctl's short, with or without a fraction of the second
//	2026-01-02T15:04:05.123456+00:00 host kubelet[123]: message     rsyslog's own and journalctl's short-iso
//	Fri 2026-01-02 15:04:05 UTC host kubelet[123]: message          journalctl's short-full
//	Fri 2026-01-02 15:04:05 UTC host kubelet.service[123]: message  its with-unit: the unit stands for the identifier
//	1767366245.123456 host kubelet[123]: message                    its short-unix
//	[12345.678901] host kubelet[123]: message                       its short-monotonic and short-delta
//	Jan  2 15:04:05 host kernel: [   12.345678] message    the kernel's own time is taken off
//	[   12.345678] message                                 the kernel's, as dmesg shows them in its several ways, or /dev/kmsg
//	message                                                any other: no identifier but the reader's own
//
// The host may be left out. A message of several lines, of which journalctl indents the further ones, is one.
func (r *Reader) nextText(e *Entry) error {
	line, _, _, err := r.line(maxLine)
	if err != nil {
		return err
	}
	line = bytes.TrimSuffix(r.keep(line), []byte{'\r'})
	if r.in.Buffered() < maxIndent { // a look at what follows would move it
		r.held = append(r.held[:0], line...)
		line = r.held
	}
	e.Line, e.Message = line, line
	r.identifiers = r.identifiers[:0]
	switch rest, how := e.takeTime(line, r.dmesg); how {
	case ofSyslog:
		e.Message = r.afterTime(rest, line)
	case ofKernel:
		r.addIdentifier(kernelName)
		e.Message = rest
	case ofNothing:
		if IsKlog(line) {
			e.stamp = stamp{klog, line[1:14]}
		} else if at, ok := bytes.CutPrefix(line, []byte(`time="`)); ok { // logrus
			e.stamp = stamp{rfc3339, at[:max(0, bytes.IndexByte(at[:min(len(at), 40)], '"'))]}
		}
	}
	named := len(r.identifiers) > 0
	if !named && r.Identifier != "" {
		r.addIdentifier([]byte(r.Identifier))
	}
	e.Identifiers = r.identifiers
	if len(e.Identifiers) == 1 && bytes.Equal(e.Identifiers[0], kernelName) {
		e.Message = e.withoutKernelTime(e.Message)
	}
	if named && len(e.Message) < len(line) {
		r.furtherLines(e, len(line)-len(e.Message))
	}
	if isBlob(e.Message) {
		r.Blobs++
	}
	return nil
}

// afterTime takes host and tag off a line of syslog and returns the message, or the whole line if there is no tag.
func (r *Reader) afterTime(rest, line []byte) []byte {
	first, after := word(rest)
	if !bytes.HasSuffix(first, []byte{':'}) { // a host
		rest = after
	}
	name, message, ok := tag(rest)
	if !ok {
		return line
	}
	if unit, ok := bytes.CutSuffix(name, []byte(".service")); ok {
		r.Units++
		name = unit[bytes.LastIndexByte(unit, '/')+1:] // user@0.service/name.service
	}
	r.addIdentifier(name)
	return message
}

// furtherLines adds the lines that begin with as many blanks as stand before the message.
func (r *Reader) furtherLines(e *Entry, indent int) {
	if indent > maxIndent {
		return
	}
	joined, cut := false, false
	for {
		blanks, err := r.in.Peek(indent)
		if err != nil || len(bytes.TrimLeft(blanks, " ")) > 0 {
			return
		}
		if !joined { // the line is in memory that the next one will be read into
			r.message = append(r.message[:0], e.Message...)
			e.Line, e.stamp.text = bytes.Clone(e.Line), bytes.Clone(e.stamp.text)
			joined = true
		}
		further, _, _, err := r.line(maxLine)
		if err != nil {
			return
		}
		further = further[indent:]
		if room := MaxMessage - len(r.message) - 1; len(further) > room {
			further = further[:max(0, room)]
			if !cut {
				r.Cut++
			}
			cut = true
		}
		if len(r.message) < MaxMessage {
			r.message = append(append(r.message, '\n'), further...)
		}
		e.Message = r.message
	}
}

// maxIndent is above what stands before any message: a time, a host name of up to 64 bytes, an identifier.
const maxIndent = 512

// isBlob says whether journalctl shows how long a message is instead of it: it holds control characters.
func isBlob(message []byte) bool {
	return bytes.HasSuffix(message, []byte("B blob data]")) && message[0] == '['
}

// origin is who writes lines that begin like this.
type origin int

const (
	ofNothing origin = iota // it cannot be told
	ofSyslog                // a host and a tag follow
	ofKernel
)

// takeTime takes the time off the front of a line. In the output of dmesg a time in brackets is the kernel's; elsewhere it is journalctl's.
func (e *Entry) takeTime(line []byte, dmesg bool) (rest []byte, how origin) {
	switch {
	case len(line) > 16 && isTraditional(line):
		first := 15
		if line[15] == '.' {
			first = 16
			for first < len(line) && isDigit(line[first]) {
				first++
			}
		}
		if first >= len(line) || line[first] != ' ' {
			return nil, ofNothing
		}
		e.stamp = stamp{traditional, line[:15]}
		return line[first+1:], ofSyslog
	case len(line) > 20 && isDate(line) && line[10] == 'T':
		at, rest := word(line)
		e.stamp = stamp{rfc3339, at}
		if len(at) > 19 && at[19] == ',' { // dmesg --time-format iso
			return rest, ofKernel
		}
		return rest, ofSyslog
	case isFull(line):
		_, rest = word(line[15:])
		zone, rest := word(rest)
		e.stamp = stamp{full, line[4 : len(line)-len(rest)-min(1, len(rest))]}
		if len(zone) == 0 {
			return nil, ofNothing
		}
		return rest, ofSyslog
	case len(line) > 18 && isUnix(line):
		e.stamp = stamp{unix, line[:17]}
		return line[18:], ofSyslog
	}
	if rest, ok := kmsg(line); ok {
		return rest, ofKernel
	}
	if rest, ok := e.kernelTime(facility(line)); ok {
		if dmesg || e.stamp.kind != none {
			return bytes.TrimPrefix(rest, []byte{' '}), ofKernel
		}
		return bytes.TrimPrefix(rest, []byte{' '}), ofSyslog
	}
	return nil, ofNothing
}

// isFull says whether a line begins like "Fri 2026-01-02 15:04:05 UTC" or "Fri 2026-01-02 15:04:05.123456 UTC".
func isFull(s []byte) bool {
	return len(s) > 27 && 'A' <= s[0] && s[0] <= 'Z' && s[3] == ' ' && isDate(s[4:]) && s[14] == ' ' && s[17] == ':' && s[20] == ':' && isDigit(s[22]) && (s[23] == ' ' || s[23] == '.')
}

// isUnix says whether a line begins like "1767366245.123456 ".
func isUnix(s []byte) bool {
	for i, c := range s[:17] {
		if isDigit(c) == (i == 10) {
			return false
		}
	}
	return s[10] == '.' && s[17] == ' '
}

// kmsg takes "6,1234,12345678,-;" off, which /dev/kmsg begins a line with.
func kmsg(line []byte) (message []byte, ok bool) {
	if len(line) == 0 || !isDigit(line[0]) {
		return nil, false
	}
	head, _, found := bytes.Cut(line[:min(len(line), 80)], []byte{';'})
	fields := bytes.SplitN(head, []byte{','}, 4)
	if !found || len(fields) < 4 || slices.ContainsFunc(fields[:3], func(f []byte) bool { return len(bytes.Trim(f, "0123456789")) > 0 }) {
		return nil, false
	}
	return line[len(head)+1:], true
}

// facility takes "<6>" or "kern  :info  : " off, which dmesg --raw and dmesg -x begin a line with.
func facility(line []byte) []byte {
	switch {
	case len(line) > 15 && line[6] == ':' && line[13] == ':' && line[14] == ' ':
		return line[15:]
	case len(line) > 3 && line[0] == '<' && isDigit(line[1]):
		if end := bytes.IndexByte(line[:min(len(line), 6)], '>'); end > 0 {
			return line[end+1:]
		}
	}
	return line
}

// isDmesg says whether lines that begin with a time in brackets are the kernel's, and not journalctl's, where a host and a tag follow:
// the host is the same everywhere, and some tag has a number or is that of the kernel.
func isDmesg(head []byte) bool {
	var host []byte
	sure := false
	for line := range bytes.Lines(head) {
		if !bytes.HasSuffix(line, []byte{'\n'}) && host != nil {
			break // it may be cut off
		}
		rest, ok := new(Entry).kernelTime(facility(line))
		if !ok {
			continue
		}
		first, after := word(bytes.TrimPrefix(rest, []byte{' '}))
		if host != nil && !bytes.Equal(first, host) || bytes.HasSuffix(first, []byte{':'}) {
			return true
		}
		host = first
		if name, _, ok := tag(bytes.TrimRight(after, "\n")); ok {
			sure = sure || bytes.Equal(name, kernelName) || after[len(name)] == '['
		}
	}
	return !sure
}

// isTraditional says whether a line begins like "Jan  2 15:04:05".
func isTraditional(s []byte) bool {
	return 'A' <= s[0] && s[0] <= 'Z' && s[3] == ' ' && s[6] == ' ' && isDigit(s[5]) && isDigit(s[7]) && s[9] == ':' && s[12] == ':' && isDigit(s[14])
}

// IsKlog says whether a message begins like "E0102 15:04:05.123456", the header of Kubernetes' logs: severity, month, day, time.
func IsKlog(s []byte) bool {
	return len(s) > 21 && bytes.IndexByte([]byte("IWEF"), s[0]) >= 0 && isDigit(s[1]) && isDigit(s[4]) && s[5] == ' ' && s[8] == ':' && s[11] == ':' && s[14] == '.'
}

// isDate says whether a line begins like "2026-01-02".
func isDate(s []byte) bool {
	return isDigit(s[0]) && isDigit(s[3]) && s[4] == '-' && isDigit(s[6]) && s[7] == '-' && isDigit(s[9])
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// word splits a line at its first blank.
func word(line []byte) (first, rest []byte) {
	i := bytes.IndexByte(line, ' ')
	if i < 0 {
		return line, nil
	}
	return line[:i], line[i+1:]
}

// tag splits "kubelet[123]: message" or "kubelet: message". The identifier ends where the number or the colon begins.
func tag(line []byte) (name, message []byte, ok bool) {
	for i, c := range line {
		switch {
		case c == ':' && i > 0 && (i+1 == len(line) || line[i+1] == ' '):
			return line[:i], afterColon(line[i+1:]), true
		case c == '[' && i > 0:
			end := bytes.Index(line[i:], []byte("]:"))
			if end < 0 || bytes.IndexByte(line[i:i+end], ' ') >= 0 {
				return nil, nil, false
			}
			return line[:i], afterColon(line[i+end+2:]), true
		case c == ' ' || i == maxIdentifier:
			return nil, nil, false
		}
	}
	return nil, nil, false
}

func afterColon(s []byte) []byte { return bytes.TrimPrefix(s, []byte{' '}) }

// withoutKernelTime takes "[   12.345678] " off a message.
func (e *Entry) withoutKernelTime(message []byte) []byte {
	rest, ok := e.kernelTime(message)
	if !ok {
		return message
	}
	return bytes.TrimPrefix(rest, []byte{' '})
}

// kernelTime takes the time in brackets off the front of a line: [   12.345678], or as dmesg -T, -H and -d, and journalctl's short-delta
// show it. Behind it may stand the caller, "[T1]", which goes too.
func (e *Entry) kernelTime(line []byte) (rest []byte, ok bool) {
	inside, rest, ok := bracket(line)
	if !ok {
		return nil, false
	}
	trimmed := bytes.TrimLeft(inside, " <+")
	switch {
	case len(trimmed) > 0 && isDigit(trimmed[0]) && bytes.IndexByte(trimmed, '.') > 0:
	case len(trimmed) == len("Fri Jan  2 15:04:05 2026") && isTraditional(trimmed[4:]):
		e.stamp = stamp{dmesg, trimmed}
	case len(trimmed) == len("Jan02 15:04") && isDigit(trimmed[3]) && trimmed[5] == ' ' && trimmed[8] == ':':
	default:
		return nil, false
	}
	if caller, after, ok := bracket(rest); ok {
		caller = bytes.TrimLeft(caller, " ")
		if len(caller) > 1 && (caller[0] == 'T' || caller[0] == 'C') && isDigit(caller[1]) {
			rest = after
		}
	}
	return rest, true
}

// bracket splits "[inside]rest".
func bracket(s []byte) (inside, rest []byte, ok bool) {
	if len(s) == 0 || s[0] != '[' {
		return nil, nil, false
	}
	end := bytes.IndexByte(s[:min(len(s), 40)], ']')
	if end < 0 {
		return nil, nil, false
	}
	return s[1:end], s[end+1:], true
}
