package main

import (
	"encoding/binary"
	"time"

	"npd-plugins/internal/plugin"
)

// memory is how long each leftover has been one. It holds ages and no times, so
// that a clock that jumps makes nothing older or younger than it is.
type memory struct {
	Look int64  `json:"look"` // time of the last look, in milliseconds since 1970
	Ages []byte `json:"ages"` // of entryBytes each: the key of a leftover, and its age in milliseconds
}

const (
	entryBytes = 8 + 4
	// maxRemembered bounds the state file to 1 MiB. More leftovers than these are
	// a Problem whether or not each of them is recognised.
	maxRemembered = 1 << 16
	// maxPause is the most that counts between two looks. What was there before
	// and after a longer time may have been two things, or kubelet did not run
	// either: the machine slept, or its clock was set.
	maxPause = 5 * time.Minute
)

// recallAges returns the age that each leftover of the last look has now, by
// its key.
func recallAges(l *plugin.Look) map[uint64]time.Duration {
	var m memory
	l.Recall(&m)
	pause := max(0, min(l.Now.Sub(time.UnixMilli(m.Look)), maxPause))
	ages := make(map[uint64]time.Duration, min(len(m.Ages)/entryBytes, maxRemembered))
	for b := m.Ages; len(b) >= entryBytes; b = b[entryBytes:] {
		age := time.Duration(binary.LittleEndian.Uint32(b[8:])) * time.Millisecond
		ages[binary.LittleEndian.Uint64(b)] = age + pause
	}
	return ages
}

// rememberAges keeps the ages of leftovers, of the first when there are too
// many.
func rememberAges(l *plugin.Look, found []leftover) {
	found = found[:min(len(found), maxRemembered)]
	m := memory{Look: l.Now.UnixMilli(), Ages: make([]byte, 0, len(found)*entryBytes)}
	for _, f := range found {
		m.Ages = binary.LittleEndian.AppendUint64(m.Ages, f.key)
		m.Ages = binary.LittleEndian.AppendUint32(m.Ages, uint32(min(f.age.Milliseconds(), 1<<32-1)))
	}
	l.Remember(m)
}
