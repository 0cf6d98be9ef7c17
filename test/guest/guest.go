// Package guest boots other kernels in a software-emulated machine (qemu without KVM), with the fault tests as their
// only user space. Such a machine has cgroup v2 with every controller, all capabilities, and nothing to lose: its
// process table may really be exhausted. It boots in two seconds; what it computes takes five to ten times as long as
// on the machine outside.
package guest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"npd-plugins/test/lab"
)

// BuildInitramfs writes an initramfs with the fault tests as /init, and the checks, the pause program and runc in
// /bin.
func BuildInitramfs(file, runcRC93 string) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), "binaries-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := lab.BuildBinaries(dir); err != nil {
		return err
	}
	built, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	files := map[string]string{"bin/runc": runcRC93}
	for _, path := range built {
		files["bin/"+filepath.Base(path)] = path
	}

	files["init"] = filepath.Join(dir, "init")
	build := exec.Command("go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", files["init"], "npd-plugins/test/faults")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the fault tests: %w\n%s", err, out)
	}
	return writeInitramfs(file, files)
}

// Boot runs a kernel on an initramfs until it powers off, and copies what it prints to console.
func Boot(ctx context.Context, qemu, kernel, initramfs string, console io.Writer) error {
	// The kernel hands what it does not know of its command line to init as environment variables.
	commandLine := []string{"console=ttyS0", "panic=-1", "psi=1", "quiet", lab.EnvBinaries + "=/bin", lab.EnvRuncRC93 + "=/bin/runc"}
	// One processor, without cmpxchg16b: in qemu 7.2 that instruction, which newer kernels execute at each allocation,
	// now and then garbles the flags, and several processors run stale code when one of them patches the kernel. The
	// guest dies or hangs of either.
	cmd := exec.CommandContext(ctx, qemu, "-cpu", "qemu64,-cx16", "-accel", "tcg", "-m", "1024", "-smp", "1", "-no-reboot",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none",
		"-kernel", kernel, "-initrd", initramfs, "-append", strings.Join(commandLine, " "))
	cmd.Stdout, cmd.Stderr = console, console
	return cmd.Run()
}

// Result is the outcome of one test in the guest.
type Result struct {
	Name    string
	Verdict string // PASS, FAIL or SKIP
	Output  string
}

var (
	testBegins = regexp.MustCompile(`^=== RUN +(\w+)$`)
	testEnds   = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\w+) \(`)
)

// ParseConsole reads the tests' outcomes from what a guest printed, in the format of "go test -v". passed is whether
// the guest reached the end of its tests and said that none had failed.
func ParseConsole(console string) (results []Result, passed bool) {
	var current Result
	for line := range strings.Lines(console) {
		line = strings.TrimRight(line, "\r\n")
		if m := testBegins.FindStringSubmatch(line); m != nil {
			current = Result{Name: m[1], Verdict: "FAIL"}
			continue
		}
		if m := testEnds.FindStringSubmatch(line); m != nil && m[2] == current.Name {
			current.Verdict = m[1]
			results = append(results, current)
			current = Result{}
			continue
		}
		if current.Name != "" {
			current.Output += line + "\n"
		}
		passed = passed || strings.HasSuffix(line, "tests ended with exit code 0")
	}
	if current.Name != "" { // the guest died in it
		results = append(results, current)
	}
	return results, passed
}
