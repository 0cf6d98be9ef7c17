package procfs

import "strconv"

// Resident is the memory that the process has resident, in bytes (VmRSS).
func (p Process) Resident() (uint64, error) {
	value, err := p.status("VmRSS:")
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseUint(value, 10, 54)
	return kib << 10, err
}
