package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/test/lab"
)

// TestAccepted: kube-apiserver takes all that kustomize and Helm make, without a field that it does not know.
func TestAccepted(t *testing.T) {
	s := lab.StartControlPlane(t)
	manifests := map[string]string{}
	rights, err := os.ReadFile(filepath.Join(root, "deploy/rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	manifests["deploy/rbac.yaml"] = string(rights)
	for _, profile := range profiles {
		manifests["kustomize "+profile] = mustRender(t, profile)
		for name, dir := range charts() {
			manifests["Helm "+name+" "+profile] = template(t, dir, profile)
		}
	}
	for name, text := range manifests {
		for _, document := range objects(t, text) {
			if err := s.ServerSideApply(document, true); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		t.Logf("%s: %d objects", name, len(objects(t, text)))
	}
	broken := strings.Replace(mustRender(t, "core"), "mountPropagation: HostToContainer", "mountPropagation: Host", 1)
	for _, document := range objects(t, broken) {
		if strings.Contains(document, "kind: DaemonSet\n") && s.ServerSideApply(document, true) == nil {
			t.Error("takes a mount propagation that there is not: the test sees nothing")
		}
	}
}

// customResources are the manifests of kinds that others define.
var customResources = []struct {
	file       string
	module     string // of the Go module proxy that has the definition; "" when none there has it
	definition string // in the module
	breaks     [2]string
}{
	{"monitoring/prometheusrule.yaml", "github.com/prometheus-operator/prometheus-operator@v0.85.0",
		"example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml", [2]string{"for: 5m", "fore: 5m"}},
	{"remediation/machine-health-check.yaml", "sigs.k8s.io/cluster-api@v1.14.2",
		"core/config/crd/bases/cluster.x-k8s.io_machinehealthchecks.yaml", [2]string{"timeoutSeconds: 1800", "timeout: 30m"}},
	{"remediation/node-readiness-rules.yaml", "", "readiness.node.x-k8s.io_nodereadinessrules.yaml", [2]string{"requiredStatus:", "status:"}},
	{"remediation/node-health-check.yaml", "", "remediation.medik8s.io_nodehealthchecks.yaml", [2]string{"minHealthy:", "minimumHealthy:"}},
}

// envDefinitions names a directory with definitions that the module proxy does not have.
const envDefinitions = "NPD_TEST_CRDS"

// TestCustomResourcesAccepted: kube-apiserver takes what is for other projects' controllers, by their own definitions.
func TestCustomResourcesAccepted(t *testing.T) {
	s := lab.StartControlPlane(t)
	for _, r := range customResources {
		t.Run(r.file, func(t *testing.T) {
			definition, err := os.ReadFile(filepath.Join(definitions(t, r.module), r.definition))
			if err != nil {
				t.Skipf("needs the definition: %v", err)
			}
			if err := s.ServerSideApply(string(definition), false); err != nil {
				t.Fatal(err)
			}
			manifest, err := os.ReadFile(filepath.Join(root, "deploy", r.file))
			if err != nil {
				t.Fatal(err)
			}
			documents := objects(t, namespaced(string(definition), string(manifest)))
			lab.Eventually(t, 20*time.Second, "the kind is served", func() bool {
				err := s.ServerSideApply(documents[0], true)
				return err == nil || !strings.Contains(err.Error(), "404")
			})
			for _, document := range documents {
				if err := s.ServerSideApply(document, true); err != nil {
					t.Error(err)
				}
			}
			broken := strings.Replace(documents[0], r.breaks[0], r.breaks[1], 1)
			if broken == documents[0] || s.ServerSideApply(broken, true) == nil {
				t.Errorf("takes %s: the test sees nothing", r.breaks[1])
			}
		})
	}
}

// definitions returns the directory of a module, downloaded if need be.
func definitions(t *testing.T, module string) string {
	t.Helper()
	if module == "" {
		if dir := os.Getenv(envDefinitions); dir != "" {
			return dir
		}
		t.Skipf("needs the project's definition, which the Go module proxy does not have: name a directory with it in $%s", envDefinitions)
	}
	download := exec.Command("go", "mod", "download", "-json", module)
	download.Dir = t.TempDir() // outside of any module
	out, err := download.Output()
	var found struct{ Dir string }
	if err != nil || json.Unmarshal(out, &found) != nil || found.Dir == "" {
		t.Skipf("needs module %s: %v\n%s", module, err, out)
	}
	return found.Dir
}

// namespaced gives objects a namespace where their kind has one, as kubectl does.
func namespaced(definition, manifest string) string {
	if !strings.Contains(definition, "scope: Namespaced") {
		return manifest
	}
	return strings.Replace(manifest, "\nmetadata:\n", "\nmetadata:\n  namespace: default\n", 1)
}
