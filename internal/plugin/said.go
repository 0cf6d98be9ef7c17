package plugin

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	// saidFor is how long a warning that is not repeated is remembered. Some come
	// only every ten minutes, when a check reads again what seldom changes.
	saidFor = 20 * time.Minute

	// saidStep is how exactly it is remembered when: the state of a check that has
	// nothing new to remember shall stay the same.
	saidStep = 10 * time.Minute

	maxSaid = 100 // warnings; a run has a few
)

// said writes the log without the warnings that an earlier run wrote already, so
// that what stays the same is told once and not every 30 seconds. Numbers do not
// make a warning another one.
type said struct {
	logrus.Formatter
	step int64 // of this run

	mu    sync.Mutex
	known map[string]int64 // hashes of warnings, and the step of the last run that had it
	hush  bool             // what is known is left out
}

func newSaid(f logrus.Formatter, now time.Time) *said {
	return &said{Formatter: f, step: now.Unix() / int64(saidStep.Seconds()), known: map[string]int64{}}
}

// evidence is the context of warnings that are always written: the details at the
// onset of a Problem, which may be those of the last onset.
var evidence = context.WithValue(context.Background(), (*said)(nil), true)

// Format writes nothing for a warning that is known.
func (s *said) Format(entry *logrus.Entry) ([]byte, error) {
	if entry.Level == logrus.WarnLevel && entry.Context != evidence && s.knows(entry.Message) {
		return nil, nil
	}
	return s.Formatter.Format(entry)
}

func (s *said) knows(message string) bool {
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
	_, known := s.known[hash]
	if known || len(s.known) < maxSaid {
		s.known[hash] = s.step
	}
	return known && s.hush
}

// recall takes what keep returned in an earlier run. Without hush it is only kept on.
func (s *said) recall(before string, hush bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hush = hush
	for field := range strings.FieldsSeq(before) {
		hash, text, _ := strings.Cut(field, "@")
		step, err := strconv.ParseInt(text, 10, 64)
		if age := s.step - step; err == nil && age >= 0 && age <= int64(saidFor/saidStep) && len(s.known) < maxSaid {
			s.known[hash] = step
		}
	}
}

// keep is what the next run recalls.
func (s *said) keep() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fields []string
	for _, hash := range slices.Sorted(maps.Keys(s.known)) {
		fields = append(fields, fmt.Sprintf("%s@%d", hash, s.known[hash]))
	}
	return strings.Join(fields, " ")
}
