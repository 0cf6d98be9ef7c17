package plugin

import (
	"fmt"
	"math"
	"time"
)

const (
	maxSamples    = 60             // of one measurement; every second one goes when there are more
	maxSampleAge  = 24 * time.Hour // older growth says little
	minCorrelated = 0.8            // how well a straight line must fit the samples (Pearson's r)
	maxForecast   = 48 * time.Hour // a limit further away is not worth a word
	minGrowth     = 0.01           // of the limit, since the first sample; less is noise
)

// sample is a measurement at a time, {seconds since 1970, value}.
type sample [2]float64

// addSample returns the history with one more sample, thinned and aged. After
// a clock that jumped back the history begins anew.
func addSample(history []sample, now time.Time, value float64) []sample {
	t := float64(now.UnixMilli()) / 1000
	kept := history[:0:0]
	for i, s := range history {
		if s[0] >= t {
			kept = nil
			break
		}
		if t-s[0] <= maxSampleAge.Seconds() && (len(history) < maxSamples || i%2 == 0) {
			kept = append(kept, s)
		}
	}
	return append(kept, sample{t, value})
}

// timeToLimit extends the straight line through the samples (least squares) to
// the limit. ok is false without clear growth or when the limit is far away.
func timeToLimit(history []sample, limit float64) (d time.Duration, ok bool) {
	n := float64(len(history))
	if n < 3 {
		return 0, false
	}
	last := history[len(history)-1]
	if last[1]-history[0][1] < minGrowth*limit {
		return 0, false
	}
	var st, sv, stt, svv, stv float64
	for _, s := range history {
		t, v := s[0]-last[0], s[1]-last[1] // near zero, to keep the sums exact
		st, sv, stt, svv, stv = st+t, sv+v, stt+t*t, svv+v*v, stv+t*v
	}
	vart, varv, cov := n*stt-st*st, n*svv-sv*sv, n*stv-st*sv
	if vart <= 0 || varv <= 0 || cov <= 0 || !(cov/math.Sqrt(vart*varv) >= minCorrelated) { // NaN where the sums overflow
		return 0, false
	}
	seconds := (limit - last[1]) / (cov / vart)
	if !(seconds > 0 && seconds <= maxForecast.Seconds()) {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// forecast adds the measurements that ask for it to the history and says when
// the first of them reaches its limit, "" when none does soon.
func forecast(history map[string][]sample, now time.Time, ms []Measurement) (map[string][]sample, string) {
	next := map[string][]sample{}
	soonest, found := time.Duration(0), false
	for _, m := range ms {
		if !m.Forecast || m.Limit <= 0 || math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
			continue
		}
		next[m.Name] = addSample(history[m.Name], now, m.Value)
		if d, ok := timeToLimit(next[m.Name], m.Limit); ok && (!found || d < soonest) {
			soonest, found = d, true
		}
	}
	if !found {
		return next, ""
	}
	return next, "full in about " + roughDuration(soonest)
}

// roughDuration writes a duration in its largest unit: 40 s, 5 min, 3 h.
func roughDuration(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds())+1)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
	default:
		return fmt.Sprintf("%d h", int(d.Hours()+0.5))
	}
}
