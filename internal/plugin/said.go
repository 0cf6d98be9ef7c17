package plugin

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
)

// maxSaid is how many warnings of a run are remembered; a run has a few.
const maxSaid = 100

// said writes the log without the warnings that the last run wrote already, so
// that what stays the same is told once and not every 30 seconds. Numbers do not
// make a warning another one.
type said struct {
	logrus.Formatter

	mu     sync.Mutex
	before string          // the hashes of the last run, sorted
	now    map[string]bool // those of this run
}

// Format writes nothing for a warning that is known.
func (s *said) Format(entry *logrus.Entry) ([]byte, error) {
	if entry.Level == logrus.WarnLevel && s.known(entry.Message) {
		return nil, nil
	}
	return s.Formatter.Format(entry)
}

func (s *said) known(message string) bool {
	h := fnv.New64a()
	h.Write([]byte(strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, message)))
	hash := fmt.Sprintf("%016x", h.Sum64())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.now) < maxSaid {
		s.now[hash] = true
	}
	return strings.Contains(s.before, hash)
}

// recall takes the hashes that an earlier run kept.
func (s *said) recall(before string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// hashes are those of this run, for the next.
func (s *said) hashes() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(s.now)), " ")
}
