package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestComponents(t *testing.T) {
	for _, profile := range profiles {
		t.Run(profile, func(t *testing.T) {
			d := detector(t, mustRender(t, profile))
			testPod(t, d.Spec.Template.Spec)
			npd := d.Spec.Template.Spec.Containers[0]
			if want := []string{"/node-problem-detector", "--config.system-log-monitor=/config/a.json"}; !slices.Equal(npd.Command[:2], want) {
				t.Errorf("the command begins with %q, want upstream's %q", npd.Command[:2], want)
			}
			testMonitors(t, npd.Command, profile)
			if npd.Image != "detector" || npd.SecurityContext["privileged"] != true || !hasVariable(npd, "NODE_NAME", "spec.nodeName") {
				t.Errorf("upstream's settings are changed: %+v", npd)
			}
			if image := d.Spec.Template.Spec.InitContainers[0].Image; image != "registry.example.com/npd-plugins:VERSION" {
				t.Errorf("the init container has the image %s, not the overlay's", image)
			}
		})
	}
}

// testPod is what holds for both profiles, by kustomize and by Helm.
func testPod(t *testing.T, p pod) {
	t.Helper()
	npd := p.Containers[0]
	if p.HostPID || p.HostNetwork {
		t.Error("namespaces of the host")
	}
	if len(p.InitContainers) != 1 || p.InitContainers[0].Args[0] != "install" {
		t.Fatalf("init containers: %+v", p.InitContainers)
	}
	install := p.InitContainers[0]
	for _, arg := range []string{"--dest=/opt/npd-plugins", "--host-root=/host"} {
		if !slices.Contains(install.Args, arg) {
			t.Errorf("npdctl has the arguments %q, without %s", install.Args, arg)
		}
	}
	if len(install.VolumeMounts) != 1 || install.VolumeMounts[0].MountPath != "/opt/npd-plugins" {
		t.Errorf("the init container mounts %+v, and needs only where it installs to", install.VolumeMounts)
	}
	if !hasVariable(npd, "NODE_IP", "status.hostIP") {
		t.Errorf("environment: %+v", npd.Env)
	}
	testVolumes(t, p)
	for _, c := range []container{install, npd} {
		r, l := c.Resources["requests"], c.Resources["limits"]
		if !maps.Equal(r, l) || r["cpu"] == "" || r["memory"] == "" {
			t.Errorf("%s: requests %v, limits %v; equal they make the pod Guaranteed", c.Name, r, l)
		}
	}
	if npd.Resources["limits"]["memory"] == "80Mi" {
		t.Error("upstream's resources are not changed")
	}
}

// files are what may be mounted although it is no directory: nothing puts another file in their place.
var files = []string{"/etc/localtime", "/dev/kmsg"}

func testVolumes(t *testing.T, p pod) {
	t.Helper()
	volumes := map[string]volume{}
	for _, v := range p.Volumes {
		if _, twice := volumes[v.Name]; twice {
			t.Errorf("volume %s is there twice", v.Name)
		}
		volumes[v.Name] = v
	}
	at := map[string]mount{}
	for _, m := range p.Containers[0].VolumeMounts {
		if _, twice := at[m.MountPath]; twice {
			t.Errorf("%s is mounted twice", m.MountPath)
		}
		at[m.MountPath] = m
		v, ok := volumes[m.Name]
		if !ok {
			t.Errorf("%s mounts the volume %s, which is not there", m.MountPath, m.Name)
		}
		if m.ReadOnly == (m.MountPath == "/run/npd-plugins") {
			t.Errorf("%s: readOnly %t; all is but the state directory", m.MountPath, m.ReadOnly)
		}
		if v.HostPath == nil || slices.Contains(files, v.HostPath.Path) {
			continue
		}
		if strings.HasSuffix(v.HostPath.Path, ".sock") || strings.Contains(v.HostPath.Type, "Socket") || strings.Contains(v.HostPath.Type, "File") {
			t.Errorf("%s mounts a file: %+v", m.MountPath, *v.HostPath)
		}
		inRoot := filepath.Join("/host", v.HostPath.Path)
		if strings.HasPrefix(m.MountPath, "/host") && m.MountPath != inRoot {
			t.Errorf("%s of the node is mounted at %s, want %s", v.HostPath.Path, m.MountPath, inRoot)
		}
		if submounts := slices.Contains([]string{"/", "/run"}, v.HostPath.Path); submounts && m.MountPropagation != "HostToContainer" {
			t.Errorf("%s keeps what the node unmounts below %s: mountPropagation %q", m.MountPath, v.HostPath.Path, m.MountPropagation)
		}
	}
	if v := volumes[at["/opt/npd-plugins"].Name]; v.EmptyDir == nil {
		t.Errorf("/opt/npd-plugins is %+v, want an emptyDir", v)
	}
}

// testMonitors wants each configuration and each file of journal rules among the arguments of the profile all, and fewer in core, all of
// them where npdctl installs them.
func testMonitors(t *testing.T, command []string, profile string) {
	t.Helper()
	for monitor, dir := range map[string]string{"custom-plugin-monitor": "config", "system-log-monitor": "journal-rules"} {
		var ours []string
		for _, file := range monitors(command, monitor) {
			if name, ok := strings.CutPrefix(file, "/opt/npd-plugins/"+dir+"/"); ok {
				ours = append(ours, name)
			}
		}
		var there []string
		paths, err := filepath.Glob(filepath.Join(root, dir, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			there = append(there, filepath.Base(path))
		}
		slices.Sort(ours)
		switch {
		case profile == "all" && !slices.Equal(ours, there):
			t.Errorf("--config.%s has %q, %s has %q", monitor, ours, dir, there)
		case profile == "core" && (len(ours) == 0 || len(ours) >= len(there)):
			t.Errorf("--config.%s has %d of %d files of %s", monitor, len(ours), len(there), dir)
		}
		for _, name := range ours {
			if !slices.Contains(there, name) {
				t.Errorf("--config.%s names %s, which is not in %s", monitor, name, dir)
			}
		}
	}
}

func hasVariable(c container, name, field string) bool {
	n := 0
	for _, v := range c.Env {
		if v.Name == name {
			n++
			if v.ValueFrom.FieldRef.FieldPath != field {
				return false
			}
		}
	}
	return n == 1
}

// TestRights: what kubelet is asked for is in all and not in core, for the service account of the pod.
func TestRights(t *testing.T) {
	const role = "name: npd-plugins-kubelet\n"
	if strings.Contains(mustRender(t, "core"), role) {
		t.Error("core asks for rights")
	}
	manifests := mustRender(t, "all")
	if strings.Count(manifests, role) != 3 { // ClusterRole, ClusterRoleBinding and its reference
		t.Error("all has not the ClusterRole and its binding")
	}
	if strings.Contains(manifests, "nodes/proxy") {
		t.Error("nodes/proxy may run commands in all pods")
	}
}

// TestOverlay: namespace, prefix and image of an overlay reach what the components add.
func TestOverlay(t *testing.T) {
	manifests, err := render("all", upstream(t), "namespace: monitoring\nnamePrefix: our-\n")
	if err != nil {
		t.Fatal(err)
	}
	if d := detector(t, manifests); d.Metadata.Namespace != "monitoring" || d.Spec.Template.Spec.ServiceAccountName != "our-node-problem-detector" {
		t.Errorf("%+v", d.Metadata)
	}
	for _, document := range objects(t, manifests) {
		if strings.Contains(document, "kind: ClusterRoleBinding\n") && !strings.Contains(document, "- kind: ServiceAccount\n  name: our-node-problem-detector\n  namespace: monitoring") {
			t.Errorf("the binding is for another service account:\n%s", document)
		}
	}
}

// TestOtherShape: a DaemonSet that the components do not fit is an error, and not a node-problem-detector without checks.
func TestOtherShape(t *testing.T) {
	for name, change := range map[string][2]string{
		"another name":          {"kind: DaemonSet\nmetadata:\n  name: node-problem-detector\n", "kind: DaemonSet\nmetadata:\n  name: npd\n"},
		"arguments, no command": {"command:", "args:"},
	} {
		changed := strings.Replace(upstream(t), change[0], change[1], 1)
		if changed == upstream(t) {
			t.Fatalf("%s: nothing is changed", name)
		}
		if _, err := render("core", changed, ""); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// TestSecondContainer: the arguments go to node-problem-detector's container, wherever it stands.
func TestSecondContainer(t *testing.T) {
	const first = "      containers:\n"
	changed := strings.Replace(upstream(t), first, first+"      - {name: proxy, image: proxy, command: [/proxy]}\n", 1)
	manifests, err := render("core", changed, "")
	if err != nil {
		t.Fatal(err)
	}
	var d daemonSet
	for _, document := range objects(t, manifests) {
		if strings.Contains(document, "kind: DaemonSet\n") {
			if err := yaml.Unmarshal([]byte(document), &d); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range d.Spec.Template.Spec.Containers {
		if got := len(monitors(c.Command, "custom-plugin-monitor")) > 0; got != (c.Name == "node-problem-detector") {
			t.Errorf("the container %s has the command %q", c.Name, c.Command)
		}
	}
}

// TestExample: the overlay names files of upstream at a release, and the components that there are.
func TestExample(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/kustomize/example/kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "https://raw.githubusercontent.com/kubernetes/node-problem-detector/v1.36.0/deployment/"); n != 3 {
		t.Errorf("%d files of upstream, want rbac, config and DaemonSet", n)
	}
	for _, profile := range profiles {
		if !strings.Contains(string(text), "../"+profile) {
			t.Errorf("does not tell of %s", profile)
		}
	}
	_, patches, _ := strings.Cut(string(text), "# patches:\n")
	manifests, err := render("core", upstream(t), "\npatches:\n"+strings.ReplaceAll(patches, "# ", ""))
	if err != nil {
		t.Fatal(err)
	}
	p := detector(t, manifests).Spec.Template.Spec
	if args := p.InitContainers[0].Args; !p.HostPID || args[len(args)-1] != "--disable=zombies,IOStalled" {
		t.Errorf("the patches in the comment do not set hostPID and turn checks off: %t, %q", p.HostPID, args)
	}
}
