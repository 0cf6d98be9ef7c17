package main

import (
	"fmt"
	"time"

	"npd-plugins/internal/plugin"
)

const (
	// keptText is how much of a line is kept, in bytes.
	keptText = 512
	// shownExcerpt and loggedExcerpt are how much of it is told: log lines can hold what is nobody's business.
	shownExcerpt  = 136
	loggedExcerpt = 200
	// longWord is longer than a UUID (36) and shorter than the id of a container (64).
	longWord = 40
	// shortWord is how much of a long word is told; for ids of containers and sandboxes it is what crictl shows.
	shortWord = 13
)

// excerpt is the beginning of the line in at most so many bytes of printable
// ASCII. Of ids, and of tokens that look like them, only the beginning is told.
func (l *line) excerpt(most int) string {
	var out []byte
	for i := 0; i < len(l.text); {
		end := i
		for end < len(l.text) && isWord(l.text[end]) {
			end++
		}
		switch n := end - i; {
		case n == 0:
			if l.text[i] != '\\' { // before a quote within quotes
				out = append(out, l.text[i])
			}
			end++
		case n >= longWord:
			out = append(append(out, l.text[i:i+shortWord]...), ".."...)
		default:
			out = append(out, l.text[i:end]...)
		}
		i = end
	}
	return plugin.Safe(string(out), most)
}

func (l *line) detail() string {
	return fmt.Sprintf("%s %s: %s", l.at.UTC().Format(time.RFC3339), plugin.Safe(l.identifier, longWord), l.excerpt(loggedExcerpt))
}

func isWord(b byte) bool {
	return isLetter(b) || '0' <= b && b <= '9' || b == '_' || b == '-'
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// wordAt is where the word begins that a match begins in: patterns leave out a
// letter that comes in both cases.
func wordAt(message []byte, begin int) int {
	at := begin
	for at > 0 && isLetter(message[at-1]) {
		if at--; begin-at == longWord {
			return begin
		}
	}
	return at
}
