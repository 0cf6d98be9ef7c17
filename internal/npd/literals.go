package npd

import (
	"slices"
	"strings"
)

// literals tells, after one look at a line, which patterns can match it at all. Searching the line for each literal of
// each pattern costs microseconds with some dozens of rules; this costs about a nanosecond a byte, however many there are.
//
// From each literal four bytes are taken. All four bytes in a row of a line are looked up among them, and where they are
// found, the literal is compared as a whole.
type literals struct {
	texts  []string
	grams  map[uint32][]gram
	known  [1 << (gramBits - 6)]uint64 // a bit for the hash of each gram
	found  []bool                      // by literal, in the last line searched
	hits   []int                       // the literals found
	needs  [][][]int                   // by pattern: of each list one must be found
	always bool                        // some pattern has no needs
}

// gram is where a literal can be when its four bytes are found: they are at offset in it.
type gram struct{ literal, offset int }

// gramBits makes a table of 2 KiB, so that it stays in the cache, and with a hundred literals less than one in a
// hundred lookups finds a bit that another gram has set.
const gramBits = 14

func newLiterals(patterns []*pattern) *literals {
	l := &literals{grams: map[uint32][]gram{}}
	index := map[string]int{}
	for _, p := range patterns {
		var needs [][]int
		for _, list := range p.needs {
			if shortest(list) < 4 {
				continue
			}
			var some []int
			for _, text := range list {
				if _, ok := index[text]; !ok {
					index[text] = len(l.texts)
					l.add(text)
				}
				some = append(some, index[text])
			}
			needs = append(needs, some)
		}
		l.needs = append(l.needs, needs)
		l.always = l.always || len(needs) == 0 || !p.lastLine
	}
	l.found = make([]bool, len(l.texts))
	return l
}

func (l *literals) add(text string) {
	at := rarest(text)
	word := four(text[at:])
	l.grams[word] = append(l.grams[word], gram{len(l.texts), at})
	l.texts = append(l.texts, text)
	h := hash(word)
	l.known[h>>6] |= 1 << (h & 63)
}

// rarest returns where the four bytes of text begin that hold fewest of the letters that logs are full of.
func rarest(text string) int {
	best, least := 0, 5
	for i := range len(text) - 3 {
		common := 0
		for _, c := range []byte(text[i : i+4]) {
			if strings.IndexByte(" etaoinsrldcp", c) >= 0 {
				common++
			}
		}
		if common < least {
			best, least = i, common
		}
	}
	return best
}

func four(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func hash(word uint32) uint32 { return word * 0x9e3779b1 >> (32 - gramBits) }

// search notes which literals line holds, and says whether any pattern can match it.
func (l *literals) search(line string) bool {
	for _, i := range l.hits {
		l.found[i] = false
	}
	l.hits = l.hits[:0]
	for i := 0; i+4 <= len(line); i++ {
		word := four(line[i : i+4])
		h := hash(word)
		if l.known[h>>6]&(1<<(h&63)) != 0 {
			l.compare(line, i, word)
		}
	}
	return l.always || len(l.hits) > 0
}

func (l *literals) compare(line string, at int, word uint32) {
	for _, g := range l.grams[word] {
		if begin := at - g.offset; begin >= 0 && !l.found[g.literal] && strings.HasPrefix(line[begin:], l.texts[g.literal]) {
			l.found[g.literal] = true
			l.hits = append(l.hits, g.literal)
		}
	}
}

// enough says whether the last line searched holds what pattern i needs.
func (l *literals) enough(i int) bool {
	for _, some := range l.needs[i] {
		if !slices.ContainsFunc(some, func(literal int) bool { return l.found[literal] }) {
			return false
		}
	}
	return true
}
