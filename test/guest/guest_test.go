package guest

import (
	"context"
	"flag"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/test/lab"
)

// bootLimit is far above what the tests of one guest take on a busy machine.
const bootLimit = 10 * time.Minute

// TestKernels runs the fault tests in a guest of each kernel, and reports each as a subtest: -run
// 'TestKernels/6.1/(TestZombies|TestPipe)' runs only these there.
func TestKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("boots three emulated machines: runs without -short (make kernels)")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("needs an amd64 machine: the guests are")
	}
	lab.NeedRoot(t)
	qemu := lab.NeedCommand(t, "qemu-system-x86_64", "qemu-system-x86")
	lab.NeedCommand(t, "go", "golang")
	lab.NeedCommand(t, "apt-get", "apt")
	lab.NeedCommand(t, "mke2fs", "e2fsprogs")
	runc := lab.RuncRC93(t)
	systemds := map[string]string{}
	for _, kernel := range Kernels {
		systemds[kernel.Systemd] = lab.SystemdRoot(t, kernel.Systemd)
	}
	space, err := Build(t.TempDir(), runc, systemds)
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range Kernels {
		t.Run(kernel.Version, func(t *testing.T) {
			image, err := kernel.Download(lab.CacheDir(t))
			if err != nil {
				t.Skipf("needs Debian %s's kernel package, which could not be had: %v", kernel.Release, err)
			}
			machine, err := space.Machine(image, filepath.Join(t.TempDir(), "initramfs"))
			if err != nil {
				t.Fatal(err)
			}
			machine.Systemd, machine.Tests = kernel.Systemd, wantedTests()
			for _, result := range boot(t, qemu, machine) {
				t.Run(result.Name, func(t *testing.T) {
					if memory, ok := lab.WantsOwnGuest(result.Output); ok && result.Verdict == "SKIP" {
						result = bootFor(t, qemu, machine.Own(result.Name, memory))
					}
					report(t, result)
				})
			}
		})
	}
}

// wantedTests returns the part of this test's -run flag that names tests in the guests: all but the two parts for
// TestKernels and the kernel.
func wantedTests() string {
	parts := strings.SplitN(flag.Lookup("test.run").Value.String(), "/", 3)
	if len(parts) < 3 {
		return ""
	}
	return parts[2]
}

// bootFor boots a machine for one test.
func bootFor(t *testing.T, qemu string, machine Machine) Result {
	t.Helper()
	results := boot(t, qemu, machine)
	if len(results) != 1 {
		t.Fatalf("the guest ran %d tests, not %s alone", len(results), machine.OwnTest)
	}
	return results[0]
}

// boot runs a machine, and returns what became of its tests.
func boot(t *testing.T, qemu string, machine Machine) []Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	var console strings.Builder
	began := time.Now()
	err := machine.Boot(ctx, qemu, &console)
	t.Logf("the guest ran for %v", time.Since(began).Round(100*time.Millisecond))
	results, passed, rest := ParseConsole(console.String())
	switch {
	case err != nil:
		t.Errorf("run the guest: %v; its console:\n%s", err, console.String())
	case len(results) == 0:
		t.Errorf("no test ran in the guest; its console:\n%s", console.String())
	case !passed:
		t.Errorf("the guest's tests did not end well; outside of them it printed:\n%s", rest)
	}
	return results
}

func report(t *testing.T, result Result) {
	output := strings.TrimSpace(result.Output)
	switch result.Verdict {
	case "PASS":
		t.Log(output)
	case "SKIP":
		t.Skip(output)
	default:
		t.Errorf("failed in the guest:\n%s", output)
	}
}
func TestParseConsole(t *testing.T) {
	const console = "[    0.9] random kernel line\r\n" +
		"=== RUN   TestA\r\n    a_test.go:1: fine\r\n--- PASS: TestA (0.10s)\r\n" +
		"=== RUN   TestB\r\n    b_test.go:1: needs x\r\n--- SKIP: TestB (0.00s)\r\n" +
		"PASS\r\nkernel 5.10.0: tests ended with exit code 0\r\n"
	results, passed, rest := ParseConsole(console)
	want := []Result{{"TestA", "PASS", "    a_test.go:1: fine\n"}, {"TestB", "SKIP", "    b_test.go:1: needs x\n"}}
	if diff := cmp.Diff(want, results); diff != "" || !passed {
		t.Errorf("passed %v, results (-want +got):\n%s", passed, diff)
	}
	const wantRest = "[    0.9] random kernel line\nPASS\nkernel 5.10.0: tests ended with exit code 0\n"
	if diff := cmp.Diff(wantRest, rest); diff != "" {
		t.Errorf("outside of tests (-want +got):\n%s", diff)
	}

	results, passed, _ = ParseConsole("=== RUN   TestA\nKernel panic - not syncing\n")
	want = []Result{{"TestA", "FAIL", "Kernel panic - not syncing\n"}}
	if diff := cmp.Diff(want, results); diff != "" || passed {
		t.Errorf("a guest that died: passed %v, results (-want +got):\n%s", passed, diff)
	}
}
