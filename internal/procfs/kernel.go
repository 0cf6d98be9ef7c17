package procfs

import (
	"fmt"

	"npd-plugins/internal/host"
)

// Kernel is the first two numbers of a kernel's version.
type Kernel struct{ Major, Minor int }

// Before says whether the kernel is older than that version.
func (k Kernel) Before(major, minor int) bool {
	return k.Major < major || k.Major == major && k.Minor < minor
}

func (k Kernel) String() string { return fmt.Sprintf("Linux %d.%d", k.Major, k.Minor) }

// KernelOf reads the version of the host's kernel.
func KernelOf(h *host.Root) (Kernel, error) {
	const path = "/proc/sys/kernel/osrelease"
	b, err := h.ReadFile(path)
	if err != nil {
		return Kernel{}, mended(err)
	}
	var k Kernel
	if _, err := fmt.Sscanf(string(b), "%d.%d", &k.Major, &k.Minor); err != nil || k.Major < 0 || k.Minor < 0 {
		return Kernel{}, fmt.Errorf("read %s: no version in it", h.Path(path))
	}
	return k, nil
}
