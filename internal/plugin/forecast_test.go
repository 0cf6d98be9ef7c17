package plugin

import (
	"math"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// grown returns the history of values measured once a minute.
func grown(values ...float64) (history []sample) {
	for i, v := range values {
		history = addSample(history, start.Add(time.Duration(i)*time.Minute), v)
	}
	return history
}

func TestTimeToLimit(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		limit  float64
		want   time.Duration // 0 for no forecast
	}{
		{"growth", []float64{10, 20, 30, 40, 50}, 100, 5 * time.Minute},
		{"slow growth", []float64{10, 11, 12, 13}, 253, 4 * time.Hour},
		{"growth with noise", []float64{10, 22, 29, 41, 50}, 100, 5 * time.Minute},
		{"flat", []float64{50, 50, 50, 50, 50}, 100, 0},
		{"shrinking", []float64{50, 40, 30, 20, 10}, 100, 0},
		{"noise", []float64{50, 10, 60, 20, 55, 15}, 100, 0},
		{"up and down again", []float64{10, 50, 90, 50, 10}, 100, 0},
		{"two samples", []float64{10, 20}, 100, 0},
		{"one sample", []float64{10}, 100, 0},
		{"none", nil, 100, 0},
		{"the limit is far away", []float64{10, 11, 12, 13}, 13 + 49*60, 0},
		{"the limit is reached", []float64{80, 90, 100}, 100, 0},
		{"the limit is passed", []float64{90, 100, 110}, 100, 0},
		{"too large for sums", []float64{0, 1e300, 1e301}, 1e302, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := timeToLimit(grown(tt.values...), tt.limit)
			if ok != (tt.want > 0) || ok && math.Abs(float64(got)/float64(tt.want)-1) > 0.05 {
				t.Errorf("%v, %v; want %v", got, ok, tt.want)
			}
		})
	}
}

func TestClockJumpsBack(t *testing.T) {
	history := grown(10, 20, 30)
	history = addSample(history, start.Add(-time.Hour), 40)
	if len(history) != 1 || history[0][1] != 40 {
		t.Errorf("%v; want the new sample only", history)
	}
}

func TestOldSamplesGo(t *testing.T) {
	history := grown(10, 20, 30)
	history = addSample(history, start.Add(maxSampleAge+90*time.Second), 40)
	if len(history) != 2 || history[0][1] != 30 {
		t.Errorf("%v; want the last one of a day ago and the new one", history)
	}
}

func TestThinning(t *testing.T) {
	var history []sample
	for i := range 1000 {
		before := history
		history = addSample(history, start.Add(time.Duration(i)*time.Minute), float64(i))
		if len(history) > maxSamples {
			t.Fatalf("%d samples", len(history))
		}
		if len(before) > 0 && &before[0] == &history[0] {
			t.Fatal("the history was changed in place")
		}
	}
	if history[0] != (sample{float64(start.Unix()), 0}) {
		t.Errorf("the oldest sample %v is gone before its time", history[0])
	}
	got, ok := timeToLimit(history, 1299)
	if !ok || got.Round(time.Minute) != 300*time.Minute {
		t.Errorf("%v, %v; want 300 min as without thinning", got, ok)
	}
}

func TestForecast(t *testing.T) {
	history := map[string][]sample{"gone": grown(1, 2)}
	at := func(i int, slow, fast, unlimited float64) string {
		var eta string
		history, eta = forecast(history, start.Add(time.Duration(i)*time.Minute), []Measurement{
			{Name: "slow", Value: slow, Limit: 1000, Forecast: true},
			{Name: "fast", Value: fast, Limit: 1000, Forecast: true},
			{Name: "unlimited", Value: unlimited, Forecast: true},
			{Name: "not asked", Value: fast, Limit: 1000},
			{Name: "nan", Value: math.NaN(), Limit: 1000, Forecast: true},
			{Name: "inf", Value: math.Inf(1), Limit: 1000, Forecast: true},
		})
		return eta
	}
	if eta := at(0, 10, 100, 1); eta != "" {
		t.Errorf("after one look: %q", eta)
	}
	at(1, 11, 150, 2)
	if eta := at(2, 12, 200, 3); eta != "full in about 16 min" {
		t.Errorf("got %q, want the soonest of both", eta)
	}
	if len(history) != 2 || len(history["slow"]) != 3 || len(history["fast"]) != 3 {
		t.Errorf("history %v; want that of the two measurements that ask for it", history)
	}
}

func TestRoughDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		400 * time.Millisecond: "1 s", 40 * time.Second: "41 s", 119 * time.Second: "120 s", 2 * time.Minute: "2 min", 5*time.Minute + 40*time.Second: "6 min",
		119 * time.Minute: "119 min", 2 * time.Hour: "2 h", 3*time.Hour + 29*time.Minute: "3 h", 47 * time.Hour: "47 h",
	} {
		if got := roughDuration(d); got != want {
			t.Errorf("roughDuration(%v) = %q, want %q", d, got, want)
		}
	}
}
