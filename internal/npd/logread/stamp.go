package logread

import (
	"strconv"
	"strings"
	"time"
)

// stamp is a time as it stands in a log. It is understood only when it is asked for, which is rare.
type stamp struct {
	kind stampKind
	text []byte
}

type stampKind int

const (
	none         stampKind = iota
	microseconds           // since 1970
	rfc3339                // with or without a colon in the zone
	traditional            // without year and zone
	dmesg                  // without zone
	klog                   // month, day, time; without year and zone
	full                   // date, time, and the abbreviation of the zone
	unix                   // seconds since 1970, with microseconds
)

func (s stamp) time(now time.Time) time.Time {
	switch s.kind {
	case microseconds:
		if micros, err := strconv.ParseInt(string(s.text), 10, 64); err == nil {
			return time.UnixMicro(micros)
		}
	case rfc3339:
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700"} { // both take a fraction, behind a point or a comma
			if t, err := time.Parse(layout, string(s.text)); err == nil {
				return t.Local()
			}
		}
	case traditional:
		if t, err := time.ParseInLocation(time.Stamp, string(s.text), time.Local); err == nil {
			return lastSuch(t, now)
		}
	case dmesg:
		if t, err := time.ParseInLocation(time.ANSIC, string(s.text), time.Local); err == nil {
			return t
		}
	case klog:
		if t, err := time.ParseInLocation("0102 15:04:05", string(s.text), time.Local); err == nil {
			return lastSuch(t, now)
		}
	case full:
		return s.full()
	case unix:
		if micros, err := strconv.ParseInt(string(s.text[:10])+string(s.text[11:]), 10, 64); err == nil {
			return time.UnixMicro(micros)
		}
	}
	return time.Time{}
}

// full reads a date and a time with the abbreviation of a zone, which says nothing by itself but for UTC and +01: else it is local time.
func (s stamp) full() time.Time {
	text := string(s.text)
	for _, layout := range []string{"2006-01-02 15:04:05 UTC", "2006-01-02 15:04:05 GMT", "2006-01-02 15:04:05 -07", "2006-01-02 15:04:05 -0700"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.Local()
		}
	}
	at, _, _ := strings.Cut(text[min(len(text), len("2006-01-02 ")):], " ")
	if t, err := time.ParseInLocation(time.DateTime, text[:min(len(text), len("2006-01-02 "))]+at, time.Local); err == nil {
		return t
	}
	return time.Time{}
}

// lastSuch returns the latest date with this month, day and time that is not more than a day ahead of now: the clocks of
// two machines differ, and so do their zones.
func lastSuch(t, now time.Time) time.Time {
	at := time.Date(now.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.Local)
	if at.After(now.Add(24 * time.Hour)) {
		at = time.Date(now.Year()-1, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.Local)
	}
	return at
}
