package guest

import (
	"os"
	"path/filepath"

	"npd-plugins/test/lab"
)

// Kernel is the kernel of a Debian release, as built for virtual machines.
type Kernel struct {
	Version string // major.minor
	Release string // Debian's code name
}

// Kernels are those that the fault tests run on, besides that of the machine they run on.
var Kernels = []Kernel{
	{"5.10", "bullseye"},
	{"6.1", "bookworm"},
	{"6.12", "trixie"},
}

// Download returns the path of the kernel's image in dir. When it is not there yet, it is taken from the Debian
// mirror this machine uses, with apt in directories of its own and with the archive's signature checked.
func (k Kernel) Download(dir string) (string, error) {
	image := filepath.Join(dir, "vmlinuz-"+k.Version)
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	work, err := os.MkdirTemp(dir, "apt-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	debian, err := lab.OpenDebian(work, k.Release, "amd64")
	if err != nil {
		return "", err
	}
	name, err := debian.Dependency("linux-image-cloud-amd64")
	if err != nil {
		return "", err
	}
	deb, err := debian.Download(name)
	if err != nil {
		return "", err
	}
	unpacked := filepath.Join(work, "vmlinuz")
	if err := lab.Unpack(deb, map[string]string{"./boot/vmlinuz-*": unpacked}); err != nil {
		return "", err
	}
	return image, os.Rename(unpacked, image)
}
