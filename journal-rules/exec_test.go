package journalrules

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/test/lab"
)

// TestExecIntoEndingContainer takes what a real runc says when a probe runs a command in a container that is being killed, in the lines
// in which kubelet and the runtimes repeat it: no rule fires.
func TestExecIntoEndingContainer(t *testing.T) {
	lab.NeedRoot(t)
	runc := lab.NeedCommand(t, "runc", "runc")
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "rootfs", "pause"), "npd-plugins/test/lab/pause")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	parent := lab.CgroupParent(t)
	run := func(args ...string) string {
		cmd := exec.Command(runc, append([]string{"--root=" + filepath.Join(dir, "state")}, args...)...)
		cmd.WaitDelay = time.Second // a container that lives on holds the pipe
		said, _ := cmd.CombinedOutput()
		return string(said)
	}
	var told []string
	for n := 0; n < 100 && len(told) < 2; n++ {
		id := fmt.Sprintf("ending-%d", n)
		config, err := json.Marshal(map[string]any{
			"ociVersion": "1.0.2",
			"root":       map[string]any{"path": "rootfs"},
			"mounts":     []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"}},
			"process":    map[string]any{"user": map[string]any{"uid": 0, "gid": 0}, "cwd": "/", "args": []string{"/pause"}},
			"linux": map[string]any{
				"cgroupsPath": filepath.Join(parent, id),
				"namespaces":  []any{map[string]any{"type": "pid"}, map[string]any{"type": "mount"}, map[string]any{"type": "ipc"}, map[string]any{"type": "uts"}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
			t.Fatal(err)
		}
		create := exec.Command(runc, "--root="+filepath.Join(dir, "state"), "run", "--detach", "--bundle="+dir, id) // without a pipe
		if err := create.Run(); err != nil {
			t.Fatalf("runc run: %v", err)
		}
		said := make(chan string)
		go func() { said <- run("exec", id, "/pause") }()
		time.Sleep(time.Duration(n%10*5) * time.Millisecond)
		run("kill", id, "KILL")
		for line := range strings.Lines(<-said) {
			if _, words, ok := strings.Cut(strings.TrimSpace(line), `level=error msg="`); ok && strings.Contains(words, "setns process") {
				told = append(told, strings.TrimSuffix(words, `"`))
			}
		}
		run("delete", "--force", id)
	}
	if len(told) == 0 {
		t.Skip("runc never met the moment at which the container ended")
	}
	t.Logf("%q", told)
	for _, words := range told {
		for file, line := range map[string]string{
			"kubelet":    `E0301 10:11:12.131415    4321 log.go:32] "ExecSync cmd from runtime service failed" err="rpc error: code = Unknown desc = failed to exec in container: failed to start exec \"9ad1\": OCI runtime exec failed: ` + words + `: unknown" containerID="4f2d"`,
			"containerd": `time="2026-03-01T10:11:12.1Z" level=error msg="ExecSync for \"4f2d\" failed" error="rpc error: code = Unknown desc = failed to exec in container: failed to start exec \"9ad1\": OCI runtime exec failed: ` + words + `: unknown"`,
			"crio":       `time="2026-03-01 10:11:12.1Z" level=error msg="Exec into container 4f2d failed: command error: time=\"2026-03-01T10:11:12Z\" level=error msg=\"` + words + `\", stdout: , stderr: , exit code -1"`,
			"docker":     `time="2026-03-01T10:11:12.1Z" level=error msg="Error running exec 9ad1 in container: OCI runtime exec failed: ` + words + `: unknown"`,
		} {
			if got := fired(load(t, file), line); got != nil {
				t.Errorf("%s: %q\n%s", file, got, line)
			}
		}
	}
}
