package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Generations are the generations of containerd that ContainerdConfig.Version names, oldest first: those of Debian
// bullseye, which only speaks runtime.v1alpha2, bookworm and trixie, and the newest.
var Generations = []string{"1.4", "1.6", "1.7", "2.x"}

// releases of Debian that have a generation.
var releases = map[string]string{"1.4": "bullseye", "1.6": "bookworm", "1.7": "trixie"}

// containerd2 is the version of generation 2.x, which no Debian release has.
const containerd2 = "v2.4.2"

// containerdPrograms are what a generation consists of. The daemon looks for its shim on PATH.
var containerdPrograms = []string{"containerd", "containerd-shim-runc-v2", "ctr"}

// containerdDir returns a directory with the programs of a generation, or of a version of containerd 2 (v2.3.4), downloaded
// or built once and kept in CacheDir. The test skips when that cannot be done.
func containerdDir(t testing.TB, generation string) string {
	t.Helper()
	cache := CacheDir(t)
	get := downloadContainerd
	if releases[generation] == "" {
		get = buildContainerd
		if generation == "2.x" {
			generation = containerd2
		}
	}
	dir := filepath.Join(cache, "containerd-"+generation)
	if exists(dir) {
		return dir
	}
	work, err := os.MkdirTemp(cache, "containerd-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	programs := filepath.Join(work, "bin")
	if err := os.Mkdir(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := get(work, programs, generation); err != nil {
		t.Skipf("needs containerd %s: %v", generation, err)
	}
	if err := os.Rename(programs, dir); err != nil && !exists(dir) { // another test may have been faster
		t.Fatal(err)
	}
	return dir
}

func downloadContainerd(work, programs, generation string) error {
	debian, err := OpenDebian(work, releases[generation], runtime.GOARCH)
	if err != nil {
		return err
	}
	deb, err := debian.Download("containerd")
	if err != nil {
		return err
	}
	files := map[string]string{}
	for _, program := range containerdPrograms {
		files["./usr/bin/"+program] = filepath.Join(programs, program)
	}
	return Unpack(deb, files)
}

func buildContainerd(work, programs, version string) error {
	args := []string{"install", "-ldflags", "-s -w"}
	for _, program := range containerdPrograms {
		args = append(args, "github.com/containerd/containerd/v2/cmd/"+program+"@"+version)
	}
	install := exec.Command("go", args...)
	install.Dir = work // outside any module
	install.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOBIN="+programs)
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("not built from the Go module proxy: %w\n%s", err, out)
	}
	return nil
}
