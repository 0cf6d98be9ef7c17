package logread

import (
	"strconv"
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
)

func (s stamp) time(now time.Time) time.Time {
	switch s.kind {
	case microseconds:
		if micros, err := strconv.ParseInt(string(s.text), 10, 64); err == nil {
			return time.UnixMicro(micros)
		}
	case rfc3339:
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700"} {
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
