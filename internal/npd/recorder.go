package npd

import (
	"container/list"
	"hash/maphash"
	"math"
	"time"
)

// What client-go's event recorder does with the events of one source (tools/record/events_cache.go). NPD uses the defaults.
const (
	EventBurst          = 25              // events of one source and type at once
	EventRefill         = 5 * time.Minute // one more after that
	combineFrom         = 10              // different messages of one reason
	combineWithin       = 10 * time.Minute
	recorderCacheLength = 4096 // least recently used entries of each cache
)

// Fate is what becomes of an event on its way to the API server.
type Fate int

const (
	Dropped Fate = iota // over the limit of its source
	Created             // a new Event object
	Counted             // the count of an Event that is there already goes up
)

// Recorder tells what becomes of the events of one source. NPD has one recorder for each source, whichever file it is in, and
// a node is the only object that its events are about. It keeps a bounded number of hashes and no texts.
//
// It is client-go's correlator with the time of the log in place of the time of writing. Three things are not modelled: that a
// restart of NPD starts afresh, that the API server forgets an Event an hour after its last write (the next one is then
// created again), and that more than 1000 events waiting to be written are dropped. And where client-go forgets any one of
// ten similar messages, Recorder forgets the oldest; that can move events between one text and the combined one.
type Recorder struct {
	buckets map[string]*bucket // by type: Normal or Warning
	similar lru[*similar]
	written lru[*bool]
}

// NewRecorder returns the recorder of a source that has written nothing.
func NewRecorder() *Recorder {
	return &Recorder{buckets: map[string]*bucket{}}
}

// Record takes in the next event. Combined says that it counts for an Event whose text begins with "(combined from similar
// events): ", because ten events of its reason with different messages came with no ten minutes between any two.
func (r *Recorder) Record(e *Event) (fate Fate, combined bool) {
	similarity := fingerprint(e.Type, e.Reason)
	group := r.similar.get(similarity, func() *similar { return &similar{} })
	combined = group.add(e.Message, e.Time)
	which := fingerprint(e.Type, e.Reason, e.Message)
	if combined {
		which = similarity
	}
	written := r.written.get(which, func() *bool { return new(bool) })
	limit := r.buckets[e.Type]
	if limit == nil {
		limit = &bucket{tokens: EventBurst}
		r.buckets[e.Type] = limit
	}
	switch {
	case !limit.take(e.Time):
		return Dropped, combined
	case *written:
		return Counted, combined
	}
	*written = true
	return Created, combined
}

var seed = maphash.MakeSeed()

// fingerprint stands for a text, which may be 1 MiB long. Two texts share one with a probability of 2^-64.
func fingerprint(parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, part := range parts {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// bucket is golang.org/x/time/rate's token bucket.
type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) take(now time.Time) bool {
	if passed := now.Sub(b.last); passed > 0 && !b.last.IsZero() {
		b.tokens = math.Min(EventBurst, b.tokens+passed.Seconds()/EventRefill.Seconds())
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// similar are events that differ only in their message.
type similar struct {
	messages []uint64 // hashes, the oldest first, fewer than combineFrom
	last     time.Time
}

// add says whether the message is one too many.
func (s *similar) add(message string, now time.Time) bool {
	if now.Sub(s.last) > combineWithin {
		s.messages = s.messages[:0]
	}
	s.last = now
	h := fingerprint(message)
	for _, known := range s.messages {
		if known == h {
			return false
		}
	}
	s.messages = append(s.messages, h)
	if len(s.messages) < combineFrom {
		return false
	}
	s.messages = append(s.messages[:0], s.messages[1:]...)
	return true
}

// lru holds the recorderCacheLength values used last, by fingerprint.
type lru[V any] struct {
	order  list.List // of entry[V], the one used last in front
	places map[uint64]*list.Element
}

type entry[V any] struct {
	key   uint64
	value V
}

func (l *lru[V]) get(h uint64, create func() V) V {
	if at, ok := l.places[h]; ok {
		l.order.MoveToFront(at)
		return at.Value.(entry[V]).value
	}
	if l.places == nil {
		l.places = map[uint64]*list.Element{}
	}
	if l.order.Len() == recorderCacheLength {
		oldest := l.order.Back()
		delete(l.places, oldest.Value.(entry[V]).key)
		l.order.Remove(oldest)
	}
	v := create()
	l.places[h] = l.order.PushFront(entry[V]{h, v})
	return v
}
