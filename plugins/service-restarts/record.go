package main

import (
	"math"
	"time"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/systemd"
)

// record is what is remembered of a service.
type record struct {
	Seen     int64      `json:"seen"` // last look, in seconds since 1970
	Restarts uint32     `json:"restarts"`
	Start    string     `json:"start"`
	Starts   [][2]int64 `json:"starts"` // {time of the look that saw them, how many}
	End      string     `json:"end"`    // how it last ended, "" when that was never seen
	Told     string     `json:"told"`   // of a service that is down or starts often
}

// next is the record after another look. r is nil at the first one.
func (r *record) next(s systemd.Service, now time.Time, window time.Duration) *record {
	n := &record{Seen: now.Unix(), Restarts: s.Restarts, Start: s.Start, End: plugin.Safe(s.Ending(), 60)}
	if r == nil {
		return n
	}
	if n.End == "" {
		n.End = r.End
	}
	if !r.within(r.Seen, now, window) {
		return n // nobody knows when it started since then
	}
	for _, s := range r.Starts {
		if r.within(s[0], now, window) && s[1] > 0 {
			n.Starts = append(n.Starts, s)
		}
	}
	if s.Start == r.Start {
		n.Restarts = r.Restarts // what is counted already and still to start comes with the next look
		return n
	}
	n.Starts = append(n.Starts, [2]int64{n.Seen, started(r.Restarts, s.Restarts)})
	return n
}

// started is how often a service started, at least, that did, from its numbers
// of restarts. That begins anew when somebody starts it by hand, which is a start
// too, and is always 0 where systemd does not count.
func started(before, after uint32) int64 {
	switch {
	case after > before:
		return int64(after - before)
	case after < before:
		return int64(after) + 1
	default:
		return 1
	}
}

func (r *record) within(seconds int64, now time.Time, window time.Duration) bool {
	d := now.Unix() - seconds
	return d >= 0 && d <= int64(window.Seconds())
}

// count is how many starts are remembered.
func (r *record) count() int {
	n := int64(0)
	for _, s := range r.Starts {
		n += min(s[1], math.MaxUint32)
	}
	return int(n)
}
