package procfs

import (
	"bytes"
	"errors"
	"fmt"

	"npd-plugins/internal/host"
)

// Disk is what the kernel counts of a block device or a partition since the
// boot: a line of /proc/diskstats (Documentation/admin-guide/iostats.rst). A
// request counts when it has been completed. Milliseconds begin anew after 2^32.
type Disk struct {
	Major, Minor uint32
	Name         string // sda1
	Requests     uint64 // of all kinds: reads, writes, discards (since Linux 4.18), flushes (since 5.5)
	Transfers    uint64 // reads and writes
	Sectors      uint64 // read and written, of 512 bytes each on every disk
	Waited       uint32 // by all reads and writes together, in ms
	InFlight     uint64 // now
	Busy         uint32 // with a request or more, in ms
}

// Disks reads /proc/diskstats.
func Disks(h *host.Root) ([]Disk, error) {
	const path = "/proc/diskstats"
	b, err := h.ReadFile(path)
	if err != nil {
		return nil, mended(err)
	}
	var disks []Disk
	for line := range bytes.Lines(b) {
		d, err := parseDisk(line)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", h.Path(path), err)
		}
		disks = append(disks, d)
	}
	if len(disks) == 0 {
		return nil, fmt.Errorf("read %s: no disk in it", h.Path(path))
	}
	return disks, nil
}

// parseDisk reads a line of 14 fields (before Linux 4.18), 18 (before 5.5), 20
// or more.
func parseDisk(line []byte) (Disk, error) {
	f := bytes.Fields(line)
	if len(f) < 14 {
		return Disk{}, errors.New("fewer than 14 fields in a line")
	}
	var n [20]uint64 // by the number of the field, which counts from 0 here
	for i := range min(len(f), len(n)) {
		if i == 2 {
			continue
		}
		var ok bool
		if n[i], ok = number(f[i]); !ok {
			return Disk{}, fmt.Errorf("field %d of a line is no number", i+1)
		}
	}
	if n[0] >= 1<<32 || n[1] >= 1<<32 {
		return Disk{}, errors.New("no device number in a line")
	}
	return Disk{
		Major: uint32(n[0]), Minor: uint32(n[1]), Name: string(f[2]),
		Requests: n[3] + n[7] + n[14] + n[18], Transfers: n[3] + n[7], Sectors: n[5] + n[9], Waited: uint32(n[6] + n[10]),
		InFlight: n[11], Busy: uint32(n[12]),
	}, nil
}
