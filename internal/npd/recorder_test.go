package npd

import (
	"fmt"
	"testing"
	"time"
)

// fates puts events of one reason through a recorder, one each step, and counts.
func fates(r *Recorder, n int, step time.Duration, from time.Time, message func(int) string) (fate [3]int, combined int) {
	for i := range n {
		f, c := r.Record(&Event{Type: "Warning", Source: "s", Reason: "R", Message: message(i), Time: from.Add(time.Duration(i) * step)})
		fate[f]++
		if c && f != Dropped {
			combined++
		}
	}
	return fate, combined
}

func same(int) string    { return "m" }
func other(i int) string { return fmt.Sprint("m", i) }

func TestRecorder(t *testing.T) {
	for name, c := range map[string]struct {
		n        int
		step     time.Duration
		message  func(int) string
		want     [3]int // dropped, created, counted
		combined int
	}{
		"one text at once":      {100, 0, same, [3]int{75, 1, 24}, 0},
		"one text a minute":     {100, time.Minute, same, [3]int{56, 1, 43}, 0}, // 25, and 19 of the 99 minutes after
		"one text in 5 minutes": {100, 5 * time.Minute, same, [3]int{0, 1, 99}, 0},
		"texts at once":         {100, 0, other, [3]int{75, 10, 15}, 16}, // nine and the common one
		"few texts":             {9, 0, other, [3]int{0, 9, 0}, 0},
		"ten texts":             {10, 0, other, [3]int{0, 10, 0}, 1},
		"texts in 10 minutes":   {20, 10 * time.Minute, other, [3]int{0, 10, 10}, 11},
		"texts in 11 minutes":   {20, 11 * time.Minute, other, [3]int{0, 20, 0}, 0},
	} {
		got, combined := fates(NewRecorder(), c.n, c.step, time.Unix(1e9, 0), c.message)
		if got != c.want || combined != c.combined {
			t.Errorf("%s: %v with %d combined, want %v with %d", name, got, combined, c.want, c.combined)
		}
	}
}

// What is dropped is remembered: the next one that is not, creates the Event.
func TestRecorderTypesAndReasons(t *testing.T) {
	r := NewRecorder()
	now := time.Unix(1e9, 0)
	fates(r, 30, 0, now, same)
	e := Event{Type: "Warning", Reason: "Other", Message: "m", Time: now}
	if fate, _ := r.Record(&e); fate != Dropped {
		t.Error("another reason has a limit of its own")
	}
	e.Time = now.Add(EventRefill)
	if fate, _ := r.Record(&e); fate != Created {
		t.Error("an event that was never written is not created")
	}
	e.Time = now // clocks go back
	if fate, _ := r.Record(&e); fate != Dropped {
		t.Error("time that goes back refills the bucket")
	}
	e = Event{Type: "Normal", Reason: "R", Message: "m", Time: now}
	if fate, _ := r.Record(&e); fate != Created {
		t.Error("another type has no limit of its own")
	}
}

func TestRecorderForgets(t *testing.T) {
	r := NewRecorder()
	now := time.Unix(1e9, 0)
	at := func(i int) time.Time { return now.Add(time.Duration(i) * time.Hour) }
	fates(r, 1, 0, now, same)
	for i := range 2 * recorderCacheLength {
		r.Record(&Event{Type: "Warning", Reason: fmt.Sprint(i), Message: "m", Time: at(i)})
	}
	if len(r.written.places) != recorderCacheLength || r.written.order.Len() != recorderCacheLength {
		t.Errorf("%d in the cache", len(r.written.places))
	}
	if got, _ := fates(r, 1, 0, at(2*recorderCacheLength), same); got[Created] != 1 {
		t.Errorf("got %v for an event that is forgotten", got)
	}
}
