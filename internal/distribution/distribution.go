// Package distribution holds where Kubernetes distributions keep what is looked at on their nodes: under which names and in
// which files kubelet and the container runtime log, their units, sockets, directories and certificates.
//
// The name of a unit is not the identifier of its lines: systemd takes that from the file name of the program that a unit starts
// (SyslogIdentifier= in systemd.exec(5)).
package distribution

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"npd-plugins/internal/host"
)

// Component is a program of the node that has log rules.
type Component string

// The components, each with the name of its process.
const (
	Kubelet    Component = "kubelet"
	Containerd Component = "containerd"
	Crio       Component = "crio"
	Dockerd    Component = "dockerd"
	CriDockerd Component = "cri-dockerd"
)

// Log is where a component logs: in the journal under an identifier, or to a file of its own.
type Log struct {
	Component  Component
	Identifier string // SYSLOG_IDENTIFIER, "" with File
	File       string // on the node
	// Wrapped says that the supervisor which starts the component makes each of its lines the msg= of a line of its own, with
	// quotes and backslashes escaped, and component= and stream= behind it (logrus' text format).
	Wrapped bool
}

// Distribution is what is known of the nodes of one. Paths are those on the node.
type Distribution struct {
	Name string
	// Logs are those of kubelet first.
	Logs []Log
	// Units are the services a node cannot work without, without ".service". A node may have only some of them.
	Units []string
	// Socket is where the container runtime answers CRI calls.
	Socket string
	// Storage is where the runtime keeps images and containers.
	Storage string
	// KubeletDir is kubelet's --root-dir, KubeletConfig its --config and KubeletConfigDir its --config-dir; "" where it has none.
	KubeletDir, KubeletConfig, KubeletConfigDir string
	// Serving is the certificate that kubelet answers with where it stays in one file, else "".
	Serving string
	// marks are there on no node of another distribution.
	marks []string
}

const (
	kubeletDir    = "/var/lib/kubelet"
	kubeletConfig = kubeletDir + "/config.yaml" // kubeadm's
	// selfSigned is what a kubelet without serverTLSBootstrap and tlsCertFile makes for itself (cmd/kubelet/app/server.go, InitializeTLS).
	selfSigned = kubeletDir + "/pki/kubelet.crt"

	containerdSocket = "/run/containerd/containerd.sock"
	crioSocket       = "/run/crio/crio.sock"
	dockerSocket     = "/run/cri-dockerd.sock"
	rancherSocket    = "/run/k3s/containerd/containerd.sock" // of rke2 too

	k3s      = "/var/lib/rancher/k3s"
	rke2     = "/var/lib/rancher/rke2"
	microk8s = "/var/snap/microk8s"
)

// All are the distributions, those without marks first: a kubelet from a package beside one of the runtimes.
var All = []Distribution{
	{
		Name:       "kubeadm",
		Logs:       []Log{{Component: Kubelet, Identifier: "kubelet"}, {Component: Containerd, Identifier: "containerd"}},
		Units:      []string{"kubelet", "containerd"},
		Socket:     containerdSocket,
		Storage:    "/var/lib/containerd",
		KubeletDir: kubeletDir, KubeletConfig: kubeletConfig, Serving: selfSigned,
	},
	{
		Name:       "crio",
		Logs:       []Log{{Component: Kubelet, Identifier: "kubelet"}, {Component: Crio, Identifier: "crio"}},
		Units:      []string{"kubelet", "crio"},
		Socket:     crioSocket,
		Storage:    "/var/lib/containers/storage",
		KubeletDir: kubeletDir, KubeletConfig: kubeletConfig, Serving: selfSigned,
	},
	{
		Name: "docker",
		Logs: []Log{{Component: Kubelet, Identifier: "kubelet"}, {Component: Dockerd, Identifier: "dockerd"},
			{Component: CriDockerd, Identifier: "cri-dockerd"}, {Component: Containerd, Identifier: "containerd"}},
		Units:      []string{"kubelet", "docker", "cri-docker", "containerd"},
		Socket:     dockerSocket,
		Storage:    "/var/lib/docker",
		KubeletDir: kubeletDir, KubeletConfig: kubeletConfig, Serving: selfSigned,
	},
	{
		Name:       "openshift",
		Logs:       []Log{{Component: Kubelet, Identifier: "kubenswrapper"}, {Component: Crio, Identifier: "crio"}},
		Units:      []string{"kubelet", "crio"},
		Socket:     crioSocket,
		Storage:    "/var/lib/containers/storage",
		KubeletDir: kubeletDir, KubeletConfig: "/etc/kubernetes/kubelet.conf",
		marks: []string{"/etc/machine-config-daemon"},
	},
	{
		// Server and agent are one program, with kubelet in it. The containerd that it starts has a file of its own.
		Name:       "k3s",
		Logs:       []Log{{Component: Kubelet, Identifier: "k3s"}, {Component: Containerd, File: k3s + "/agent/containerd/containerd.log"}},
		Units:      []string{"k3s", "k3s-agent"},
		Socket:     rancherSocket,
		Storage:    k3s + "/agent/containerd",
		KubeletDir: kubeletDir, KubeletConfigDir: k3s + "/agent/etc/kubelet.conf.d", Serving: k3s + "/agent/serving-kubelet.crt",
		marks: []string{k3s},
	},
	{
		// kubelet and containerd are processes of their own, each with a file. In the journal is what rke2 itself says.
		Name: "rke2",
		Logs: []Log{{Component: Kubelet, File: rke2 + "/agent/logs/kubelet.log"}, {Component: Kubelet, Identifier: "rke2"},
			{Component: Containerd, File: rke2 + "/agent/containerd/containerd.log"}},
		Units:      []string{"rke2-server", "rke2-agent"},
		Socket:     rancherSocket,
		Storage:    rke2 + "/agent/containerd",
		KubeletDir: kubeletDir, KubeletConfigDir: rke2 + "/agent/etc/kubelet.conf.d", Serving: rke2 + "/agent/serving-kubelet.crt",
		marks: []string{rke2},
	},
	{
		Name: "k0s",
		Logs: []Log{{Component: Kubelet, Identifier: "k0s", Wrapped: true}, {Component: Containerd, Identifier: "k0s", Wrapped: true}},
		// A controller that runs no pods has no worker, and the other way round.
		Units:      []string{"k0sworker", "k0scontroller"},
		Socket:     "/run/k0s/containerd.sock",
		Storage:    "/var/lib/k0s/containerd",
		KubeletDir: "/var/lib/k0s/kubelet", KubeletConfig: "/run/k0s/kubelet/config.yaml",
		marks: []string{"/var/lib/k0s"},
	},
	{
		// snapd names the lines after snap and application. kubelet has no configuration file, all is on its command line.
		Name: "microk8s",
		Logs: []Log{{Component: Kubelet, Identifier: "microk8s.daemon-kubelite"}, {Component: Containerd, Identifier: "microk8s.daemon-containerd"}},

		Units:      []string{"snap.microk8s.daemon-kubelite", "snap.microk8s.daemon-containerd"},
		Socket:     microk8s + "/common/run/containerd.sock",
		Storage:    microk8s + "/common/var/lib/containerd",
		KubeletDir: microk8s + "/common/var/lib/kubelet", Serving: microk8s + "/current/certs/kubelet.crt",
		marks: []string{microk8s + "/common"},
	},
	{
		// A script starts kubelet and lends it its name.
		Name:       "deckhouse",
		Logs:       []Log{{Component: Kubelet, Identifier: "d8-kubelet-forker"}, {Component: Containerd, Identifier: "containerd"}},
		Units:      []string{"kubelet", "containerd-deckhouse"},
		Socket:     containerdSocket,
		Storage:    "/var/lib/containerd",
		KubeletDir: kubeletDir, KubeletConfig: kubeletConfig, Serving: selfSigned,
		marks: []string{"/opt/deckhouse", "/var/lib/bashible"},
	},
}

// Names are those of All.
func Names() (names []string) {
	for _, d := range All {
		names = append(names, d.Name)
	}
	return names
}

// Get returns the distribution of that name.
func Get(name string) (*Distribution, error) {
	for i := range All {
		if All[i].Name == name {
			return &All[i], nil
		}
	}
	return nil, fmt.Errorf("no distribution %q; there are %s", name, strings.Join(Names(), " "))
}

// Detect finds the distribution of a node, and says by which path. One that cannot be told is an error that says why.
func Detect(h *host.Root) (d *Distribution, by string, err error) {
	var found []string
	there := func(path string) bool { _, err := h.Stat(path); return err == nil }
	for i := range All {
		if at := slices.IndexFunc(All[i].marks, there); at >= 0 {
			d, by = &All[i], h.Path(All[i].marks[at])
			found = append(found, by)
		}
	}
	if len(found) == 0 { // a kubelet from a package: the runtime's socket tells
		for i := range All {
			// Docker's containerd has a socket, too.
			if All[i].marks == nil && there(All[i].Socket) && (All[i].Socket != containerdSocket || !there(dockerSocket)) {
				d, by = &All[i], h.Path(All[i].Socket)
				found = append(found, by)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, "", fmt.Errorf("no trace of a distribution or runtime below %s", h.Path("/"))
	case 1:
		return d, by, nil
	}
	return nil, "", errors.New("several are here: " + strings.Join(found, ", "))
}

// older are identifiers of installations that All does not have: CoreOS', GCE's and OpenShift 3's kubelets, Docker of RHEL 7.
var older = []Log{
	{Component: Kubelet, Identifier: "kubelet-wrapper"}, {Component: Kubelet, Identifier: "kubelet-containerd.sh"},
	{Component: Kubelet, Identifier: "hyperkube"}, {Component: Kubelet, Identifier: "origin-node"}, {Component: Dockerd, Identifier: "docker"},
}

// Identifiers are those under which components log in the journal, in all distributions: of kubelet, and of the runtimes.
func Identifiers() (kubelet, runtime []string) {
	var logs []Log
	for _, d := range All {
		logs = append(logs, d.Logs...)
	}
	for _, log := range append(logs, older...) {
		to := &runtime
		if log.Component == Kubelet {
			to = &kubelet
		}
		if log.Identifier != "" && !slices.Contains(*to, log.Identifier) {
			*to = append(*to, log.Identifier)
		}
	}
	return kubelet, runtime
}

// Uses says whether a component logs in the journal under that identifier.
func (d *Distribution) Uses(identifier string) bool {
	return slices.ContainsFunc(d.Logs, func(l Log) bool { return l.Identifier == identifier })
}

// Is says whether the runtime is that component.
func (d *Distribution) Is(runtime Component) bool {
	return d.Logs[slices.IndexFunc(d.Logs, func(l Log) bool { return l.Component != Kubelet })].Component == runtime
}

// Directories are those on whose disks kubelet and the runtime wait.
func (d *Distribution) Directories() []string {
	dirs := []string{d.Storage, d.KubeletDir, "/var/log"}
	for _, log := range d.Logs {
		if log.File != "" && !strings.HasPrefix(log.File, d.Storage) {
			dirs = append(dirs, path.Dir(log.File))
		}
	}
	return dirs
}

// Every returns what a function says of each distribution, once.
func Every(of func(*Distribution) []string) (all []string) {
	for i := range All {
		for _, one := range of(&All[i]) {
			if one != "" && !slices.Contains(all, one) {
				all = append(all, one)
			}
		}
	}
	return all
}
