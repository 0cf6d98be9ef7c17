package plugin

import "strconv"

const (
	// longWord is longer than a UUID (36) and shorter than the id of a container (64).
	longWord = 40
	// shortWord is how much of a long word is told; for ids of containers and
	// sandboxes it is what crictl shows.
	shortWord = 13
)

// Excerpt is the beginning of a line of a log in at most so many bytes of
// printable ASCII. What was quoted, once or within other quotes, is written as
// it was meant. Of ids, and of tokens that look like them, only the beginning is
// told.
func Excerpt(line []byte, most int) string {
	line = unescape(line)
	var out []byte
	for i := 0; i < len(line); {
		end := i
		for end < len(line) && isWord(line[end]) {
			end++
		}
		switch n := end - i; {
		case n == 0:
			out = append(out, line[i])
			end++
		case n >= longWord:
			out = append(append(out, line[i:i+shortWord]...), ".."...)
		default:
			out = append(out, line[i:end]...)
		}
		i = end
	}
	return Safe(string(out), most)
}

func isWord(b byte) bool {
	return 'a' <= b|0x20 && b|0x20 <= 'z' || '0' <= b && b <= '9' || b == '_' || b == '-'
}

// unescape undoes what Go's %q, JSON and systemd's names write: \" and \' are
// the quote, \n, \t and their like a space, \x2d and \u003c the character, and
// what is no printable ASCII "?". Text that was quoted again has more than one
// backslash, which mean the same.
func unescape(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for i := 0; i < len(line); i++ {
		if line[i] != '\\' {
			out = append(out, line[i])
			continue
		}
		for i < len(line) && line[i] == '\\' {
			i++
		}
		if i == len(line) {
			break
		}
		switch c := line[i]; c {
		case 'n', 't', 'r', 'v', 'f':
			out = append(out, ' ')
		case 'x', 'u', 'U':
			digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			code, err := strconv.ParseUint(string(line[i+1:min(i+1+digits, len(line))]), 16, 32)
			switch {
			case err != nil:
				out = append(out, c)
				continue
			case code < ' ' || code > '~':
				out = append(out, '?')
			default:
				out = append(out, byte(code))
			}
			i += digits
		default:
			out = append(out, c)
		}
	}
	return out
}
