// Package deploy tests the manifests of deploy/: what kustomize and Helm make of them, and whether kube-apiserver takes it.
package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const root = "../.."

// profiles are those of deploy/kustomize and deploy/helm.
var profiles = []string{"core", "all"}

// daemonSet is what the tests look at of node-problem-detector's pod.
type daemonSet struct {
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		Template struct {
			Spec pod `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
}

type pod struct {
	ServiceAccountName string      `json:"serviceAccountName"`
	HostPID            bool        `json:"hostPID"`
	HostNetwork        bool        `json:"hostNetwork"`
	InitContainers     []container `json:"initContainers"`
	Containers         []container `json:"containers"`
	Volumes            []volume    `json:"volumes"`
}

type container struct {
	Name            string                       `json:"name"`
	Image           string                       `json:"image"`
	Command         []string                     `json:"command"`
	Args            []string                     `json:"args"`
	Env             []variable                   `json:"env"`
	Resources       map[string]map[string]string `json:"resources"`
	SecurityContext map[string]any               `json:"securityContext"`
	VolumeMounts    []mount                      `json:"volumeMounts"`
}

type variable struct {
	Name      string `json:"name"`
	ValueFrom struct {
		FieldRef struct {
			FieldPath string `json:"fieldPath"`
		} `json:"fieldRef"`
	} `json:"valueFrom"`
}

type mount struct {
	Name             string `json:"name"`
	MountPath        string `json:"mountPath"`
	ReadOnly         bool   `json:"readOnly"`
	MountPropagation string `json:"mountPropagation"`
}

type volume struct {
	Name     string `json:"name"`
	HostPath *struct {
		Path string `json:"path"`
		Type string `json:"type"`
	} `json:"hostPath"`
	EmptyDir *struct{} `json:"emptyDir"`
}

// render is deploy/kustomize/example with the profile, and with testdata/upstream.yaml in the place of what it takes from upstream.
// more is added to its kustomization.
func render(profile, upstream, more string) (string, error) {
	disk := filesys.MakeFsInMemory()
	for _, pattern := range []string{"common", profile} {
		files, err := filepath.Glob(filepath.Join(root, "deploy/kustomize", pattern, "*.yaml"))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			if err := disk.WriteFile(filepath.Join("/kustomize", pattern, filepath.Base(file)), text); err != nil {
				return "", err
			}
		}
	}
	example, err := os.ReadFile(filepath.Join(root, "deploy/kustomize/example/kustomization.yaml"))
	if err != nil {
		return "", err
	}
	var overlay map[string]any
	if err := yaml.UnmarshalStrict(example, &overlay); err != nil {
		return "", err
	}
	overlay["resources"] = []string{"upstream.yaml"}
	overlay["components"] = []string{"../" + profile}
	text, err := yaml.Marshal(overlay)
	if err != nil {
		return "", err
	}
	for name, content := range map[string]string{"kustomization.yaml": string(text) + more, "upstream.yaml": upstream} {
		if err := disk.WriteFile("/kustomize/example/"+name, []byte(content)); err != nil {
			return "", err
		}
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, "/kustomize/example")
	if err != nil {
		return "", err
	}
	rendered, err := resources.AsYaml()
	return string(rendered), err
}

func mustRender(t *testing.T, profile string) string {
	t.Helper()
	rendered, err := render(profile, upstream(t), "")
	if err != nil {
		t.Fatal(err)
	}
	return rendered
}

func upstream(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/upstream.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// objects are the documents of manifests.
func objects(t *testing.T, manifests string) []string {
	t.Helper()
	var found []string
	for document := range strings.SplitSeq("\n"+manifests, "\n---\n") {
		if object := map[string]any{}; yaml.Unmarshal([]byte(document), &object) != nil {
			t.Fatalf("no YAML:\n%s", document)
		} else if len(object) > 0 {
			found = append(found, document)
		}
	}
	return found
}

// detector is the DaemonSet among manifests, with one container.
func detector(t *testing.T, manifests string) daemonSet {
	t.Helper()
	for _, document := range objects(t, manifests) {
		if !strings.Contains(document, "kind: DaemonSet\n") {
			continue
		}
		var d daemonSet
		if err := yaml.Unmarshal([]byte(document), &d); err != nil {
			t.Fatal(err)
		}
		if n := len(d.Spec.Template.Spec.Containers); n != 1 {
			t.Fatalf("%d containers, want one", n)
		}
		return d
	}
	t.Fatal("no DaemonSet")
	return daemonSet{}
}

// monitors are the files that node-problem-detector is started with, for one of its monitors. The flag may be there several times.
func monitors(command []string, monitor string) []string {
	var files []string
	for _, word := range command {
		if list, ok := strings.CutPrefix(word, "--config."+monitor+"="); ok {
			files = append(files, strings.Split(list, ",")...)
		}
	}
	return files
}
