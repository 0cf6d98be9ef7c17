package guest

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/test/lab"
)

// bootLimit is far above the half minute that a guest takes on a busy machine.
const bootLimit = 3 * time.Minute

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
	runc := lab.RuncRC93(t)
	initramfs := filepath.Join(t.TempDir(), "initramfs")
	if err := BuildInitramfs(initramfs, runc); err != nil {
		t.Fatal(err)
	}
	for _, kernel := range Kernels {
		t.Run(kernel.Version, func(t *testing.T) {
			image, err := kernel.Download(lab.CacheDir(t))
			if err != nil {
				t.Skipf("needs Debian %s's kernel package, which could not be downloaded: %v", kernel.Release, err)
			}
			testOn(t, qemu, image, initramfs)
		})
	}
}

// testOn boots a guest and reports each of its tests as a subtest.
func testOn(t *testing.T, qemu, image, initramfs string) {
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	var console strings.Builder
	began := time.Now()
	err := Boot(ctx, qemu, image, initramfs, &console)
	t.Logf("the guest ran for %v", time.Since(began).Round(100*time.Millisecond))
	results, passed := ParseConsole(console.String())
	for _, result := range results {
		t.Run(result.Name, func(t *testing.T) {
			output := strings.TrimSpace(result.Output)
			switch result.Verdict {
			case "PASS":
				t.Log(output)
			case "SKIP":
				t.Skip(output)
			default:
				t.Errorf("failed in the guest:\n%s", output)
			}
		})
	}
	switch {
	case err != nil:
		t.Errorf("run the guest: %v; its console:\n%s", err, console.String())
	case !passed && !t.Failed():
		t.Errorf("the guest did not end well; its console:\n%s", console.String())
	}
}

func TestParseConsole(t *testing.T) {
	const console = "[    0.9] random kernel line\r\n" +
		"=== RUN   TestA\r\n    a_test.go:1: fine\r\n--- PASS: TestA (0.10s)\r\n" +
		"=== RUN   TestB\r\n    b_test.go:1: needs x\r\n--- SKIP: TestB (0.00s)\r\n" +
		"PASS\r\nkernel 5.10.0: tests ended with exit code 0\r\n"
	results, passed := ParseConsole(console)
	want := []Result{{"TestA", "PASS", "    a_test.go:1: fine\n"}, {"TestB", "SKIP", "    b_test.go:1: needs x\n"}}
	if diff := cmp.Diff(want, results); diff != "" || !passed {
		t.Errorf("passed %v, results (-want +got):\n%s", passed, diff)
	}

	results, passed = ParseConsole("=== RUN   TestA\nKernel panic - not syncing\n")
	want = []Result{{"TestA", "FAIL", "Kernel panic - not syncing\n"}}
	if diff := cmp.Diff(want, results); diff != "" || passed {
		t.Errorf("a guest that died: passed %v, results (-want +got):\n%s", passed, diff)
	}
}
