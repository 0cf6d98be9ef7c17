package lab

import (
	"fmt"
	"os"
	"os/exec"
)

// Binaries builds every check and the pause program as they are shipped (static, stripped) into a fresh directory. It
// returns that directory and what removes it. With NPD_PLUGINS_BIN set nothing is built: that directory has them.
func Binaries() (dir string, remove func(), err error) {
	if dir := os.Getenv(EnvBinaries); dir != "" {
		return dir, func() {}, nil
	}
	dir, err = os.MkdirTemp("", "npd-lab-bin-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	if err := BuildBinaries(dir); err != nil {
		remove()
		return "", nil, err
	}
	return dir, remove, nil
}

// BuildBinaries builds every check and the pause program into dir.
func BuildBinaries(dir string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/",
		"npd-plugins/plugins/...", "npd-plugins/test/lab/pause")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the checks: %w\n%s", err, out)
	}
	return nil
}
