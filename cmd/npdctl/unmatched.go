package main

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"
	"strings"

	"npd-plugins/internal/npd/logread"
)

const (
	topShapes   = 20   // shown
	knownShapes = 1000 // counted at the same time
	maxShape    = 200  // bytes of a line that its shape is made of, at most twice as many come out
)

// shape is what lines have in common whose numbers, ids and quoted texts differ.
type shape struct {
	Identifier string `json:"identifier"`
	Shape      string `json:"shape"`
	Count      int    `json:"count"`  // at most so many
	Over       int    `json:"over"`   // and at least so many fewer; 0 with up to 1000 kinds
	Sample     string `json:"sample"` // the first line
	place      int    // in the heap
}

// shapes counts the most frequent shapes with bounded memory: the Space-Saving sketch of Metwally, Agrawal and El Abbadi. A new
// shape takes the place of the rarest one, and its count too. What makes up more than a thousandth of the lines is always there.
type shapes struct {
	known map[string]*shape // by identifier and shape
	heap  shapeHeap         // the rarest first
	text  []byte
}

func newShapes() *shapes { return &shapes{known: map[string]*shape{}} }

// take counts a line that no rule matched, if it looks like an error.
func (s *shapes) take(e *logread.Entry) {
	message := bytes.TrimSpace(e.Message)
	if !looksBad(message, e.Priority) {
		return
	}
	var identifier []byte
	if len(e.Identifiers) > 0 {
		identifier = e.Identifiers[0]
	}
	s.text = append(append(s.text[:0], identifier...), 0)
	s.text = appendShape(s.text, message[:min(len(message), maxShape)])
	if known := s.known[string(s.text)]; known != nil {
		known.Count++
		heap.Fix(&s.heap, known.place)
		return
	}
	key := string(s.text)
	one := &shape{
		Identifier: printable(string(identifier)),
		Shape:      printable(strings.ToValidUTF8(key[len(identifier)+1:], "?")),
		Count:      1,
		Sample:     sample(string(message)),
	}
	if len(s.heap) == knownShapes {
		rarest := heap.Pop(&s.heap).(keyed)
		delete(s.known, rarest.key)
		one.Over = rarest.Count
		one.Count += rarest.Count
	}
	s.known[key] = one
	heap.Push(&s.heap, keyed{one, key})
}

// top returns the n most frequent shapes.
func (s *shapes) top(n int) []shape {
	all := []shape{}
	for _, one := range s.known {
		all = append(all, *one)
	}
	slices.SortFunc(all, func(a, b shape) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Identifier, b.Identifier), cmp.Compare(a.Shape, b.Shape))
	})
	return all[:min(n, len(all))]
}

type keyed struct {
	*shape
	key string
}

// shapeHeap is a heap of container/heap.
type shapeHeap []keyed

func (h shapeHeap) Len() int           { return len(h) }
func (h shapeHeap) Less(i, j int) bool { return h[i].Count < h[j].Count }
func (h shapeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *shapeHeap) Push(x any) {
	one := x.(keyed)
	one.place = len(*h)
	*h = append(*h, one)
}

func (h *shapeHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// errPriority is syslog's LOG_ERR; lower is worse.
const errPriority = 3

// looksBad says whether a line looks like an error.
func looksBad(message []byte, priority int) bool {
	if 0 <= priority && priority <= errPriority {
		return true
	}
	if logread.IsKlog(message) && (message[0] == 'E' || message[0] == 'F') {
		return true
	}
	inWord := false
	for i, c := range message {
		letter := isLetter(c)
		if letter && !inWord && badWord(message[i:]) {
			return true
		}
		inWord = letter
	}
	return false
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// badWords are what errors are told with, at the beginning of a word: "errors" and "panicked" too, and the levels of logrus and JSON.
var badWords = []string{"error", "failed", "failure", "panic", "fatal", "timed out"}

func badWord(s []byte) bool {
	switch s[0] | 0x20 {
	case 'e', 'f', 'p', 't':
	default:
		return false
	}
	for _, word := range badWords {
		if len(s) >= len(word) && s[0]|0x20 == word[0] && strings.EqualFold(string(s[:len(word)]), word) {
			return true
		}
	}
	return false
}

// appendShape appends the shape of a line. A quoted text becomes "*" unless it is the message or the error of structured
// logs (those of klog, logrus and JSON) or the name of a JSON field.
func appendShape(to, line []byte) []byte {
	if logread.IsKlog(line) {
		if end := bytes.Index(line, []byte("] ")); end > 0 {
			source := line[bytes.LastIndexByte(line[:end], ' ')+1 : end]
			file, _, _ := bytes.Cut(source, []byte{':'})
			to = append(append(append(to, line[0], ' '), file...), ' ')
			line = line[end+2:]
			if text, rest, ok := quoted(line); ok {
				to = append(appendWords(append(to, '"'), text), '"')
				line = rest
			}
		}
	}
	for {
		open := bytes.IndexByte(line, '"')
		if open < 0 {
			return appendWords(to, line)
		}
		before := line[:open]
		to = appendWords(to, before)
		text, rest, _ := quoted(line[open:])
		switch {
		case telling(before) && len(text) > 0:
			to = append(appendWords(append(to, '"'), text), '"')
		case len(rest) > 0 && rest[0] == ':':
			to = append(append(append(to, '"'), text...), '"')
			if len(text) > 0 && tellingName(text) {
				if value, after, ok := quoted(bytes.TrimLeft(rest[1:], " ")); ok {
					to = append(appendWords(append(to, `:"`...), value), '"')
					rest = after
				}
			}
		default:
			to = append(to, `"*"`...)
		}
		line = rest
	}
}

// quoted splits a text that begins with a quote, if it does. One that is cut off has no second one, and goes to the end.
func quoted(s []byte) (text, rest []byte, ok bool) {
	if len(s) == 0 || s[0] != '"' {
		return nil, nil, false
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], s[i+1:], true
		}
	}
	return s[1:], nil, true
}

// telling says whether the value that follows is the message or the error: msg= and the like.
func telling(before []byte) bool {
	name, ok := bytes.CutSuffix(before, []byte{'='})
	return ok && tellingName(name[bytes.LastIndexByte(name, ' ')+1:])
}

func tellingName(name []byte) bool {
	switch string(name) {
	case "msg", "err", "error", "message", "level":
		return true
	}
	return false
}

// appendWords appends text with N for each number, ID for what is of hexadecimal digits, a UUID, or letters and digits mixed, and
// "*" for a quoted text in it.
func appendWords(to, text []byte) []byte {
	for len(text) > 0 {
		switch c := text[0]; {
		case c == '\\' && len(text) > 1 && text[1] == '"':
			end := bytes.Index(text[2:], []byte(`\"`))
			if end < 0 {
				return append(to, `"*`...)
			}
			to = append(to, `"*"`...)
			text = text[2+end+2:]
		case isWord(c):
			n := 1
			for n < len(text) && (isWord(text[n]) || text[n] == '-' && n+1 < len(text) && isWord(text[n+1])) {
				n++
			}
			to = appendWord(to, text[:n])
			text = text[n:]
		default:
			to = append(to, c)
			text = text[1:]
		}
	}
	return to
}

func isWord(c byte) bool { return isLetter(c) || isNumeral(c) }

func isNumeral(c byte) bool { return '0' <= c && c <= '9' }

// appendWord appends a word, which can be several with hyphens between them.
func appendWord(to, word []byte) []byte {
	if len(word) == 36 && word[8] == '-' && word[13] == '-' && isHex(word[:8]) {
		return append(to, "ID"...)
	}
	for i := 0; ; {
		end := bytes.IndexByte(word[i:], '-')
		part := word[i:]
		if end >= 0 {
			part = word[i : i+end]
		}
		to = appendPart(to, part)
		if end < 0 {
			return to
		}
		to = append(to, '-')
		i += end + 1
	}
}

func appendPart(to, part []byte) []byte {
	digits, changes := 0, 0
	for i, c := range part {
		if isNumeral(c) {
			digits++
		}
		if i > 0 && isNumeral(c) != isNumeral(part[i-1]) {
			changes++
		}
	}
	switch {
	case digits == 0:
		return append(to, part...)
	case digits == len(part):
		return append(to, 'N')
	case len(part) >= 8 && isHex(part), len(part) >= 5 && changes > 2:
		return append(to, "ID"...)
	}
	for i, c := range part {
		if !isNumeral(c) {
			to = append(to, c)
		} else if i == 0 || !isNumeral(part[i-1]) {
			to = append(to, 'N')
		}
	}
	return to
}

func isHex(s []byte) bool {
	for _, c := range s {
		if !isNumeral(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}
