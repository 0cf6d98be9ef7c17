package logread

import "bytes"

// kernelIdentifier is what the kernel's lines carry in the journal and in a log of syslog.
const kernelIdentifier = "kernel"

var kernelName = []byte(kernelIdentifier)

// nextText reads the next line of a text log, in one of these forms:
//
//	Jan  2 15:04:05 host kubelet[123]: message             traditional, with or without a fraction of the second
//	2026-01-02T15:04:05.123456+00:00 host kubelet[123]: message
//	Jan  2 15:04:05 host kernel: [   12.345678] message    the kernel's own time is taken off
//	message                                                any other: no identifier but the reader's own
func (r *Reader) nextText(e *Entry) error {
	line, _, _, err := r.line(maxLine)
	if err != nil {
		return err
	}
	line = bytes.TrimSuffix(r.keep(line), []byte{'\r'})
	e.Line, e.Message = line, line
	r.identifiers = r.identifiers[:0]
	if rest, ok := e.takeTime(line); ok {
		e.Message = rest
		_, rest = word(rest) // the host
		if name, message, ok := tag(rest); ok {
			r.addIdentifier(name)
			e.Message = message
		} else {
			e.Message = line
		}
	} else if IsKlog(line) {
		e.stamp = stamp{klog, line[1:14]}
	} else if at, ok := bytes.CutPrefix(line, []byte(`time="`)); ok { // logrus
		e.stamp = stamp{rfc3339, at[:max(0, bytes.IndexByte(at[:min(len(at), 40)], '"'))]}
	}
	if len(r.identifiers) == 0 && r.Identifier != "" {
		r.addIdentifier([]byte(r.Identifier))
	}
	e.Identifiers = r.identifiers
	if len(e.Identifiers) == 1 && bytes.Equal(e.Identifiers[0], kernelName) {
		e.Message = e.withoutKernelTime(e.Message)
	}
	return nil
}

// takeTime takes the time off the front of a line.
func (e *Entry) takeTime(line []byte) (rest []byte, ok bool) {
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
			return nil, false
		}
		e.stamp = stamp{traditional, line[:15]}
		return line[first+1:], true
	case len(line) > 20 && isDate(line) && line[10] == 'T':
		at, rest := word(line)
		e.stamp = stamp{rfc3339, at}
		return rest, true
	}
	return nil, false
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

// withoutKernelTime takes "[   12.345678] " off, and what may stand behind it: the caller, "[T1] ". dmesg -T shows a date in its place.
func (e *Entry) withoutKernelTime(message []byte) []byte {
	inside, rest, ok := bracket(message)
	if !ok {
		return message
	}
	trimmed := bytes.TrimLeft(inside, " ")
	switch {
	case len(trimmed) > 0 && isDigit(trimmed[0]) && bytes.IndexByte(trimmed, '.') > 0:
	case len(trimmed) == len("Fri Jan  2 15:04:05 2026") && isTraditional(trimmed[4:]):
		e.stamp = stamp{dmesg, trimmed}
	default:
		return message
	}
	if caller, after, ok := bracket(rest); ok {
		caller = bytes.TrimLeft(caller, " ")
		if len(caller) > 1 && (caller[0] == 'T' || caller[0] == 'C') && isDigit(caller[1]) {
			rest = after
		}
	}
	return bytes.TrimPrefix(rest, []byte{' '})
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
