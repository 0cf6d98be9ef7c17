package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"npd-plugins/test/lab"
)

// Kernel is the kernel of a Debian release, as built for virtual machines.
type Kernel struct {
	Version string // major.minor
	Release string // Debian's code name
	Systemd string // version of that release
}

// Kernels are those that the fault tests run on, besides that of the machine they run on.
var Kernels = []Kernel{
	{"5.10", "bullseye", "247"},
	{"6.1", "bookworm", "252"},
	{"6.12", "trixie", "257"},
}

// modules are what a guest has beyond the kernel's image: the driver of its disk, and what the faults are made with.
// ext4 is in the image.
var modules = []string{
	"virtio_pci", "virtio_blk", "loop", "fuse", "overlay",
	"nf_conntrack", "nf_tables", "nft_ct", "nf_conntrack_netlink", "veth", "dummy",
}

// Image is a kernel in files.
type Image struct {
	Kernel  string
	Modules []string // each after those it needs
}

// Download returns the kernel and its modules in a directory of their own below dir. When they are not there yet,
// they are taken from the Debian mirror this machine uses, with apt in directories of its own and with the archive's
// signature checked.
func (k Kernel) Download(dir string) (Image, error) {
	kept := filepath.Join(dir, "kernel-"+k.Version)
	if image, err := openImage(kept); err == nil {
		return image, nil
	}
	work, err := os.MkdirTemp(dir, "apt-")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(work)
	unpacked, err := k.unpack(work)
	if err != nil {
		return Image{}, err
	}
	fresh := filepath.Join(work, "image")
	if err := writeImage(fresh, unpacked); err != nil {
		return Image{}, err
	}
	if err := os.RemoveAll(kept); err != nil {
		return Image{}, err
	}
	if err := os.Rename(fresh, kept); err != nil {
		return Image{}, err
	}
	return openImage(kept)
}

// unpack downloads the kernel's package into work, and returns the directory with the files of the package.
func (k Kernel) unpack(work string) (string, error) {
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
	unpacked := filepath.Join(work, "package")
	if out, err := exec.Command("dpkg-deb", "-x", deb, unpacked).CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack %s: %w\n%s", filepath.Base(deb), err, out)
	}
	return unpacked, nil
}

// The files of a kept image: the kernel, the modules it was made for, and these with what they need in the order in
// which the kernel takes them.
const (
	kernelFile  = "vmlinuz"
	wantedFile  = "wanted"
	modulesGlob = "[0-9][0-9]-*.ko"
)

func openImage(dir string) (Image, error) {
	wanted, err := os.ReadFile(filepath.Join(dir, wantedFile))
	if err != nil {
		return Image{}, err
	}
	if string(wanted) != strings.Join(modules, " ") {
		return Image{}, fmt.Errorf("%s was made for other modules", dir)
	}
	paths, err := filepath.Glob(filepath.Join(dir, modulesGlob)) // sorted
	return Image{filepath.Join(dir, kernelFile), paths}, err
}

// writeImage makes the files of an image in the directory to, from the files of a kernel's package.
func writeImage(to, unpacked string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	kernels, err := filepath.Glob(filepath.Join(unpacked, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("the kernel's package has %d kernels", len(kernels))
	}
	if err := os.Rename(kernels[0], filepath.Join(to, kernelFile)); err != nil {
		return err
	}
	tree, err := openModuleTree(unpacked)
	if err != nil {
		return err
	}
	ordered, err := tree.resolve(modules)
	if err != nil {
		return err
	}
	for i, module := range ordered {
		name := fmt.Sprintf("%02d-%s.ko", i, module.name)
		if err := os.WriteFile(filepath.Join(to, name), module.object, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(to, wantedFile), []byte(strings.Join(modules, " ")), 0o644)
}
