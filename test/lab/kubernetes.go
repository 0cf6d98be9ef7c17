package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// EnvKubernetes names a directory with etcd, kube-apiserver and kubelet, to be used as they are.
const EnvKubernetes = "NPD_TEST_KUBERNETES"

// kubernetesPrograms maps the programs of a node to their packages in the module test/e2e.
var kubernetesPrograms = map[string]string{
	"etcd":           "go.etcd.io/etcd/server/v3",
	"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
	"kubelet":        "k8s.io/kubernetes/cmd/kubelet",
}

// Kubernetes returns a directory with etcd, kube-apiserver and kubelet of the release that test/e2e names. They are built
// once from the module proxy, which takes five minutes on two cores, and kept in CacheDir. The test skips when that
// cannot be done.
func Kubernetes(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(EnvKubernetes); dir != "" {
		return dir
	}
	NeedCommand(t, "go", "golang")
	module := filepath.Join(moduleRoot(t), "test/e2e")
	version := kubernetesVersion(t, module)
	dir := filepath.Join(CacheDir(t), "kubernetes-"+version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	minor := strings.Split(strings.TrimPrefix(version, "v"), ".")
	const variable = "k8s.io/component-base/version.git" // without these they say v0.0.0-master
	flags := fmt.Sprintf("-s -w -X %[1]sVersion=%[2]s -X %[1]sMajor=%[3]s -X %[1]sMinor=%[4]s", variable, version, minor[0], minor[1])
	for program, pkg := range kubernetesPrograms {
		path := filepath.Join(dir, program)
		if exists(path) {
			continue
		}
		temp := filepath.Join(t.TempDir(), program)
		build := exec.Command("go", "build", "-C", module, "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", flags, "-o", temp, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := build.CombinedOutput(); err != nil {
			t.Skipf("needs %s, which could not be built from the Go module proxy: %v\n%s", program, err, out)
		}
		if err := copyWhole(temp, path); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// moduleRoot is the directory of the suite's go.mod, also for tests with a go.mod of their own.
func moduleRoot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "npd-plugins").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// kubernetesVersion is the release that the module names.
func kubernetesVersion(t testing.TB, module string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "k8s.io/kubernetes" {
			return fields[1]
		}
	}
	t.Fatal("test/e2e/go.mod does not name k8s.io/kubernetes")
	return ""
}
