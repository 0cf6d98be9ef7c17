// Package guest boots other kernels in a software-emulated machine (qemu without KVM), with the fault tests as their
// only user space. Such a machine has cgroup v2 with every controller, all capabilities, a disk, and nothing to lose:
// its process table and its memory may really be exhausted. It boots in two seconds; what it computes takes five to
// ten times as long as on the machine outside.
package guest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"npd-plugins/test/lab"
)

// UserSpace is what the guests of all kernels have.
type UserSpace struct {
	initramfs map[string]string // path in it, to the file that it is read from
	disk      string
}

// Build makes the guests' user space in dir: an initramfs with the fault tests as /init, and the checks, the pause
// program and runc in /bin; and a disk with these root file systems of systemd, by version.
func Build(dir, runcRC93 string, systemds map[string]string) (*UserSpace, error) {
	space := &UserSpace{map[string]string{"bin/runc": runcRC93}, filepath.Join(dir, "disk")}
	programs := filepath.Join(dir, "bin")
	if err := os.Mkdir(programs, 0o755); err != nil {
		return nil, err
	}
	if err := lab.BuildBinaries(programs); err != nil {
		return nil, err
	}
	built, err := filepath.Glob(filepath.Join(programs, "*"))
	if err != nil {
		return nil, err
	}
	for _, path := range built {
		space.initramfs["bin/"+filepath.Base(path)] = path
	}

	space.initramfs["init"] = filepath.Join(dir, "init")
	build := exec.Command("go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", space.initramfs["init"], "npd-plugins/test/faults")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the fault tests: %w\n%s", err, out)
	}
	return space, writeDisk(space.disk, systemds)
}

// Machine is an emulated machine.
type Machine struct {
	Kernel    string
	Initramfs string
	Disk      string // of which each boot sees a copy of its own
	Systemd   string // the version that the tests find on the disk
	Memory    int    // MiB
	OwnTest   string // the test that has the machine for itself, if any
	Tests     string // which tests run: a regular expression as for "go test -run"; all when empty
}

// Machine returns a machine with a kernel and the user space. Its initramfs is written to file.
func (space *UserSpace) Machine(image Image, initramfs string) (Machine, error) {
	files := maps.Clone(space.initramfs)
	for _, path := range image.Modules {
		files["modules/"+filepath.Base(path)] = path
	}
	return Machine{Kernel: image.Kernel, Initramfs: initramfs, Disk: space.disk, Memory: 1024}, writeInitramfs(initramfs, files)
}

// Own returns such a machine with memory MiB that runs this test alone.
func (m Machine) Own(test string, memory int) Machine {
	m.OwnTest, m.Tests, m.Memory = test, "^"+test+"$", memory
	return m
}

// Boot runs the machine until it powers off, and copies what it prints to console.
func (m Machine) Boot(ctx context.Context, qemu string, console io.Writer) error {
	// The kernel hands what it does not know of its command line to init: variables as environment, and what follows
	// "--" as arguments. It prints nothing but its own death, lest that goes into the middle of the tests' lines.
	commandLine := []string{"console=ttyS0", "panic=-1", "psi=1", "loglevel=1", lab.EnvBinaries + "=/bin", lab.EnvRuncRC93 + "=/bin/runc",
		lab.EnvSystemd + "=" + m.Systemd,
		lab.EnvGuest + "=" + cmp.Or(m.OwnTest, lab.SharedGuest)}
	if m.Tests != "" {
		commandLine = append(commandLine, "--", "-test.run="+m.Tests)
	}
	// One processor, without cmpxchg16b: in qemu 7.2 that instruction, which newer kernels execute at each allocation,
	// now and then garbles the flags, and several processors run stale code when one of them patches the kernel. The
	// guest dies or hangs of either.
	cmd := exec.CommandContext(ctx, qemu, "-cpu", "qemu64,-cx16", "-accel", "tcg", "-m", strconv.Itoa(m.Memory), "-smp", "1", "-no-reboot",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none",
		"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file="+m.Disk,
		"-kernel", m.Kernel, "-initrd", m.Initramfs, "-append", strings.Join(commandLine, " "))
	cmd.Stdout, cmd.Stderr = console, console
	return cmd.Run()
}
