package distribution

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"npd-plugins/internal/host"
)

// layouts are what the nodes have: directories and files as the distributions' own installers lay them out, sockets as files.
// Read in their sources of August 2026 (microk8s: of June).
var layouts = map[string][]string{
	"kubeadm": {"/run/containerd/containerd.sock", "/var/lib/containerd/", "/var/lib/kubelet/config.yaml", "/var/lib/kubelet/pki/kubelet.crt",
		"/etc/kubernetes/kubelet.conf"},
	"crio": {"/run/crio/crio.sock", "/var/lib/containers/storage/", "/var/lib/kubelet/config.yaml"},
	"docker": {"/run/cri-dockerd.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/var/lib/docker/", "/var/lib/containerd/",
		"/var/lib/kubelet/config.yaml"},
	"openshift": {"/etc/machine-config-daemon/currentconfig", "/usr/local/bin/kubenswrapper", "/run/crio/crio.sock", "/etc/kubernetes/kubelet.conf",
		"/var/lib/containers/storage/", "/var/lib/kubelet/pki/kubelet-server-current.pem"},
	"k3s": {"/usr/local/bin/k3s", "/run/k3s/containerd/containerd.sock", "/var/lib/rancher/k3s/agent/containerd/containerd.log",
		"/var/lib/rancher/k3s/agent/serving-kubelet.crt", "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/00-k3s-defaults.conf", "/var/lib/kubelet/pods/"},
	"rke2": {"/usr/local/bin/rke2", "/run/k3s/containerd/containerd.sock", "/var/lib/rancher/rke2/agent/logs/kubelet.log",
		"/var/lib/rancher/rke2/agent/containerd/containerd.log", "/var/lib/rancher/rke2/agent/serving-kubelet.crt", "/var/lib/kubelet/pods/",
		"/var/lib/rancher/rke2/agent/etc/kubelet.conf.d/00-rke2-defaults.conf"},
	"k0s": {"/usr/local/bin/k0s", "/run/k0s/containerd.sock", "/run/k0s/kubelet/config.yaml", "/var/lib/k0s/containerd/", "/var/lib/k0s/kubelet/pods/"},
	"microk8s": {"/var/snap/microk8s/common/run/containerd.sock", "/var/snap/microk8s/common/var/lib/containerd/",
		"/var/snap/microk8s/common/var/lib/kubelet/", "/var/snap/microk8s/current/certs/kubelet.crt"},
	"deckhouse": {"/opt/deckhouse/bin/d8-kubelet-forker", "/run/containerd/containerd.sock", "/var/lib/containerd/", "/var/lib/kubelet/config.yaml",
		"/var/lib/kubelet/pki/kubelet.crt"},
}

// node lays out a tree, and opens it as a host.
func node(t *testing.T, paths ...string) *host.Root {
	t.Helper()
	root := t.TempDir()
	for _, path := range paths {
		at := filepath.Join(root, path)
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestDetect(t *testing.T) {
	for _, d := range All {
		h := node(t, layouts[d.Name]...)
		got, by, err := Detect(h)
		if err != nil || got.Name != d.Name || !strings.HasPrefix(by, h.Path("/")) {
			t.Errorf("%s: detected %v by %q, %v", d.Name, got, by, err)
		}
	}
}

func TestDetectRefusesToGuess(t *testing.T) {
	for name, test := range map[string]struct {
		paths []string
		want  string
	}{
		"nothing":      {nil, "no trace of a distribution"},
		"a mere host":  {[]string{"/var/lib/kubelet/", "/var/log/"}, "no trace of a distribution"},
		"two":          {slices.Concat(layouts["k3s"], layouts["microk8s"]), "several are here: "},
		"two runtimes": {slices.Concat(layouts["crio"], layouts["kubeadm"]), "several are here: "},
	} {
		if d, _, err := Detect(node(t, test.paths...)); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v, %v, want %q", name, d, err, test.want)
		}
	}
}

// TestDetectBesideOthers: a distribution that brings its own runtime is told beside a Docker for builds.
func TestDetectBesideOthers(t *testing.T) {
	for _, name := range []string{"k3s", "rke2", "k0s", "microk8s", "openshift"} {
		got, _, err := Detect(node(t, slices.Concat(layouts[name], layouts["docker"])...))
		if err != nil || got.Name != name {
			t.Errorf("%s beside Docker: detected %v, %v", name, got, err)
		}
	}
}

// TestLayouts: what the table says is where it is on a node.
func TestLayouts(t *testing.T) {
	for _, d := range All {
		h := node(t, layouts[d.Name]...)
		paths := []string{d.Socket, d.Storage, d.KubeletDir, d.KubeletConfig, d.KubeletConfigDir}
		if d.Name != "crio" && d.Name != "docker" { // the certificate is kubeadm's
			paths = append(paths, d.Serving)
		}
		for _, log := range d.Logs {
			paths = append(paths, log.File)
		}
		for _, path := range paths {
			if path == "" {
				continue
			}
			if _, err := h.Stat(path); err != nil {
				t.Errorf("%s: %v", d.Name, err)
			}
		}
	}
}

func TestTable(t *testing.T) {
	for _, d := range All {
		if got, err := Get(d.Name); err != nil || got.Name != d.Name {
			t.Errorf("Get(%s): %v, %v", d.Name, got, err)
		}
		if d.Logs[0].Component != Kubelet {
			t.Errorf("%s: the first log is of %s", d.Name, d.Logs[0].Component)
		}
		for _, log := range d.Logs {
			if (log.Identifier == "") == (log.File == "") || log.Wrapped && log.File != "" {
				t.Errorf("%s: %+v", d.Name, log)
			}
			if log.Identifier != "" && !d.Uses(log.Identifier) {
				t.Errorf("%s does not use %s", d.Name, log.Identifier)
			}
		}
		if !d.Is(Containerd) && !d.Is(Crio) && !d.Is(Dockerd) {
			t.Errorf("%s has no runtime", d.Name)
		}
	}
	if _, err := Get("k8s"); err == nil || !strings.Contains(err.Error(), "there are kubeadm crio docker openshift k3s") {
		t.Error(err)
	}
}

func TestIdentifiers(t *testing.T) {
	kubelet, runtime := Identifiers()
	for _, want := range []string{"kubelet", "kubenswrapper", "k3s", "rke2", "k0s", "microk8s.daemon-kubelite", "d8-kubelet-forker"} {
		if !slices.Contains(kubelet, want) {
			t.Errorf("no kubelet %s in %q", want, kubelet)
		}
	}
	for _, want := range []string{"containerd", "crio", "dockerd", "cri-dockerd", "k0s", "microk8s.daemon-containerd"} {
		if !slices.Contains(runtime, want) {
			t.Errorf("no runtime %s in %q", want, runtime)
		}
	}
	for _, d := range All { // a unit is no identifier, unless its program is called the same
		for _, unit := range d.Units {
			if slices.Contains(kubelet, unit) && !d.Uses(unit) && d.Name != "openshift" && d.Name != "deckhouse" {
				t.Errorf("%s: the unit %s among the identifiers", d.Name, unit)
			}
		}
	}
}

func TestEvery(t *testing.T) {
	got := Every(func(d *Distribution) []string { return []string{d.Socket} })
	want := []string{containerdSocket, crioSocket, dockerSocket, rancherSocket, "/run/k0s/containerd.sock", "/var/snap/microk8s/common/run/containerd.sock"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if dirs := All[4].Directories(); !slices.Equal(dirs, []string{"/var/lib/rancher/k3s/agent/containerd", "/var/lib/kubelet", "/var/log"}) {
		t.Errorf("%q", dirs)
	}
	if dirs := All[5].Directories(); !slices.Contains(dirs, "/var/lib/rancher/rke2/agent/logs") {
		t.Errorf("%q", dirs)
	}
}
