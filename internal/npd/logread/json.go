package logread

import (
	"bytes"
	"encoding/json"
	"unicode/utf16"
	"unicode/utf8"
)

// What journalctl -o json-seq and -o json-sse put before each object.
var (
	recordSeparator = []byte{0x1e}
	ssePrefix       = []byte("data: ")
)

// nextJSON reads the next line that is a journal entry.
func (r *Reader) nextJSON(e *Entry) error {
	for {
		line, long, _, err := r.line(maxJSON)
		if err != nil {
			return err
		}
		line = bytes.TrimPrefix(bytes.TrimPrefix(line, recordSeparator), ssePrefix)
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		r.message, r.identifiers, r.stamp = r.message[:0], r.identifiers[:0], r.stamp[:0]
		if !long && r.object(e, line) {
			r.fill(e)
			return nil
		}
		r.Skipped++
	}
}

// object takes in the fields of one JSON object. It is seven times faster than encoding/json (BenchmarkRead), because it steps over the
// fields that are not asked for. It demands no more of them than that they end.
func (r *Reader) object(e *Entry, line []byte) bool {
	s := scanner{line, 0}
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return s.blank()
	}
	for {
		key, ok := s.text()
		if !ok || !s.take(':') {
			return false
		}
		if name := key[1 : len(key)-1]; len(name) > 0 && wanted(name[0]) {
			value, ok := s.value()
			if !ok || !r.member(e, name, value) {
				return false
			}
		} else if _, ok := s.value(); !ok {
			return false
		}
		if s.take(',') {
			continue
		}
		return s.take('}') && s.blank()
	}
}

// wanted says whether a field that begins so can be one of those looked at. journalctl escapes nothing in names.
func wanted(first byte) bool { return first == 'M' || first == 'S' || first == 'P' || first == '_' }

// member takes in one field. A value is a string, or an array of its bytes where it is no UTF-8 or has control characters, or an
// array of several values, or null where it is too long and journalctl was called without --all.
func (r *Reader) member(e *Entry, name, value []byte) bool {
	isMessage, isIdentifier := bytes.Equal(name, messageField), bytes.Equal(name, identifierField)
	if !isMessage && !isIdentifier && !bytes.Equal(name, priorityField) && !bytes.Equal(name, timeField) {
		return true
	}
	if value[0] == '"' {
		var ok bool
		if r.value, ok = unquote(r.value[:0], value[1:len(value)-1]); ok {
			r.field(e, name, r.value)
		}
		return ok
	}
	if value[0] != '[' {
		if isMessage {
			r.message = r.message[:0]
		}
		return true
	}
	texts, ok := array(value)
	for _, text := range texts {
		r.field(e, name, text)
	}
	return ok
}

// array returns the values of a field that is an array.
func array(value []byte) (texts [][]byte, ok bool) {
	var octets []int
	if json.Unmarshal(value, &octets) == nil {
		text := make([]byte, len(octets))
		for i, o := range octets {
			text[i] = byte(o)
		}
		return [][]byte{text}, true
	}
	var several []json.RawMessage
	if json.Unmarshal(value, &several) != nil {
		return nil, false
	}
	for _, one := range several {
		var text string
		var octets []int
		switch {
		case json.Unmarshal(one, &text) == nil:
			texts = append(texts, []byte(text))
		case json.Unmarshal(one, &octets) == nil:
			bare, _ := array(one)
			texts = append(texts, bare...)
		}
	}
	return texts, true
}

// scanner steps through JSON.
type scanner struct {
	data []byte
	at   int
}

func (s *scanner) space() {
	for s.at < len(s.data) && (s.data[s.at] == ' ' || s.data[s.at] == '\t' || s.data[s.at] == '\r') {
		s.at++
	}
}

// blank says that nothing follows.
func (s *scanner) blank() bool {
	s.space()
	return s.at == len(s.data)
}

func (s *scanner) take(c byte) bool {
	s.space()
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

// text returns a string with its quotes.
func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	begin := s.at - 1
	for {
		i := bytes.IndexByte(s.data[s.at:], '"')
		if i < 0 {
			return nil, false
		}
		end := s.at + i
		s.at = end + 1
		// The quote ends the string if an even number of backslashes is before it.
		slashes := 0
		for end-1-slashes > begin && s.data[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return s.data[begin:s.at], true
		}
	}
}

// value returns any value; of an array or object only where it ends is looked at.
func (s *scanner) value() ([]byte, bool) {
	s.space()
	begin, depth := s.at, 0
	for s.at < len(s.data) {
		switch c := s.data[s.at]; c {
		case '"':
			if _, ok := s.text(); !ok {
				return nil, false
			}
		case '[', '{':
			depth++
			s.at++
		case ']', '}', ',', ' ', '\t', '\r':
			if depth == 0 {
				return s.data[begin:s.at], s.at > begin
			}
			if c == ']' || c == '}' {
				depth--
			}
			s.at++
		default:
			s.at++
			continue
		}
		if depth == 0 {
			return s.data[begin:s.at], true
		}
	}
	return nil, false
}

// unquote appends what stands between the quotes of a JSON string.
func unquote(to, text []byte) ([]byte, bool) {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(to, text...), true
		}
		to = append(to, text[:i]...)
		if i+1 >= len(text) {
			return to, false
		}
		c := text[i+1]
		text = text[i+2:]
		switch c {
		case '"', '\\', '/':
			to = append(to, c)
		case 'b':
			to = append(to, '\b')
		case 'f':
			to = append(to, '\f')
		case 'n':
			to = append(to, '\n')
		case 'r':
			to = append(to, '\r')
		case 't':
			to = append(to, '\t')
		case 'u':
			first, ok := hex4(text)
			if !ok {
				return to, false
			}
			text = text[4:]
			if utf16.IsSurrogate(first) {
				second := rune(utf8.RuneError)
				if len(text) >= 6 && text[0] == '\\' && text[1] == 'u' {
					second, _ = hex4(text[2:])
				}
				if first = utf16.DecodeRune(first, second); first != utf8.RuneError {
					text = text[6:]
				}
			}
			to = utf8.AppendRune(to, first)
		default:
			return to, false
		}
	}
}

func hex4(text []byte) (rune, bool) {
	if len(text) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range text[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
