package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/strvals"
)

// charts are the charts to try the values with: that of testdata, and the real one where $NPD_CHART is its directory
// (helm pull node-problem-detector --repo https://charts.deliveryhero.io --version 2.4.1 --untar).
func charts() map[string]string {
	all := map[string]string{"testdata": "testdata/chart"}
	if dir := os.Getenv("NPD_CHART"); dir != "" {
		all["NPD_CHART"] = dir
	}
	return all
}

// template is what Helm makes of a chart with the values of a profile, and with values as --set gives them.
func template(t *testing.T, dir, profile string, set ...string) string {
	t.Helper()
	chart, err := loader.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	values, err := chartutil.ReadValuesFile(filepath.Join(root, "deploy/helm", profile+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range append([]string{"initContainers[0].image=registry.example.com/npd-plugins:VERSION"}, set...) {
		if err := strvals.ParseInto(one, values); err != nil {
			t.Fatal(err)
		}
	}
	release := chartutil.ReleaseOptions{Name: "node-problem-detector", Namespace: "kube-system", IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	var manifests []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			manifests = append(manifests, files[name])
		}
	}
	return strings.Join(manifests, "\n---\n")
}

// chartCommand is what node-problem-detector is started with by the chart: it is an argument of sh -c.
func chartCommand(c container) []string { return strings.Fields(c.Command[len(c.Command)-1]) }

// TestChart: the chart makes the same pod of the values as kustomize does of the components, as far as both say it.
func TestChart(t *testing.T) {
	for name, dir := range charts() {
		for _, profile := range profiles {
			t.Run(name+" "+profile, func(t *testing.T) { testChart(t, dir, profile) })
		}
	}
	if os.Getenv("NPD_CHART") == "" {
		t.Log("without NPD_CHART, the directory of the real chart, only one of its shape is tried")
	}
}

func testChart(t *testing.T, dir, profile string) {
	rendered := template(t, dir, profile)
	p := detector(t, rendered).Spec.Template.Spec
	testPod(t, p)
	npd := p.Containers[0]
	command := chartCommand(npd)
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
}
