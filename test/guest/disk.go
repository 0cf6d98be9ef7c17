package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// writeDisk makes the image of a guest's disk: a sparse file with an ext4 filesystem of 2 GiB, in which lies the small
// one that lab.EnvExt4 names, for a guest has no mke2fs, and a directory for each systemd.
func writeDisk(file string, systemds map[string]string) error {
	content, err := os.MkdirTemp(filepath.Dir(file), "disk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(content)
	if err := makeExt4(filepath.Join(content, "ext4.img"), "16M"); err != nil {
		return err
	}
	for version, root := range systemds {
		if out, err := exec.Command("cp", "-a", root, filepath.Join(content, "systemd-"+version)).CombinedOutput(); err != nil {
			return fmt.Errorf("copy systemd %s: %w\n%s", version, err, out)
		}
	}
	return makeExt4(file, "2G", "-d", content)
}

// makeExt4 leaves nothing for the kernel to do after the first mount, which would be seen as work of its disk.
func makeExt4(file, size string, args ...string) error {
	args = append([]string{"-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"}, args...)
	if out, err := exec.Command("mke2fs", append(args, file, size)...).CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs: %w\n%s", err, out)
	}
	return nil
}
