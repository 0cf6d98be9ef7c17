package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// TestDisable: one argument of the init container turns a check off. The list of files that node-problem-detector is started with stays
// as it is, and a real one starts with it.
func TestDisable(t *testing.T) {
	lab.NeedDetector(t)
	lab.NeedRoot(t)
	bin := t.TempDir()
	build := exec.Command("go", "build", "-C", root, "-trimpath", "-o", bin+"/", "./plugins/...", "./cmd/npdctl") // a module of its own
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("kustomize", func(t *testing.T) {
		manifests, err := render("core", upstream(t), `
patches:
- target: {kind: DaemonSet, name: node-problem-detector}
  patch: '[{"op": "add", "path": "/spec/template/spec/initContainers/0/args/-", "value": "--disable=zombies"}]'
`)
		if err != nil {
			t.Fatal(err)
		}
		p := detector(t, manifests).Spec.Template.Spec
		startsWithout(t, bin, p.InitContainers[0].Args, p.Containers[0].Command, "ZombieProcesses")
	})
	for name, dir := range charts() {
		t.Run("Helm "+name, func(t *testing.T) {
			p := detector(t, template(t, dir, "core", "initContainers[0].args[3]=--disable=zombies")).Spec.Template.Spec
			startsWithout(t, bin, p.InitContainers[0].Args, chartCommand(p.Containers[0]), "ZombieProcesses")
		})
	}
}

// startsWithout runs the init container's arguments and node-problem-detector's command as in the pod, in mounts of its own, and wants
// all conditions but one.
func startsWithout(t *testing.T, bin string, install, command []string, condition string) {
	t.Helper()
	npdctl := filepath.Join(bin, "npdctl")
	config, err := filepath.Abs(filepath.Join(root, "config"))
	if err != nil {
		t.Fatal(err)
	}
	lab.OwnNamespaces(t, unix.CLONE_NEWNS)
	for _, dir := range []string{"/opt", "/run"} { // where the pod has an emptyDir and the state
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	}
	if !slices.Contains(install, "--disable=zombies") {
		t.Fatalf("the init container has %q", install)
	}
	args := append(slices.Clone(install), "--bin="+bin, "--config="+config, "--rules="+filepath.Join(config, "../journal-rules"))
	if out, err := exec.Command(npdctl, args...).CombinedOutput(); err != nil {
		t.Fatalf("npdctl %q: %v\n%s", args, err, out)
	}
	var flags []string
	for _, monitor := range []string{"custom-plugin-monitor", "system-log-monitor"} {
		var ours []string
		for _, file := range monitors(command, monitor) {
			if strings.HasPrefix(file, "/opt/npd-plugins/") { // the rest is in node-problem-detector's image
				ours = append(ours, file)
			}
		}
		if _, err := os.Stat(ours[0]); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--config."+monitor+"="+strings.Join(ours, ","))
	}
	d := lab.StartDetector(t, flags...)
	lab.Eventually(t, 30*time.Second, "the conditions are there", func() bool { return strings.Contains(d.Metrics(), `type="TasksNearLimit"`) })
	if page := d.Metrics(); strings.Contains(page, condition) {
		t.Errorf("%s is there although it is disabled:\n%s", condition, page)
	}
}
