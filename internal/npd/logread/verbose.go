package logread

import "bytes"

// verboseIndent stands before each field of an entry.
var verboseIndent = []byte("    ")

// isVerbose says whether a stream is that of journalctl -o verbose: a line with time and cursor, and below it indented fields.
func isVerbose(head []byte) bool {
	for {
		line, rest, found := bytes.Cut(head, []byte{'\n'})
		if !found {
			return false
		}
		if !bytes.HasPrefix(line, []byte("-- ")) { // -- Boot ... --
			return isFull(line) && bytes.HasSuffix(line, []byte{']'}) && bytes.HasPrefix(rest, verboseIndent)
		}
		head = rest
	}
}

// nextVerbose reads a line with the time, and the fields below it. Lines of other forms are between boots. Of a value of several lines
// the further ones are indented up to where the first begins.
func (r *Reader) nextVerbose(e *Entry) error {
	r.message, r.identifiers = r.message[:0], r.identifiers[:0]
	for {
		line, _, _, err := r.line(maxLine)
		if err != nil {
			return err
		}
		if isFull(line) {
			if _, how := e.takeTime(bytes.Clone(line), false); how == ofSyslog {
				break
			}
		}
		r.Skipped++
	}
	var name []byte
	r.value = r.value[:0]
	for {
		indent, err := r.in.Peek(len(verboseIndent))
		if err != nil || !bytes.Equal(indent, verboseIndent) {
			break
		}
		line, _, _, err := r.line(maxLine)
		if err != nil {
			break
		}
		line = line[len(verboseIndent):]
		before, value, found := bytes.Cut(line, []byte{'='})
		if found && isName(before) {
			r.field(e, name, r.value)
			name = append(name[:0], before...)
			r.value = append(r.value[:0], value...)
			continue
		}
		if further := line[min(len(line), len(name)+1):]; len(r.value) <= MaxMessage { // what is more is cut, and counted
			r.value = append(append(r.value, '\n'), further...)
		}
	}
	r.field(e, name, r.value)
	if isBlob(r.message) {
		r.Blobs++
	}
	e.Message, e.Identifiers = r.message, r.identifiers
	return nil
}
