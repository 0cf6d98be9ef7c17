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
	// longWord is how far a word is followed back to its begin.
	longWord = 40
)

func (l *line) excerpt(most int) string { return plugin.Excerpt(l.text, most) }

func (l *line) detail() string {
	return fmt.Sprintf("%s %s: %s", l.at.UTC().Format(time.RFC3339), plugin.Safe(l.identifier, longWord), l.excerpt(loggedExcerpt))
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
