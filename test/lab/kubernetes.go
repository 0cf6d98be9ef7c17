package lab

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// EnvKubernetes names a directory with etcd, kube-apiserver and kubelet, to be used as they are.
	EnvKubernetes = "NPD_TEST_KUBERNETES"

	// EnvKubelet is the minor version of the kubelet for tests that ask for none: one of KubeletReleases.
	EnvKubelet = "NPD_TEST_KUBELET"
)

// KubeletReleases are the minor versions of kubelet that NodeConfig.Kubelet names, newest first.
var KubeletReleases = []string{"1.37", "1.36"}

// kubeletModules maps them to the modules that name the patch release: the newest comes with its kube-apiserver, an older
// kubelet joins that, as on a node that is upgraded last.
var kubeletModules = map[string]string{"1.37": "test/e2e", "1.36": "test/e2e/kubelet-1.36"}

// kubernetesPrograms maps the programs of a node to their packages.
var kubernetesPrograms = map[string]string{
	"etcd":           "go.etcd.io/etcd/server/v3",
	"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
	"kubelet":        "k8s.io/kubernetes/cmd/kubelet",
}

// kubernetesProgram returns the path of etcd, kube-apiserver or kubelet of a minor version ("" for the newest, or the kubelet
// of EnvKubelet). It is built once from the module proxy, all three in five minutes on two cores, and kept in CacheDir. The
// test skips when that cannot be done.
func kubernetesProgram(t testing.TB, program, minor string) string {
	t.Helper()
	if dir := os.Getenv(EnvKubernetes); dir != "" && minor == "" {
		return filepath.Join(dir, program)
	}
	if program == "kubelet" {
		minor = cmp.Or(minor, os.Getenv(EnvKubelet))
	}
	minor = cmp.Or(minor, KubeletReleases[0])
	if kubeletModules[minor] == "" {
		t.Fatalf("no kubelet %s: one of %v", minor, KubeletReleases)
	}
	NeedCommand(t, "go", "golang")
	module := filepath.Join(moduleRoot(t), kubeletModules[minor])
	version := kubernetesVersion(t, module)
	path := filepath.Join(CacheDir(t), "kubernetes-"+version, program)
	if exists(path) {
		return path
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	const variable = "k8s.io/component-base/version.git" // without these they say v0.0.0-master
	flags := fmt.Sprintf("-s -w -X %[1]sVersion=%[2]s -X %[1]sMajor=1 -X %[1]sMinor=%[3]s", variable, version, strings.TrimPrefix(minor, "1."))
	temp := filepath.Join(t.TempDir(), program)
	build := exec.Command("go", "build", "-C", module, "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", flags, "-o", temp, kubernetesPrograms[program])
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("needs %s %s, which could not be built from the Go module proxy: %v\n%s", program, version, err, out)
	}
	if err := copyWhole(temp, path); err != nil {
		t.Fatal(err)
	}
	return path
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
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) == 2 && fields[0] == "k8s.io/kubernetes" {
			return fields[1]
		}
	}
	t.Fatalf("%s/go.mod does not name k8s.io/kubernetes", module)
	return ""
}
