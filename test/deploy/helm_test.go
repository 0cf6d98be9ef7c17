package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// chart is what the chart node-problem-detector of deliveryhero makes of the values of a profile, or what is missing for that: helm on PATH,
// and $NPD_CHART, the directory of the chart. Whoever installs by Helm has both; the suite brings neither along.
func chart(t *testing.T, profile string) (rendered, missing string) {
	t.Helper()
	helm, err := exec.LookPath("helm")
	dir := os.Getenv("NPD_CHART")
	if err != nil || dir == "" {
		return "", "needs helm on PATH and NPD_CHART: helm pull node-problem-detector --repo https://charts.deliveryhero.io --version 2.4.1 --untar"
	}
	cmd := exec.Command(helm, "template", "node-problem-detector", dir, "--namespace=kube-system",
		"--values="+filepath.Join(root, "deploy/helm", profile+".yaml"), "--set", "initContainers[0].image=registry.example.com/npd-plugins:VERSION")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm template: %v", err)
	}
	return string(out), ""
}

// TestChart: the chart makes the same pod of the values as kustomize does of the components, as far as both say it.
func TestChart(t *testing.T) {
	for _, profile := range profiles {
		t.Run(profile, func(t *testing.T) {
			rendered, missing := chart(t, profile)
			if missing != "" {
				t.Skip(missing)
			}
			p := detector(t, rendered).Spec.Template.Spec
			testPod(t, p)
			npd := p.Containers[0]
			command := strings.Fields(npd.Command[len(npd.Command)-1]) // of /bin/sh -c
			testMonitors(t, command, profile)
			if logs := monitors(command, "system-log-monitor"); !slices.Contains(logs, "/config/kernel-monitor.json") {
				t.Errorf("the chart's own log monitors are gone: %q", logs)
			}
			want := detector(t, mustRender(t, profile)).Spec.Template.Spec
			if diff := cmp.Diff(want.InitContainers, p.InitContainers); diff != "" {
				t.Errorf("init container, -kustomize +Helm:\n%s", diff)
			}
			if diff := cmp.Diff(want.Containers[0].Resources, npd.Resources); diff != "" {
				t.Errorf("resources, -kustomize +Helm:\n%s", diff)
			}
			for _, m := range want.Containers[0].VolumeMounts {
				if m.MountPath != "/var/log" && m.MountPath != "/config" && !slices.Contains(npd.VolumeMounts, m) {
					t.Errorf("Helm lacks the mount %+v", m)
				}
			}
			if profile == "all" && !strings.Contains(rendered, "nodes/metrics") {
				t.Error("the rights to ask kubelet are missing")
			}
		})
	}
}
