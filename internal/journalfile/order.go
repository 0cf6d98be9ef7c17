package journalfile

import "cmp"

type id [16]byte

// key is what the order of entries goes by.
type key struct {
	seqnum, realtime, monotonic, xorHash uint64 // realtime and monotonic are in microseconds
	boot, seqnumID                       id     // seqnum counts up among the files with the same seqnumID
}

// compare is compare_locations of systemd 252's sd-journal.c: by sequence number where it has the same origin, by the clock since
// boot within a boot, by the wall clock, by content.
func compare(a, b *key) int {
	if a.seqnumID == b.seqnumID && a.seqnum != b.seqnum {
		return cmp.Compare(a.seqnum, b.seqnum)
	}
	if a.boot == b.boot && a.monotonic != b.monotonic {
		return cmp.Compare(a.monotonic, b.monotonic)
	}
	return cmp.Or(cmp.Compare(a.realtime, b.realtime), cmp.Compare(a.xorHash, b.xorHash))
}
