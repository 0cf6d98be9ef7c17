package corpus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"npd-plugins/test/lab"
)

// object is a Kubernetes object or a part of one.
type object = map[string]any

// call sends a request to kube-apiserver and returns the answer's status and body.
func (n *node) call(method, path string, body any) (status int, answer []byte, err error) {
	request, err := http.NewRequest(method, "https://127.0.0.1:6443"+path, bytes.NewReader(marshal(body)))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer token")
	request.Header.Set("Content-Type", "application/json")
	response, err := n.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

func (n *node) create(t testing.TB, path string, o object) {
	t.Helper()
	if status, answer, err := n.call(http.MethodPost, path, o); err != nil || status != http.StatusCreated {
		t.Fatalf("create in %s: status %d, %v: %s", path, status, err, answer)
	}
}

func (n *node) waitReady(t testing.TB) {
	t.Helper()
	lab.Eventually(t, 3*time.Minute, "the node is Ready", func() bool {
		status, answer, err := n.call(http.MethodGet, "/api/v1/nodes/node-1", nil)
		var o struct {
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
		if err != nil || status != http.StatusOK || json.Unmarshal(answer, &o) != nil {
			return false
		}
		for _, c := range o.Status.Conditions {
			if c.Type == "Ready" {
				return c.Status == "True"
			}
		}
		return false
	})
}

const pods = "/api/v1/namespaces/default/pods"

// phases returns how many pods of the API are in each phase.
func (n *node) phases() map[string]int {
	status, answer, err := n.call(http.MethodGet, pods, nil)
	var list struct {
		Items []struct{ Status struct{ Phase string } }
	}
	if err != nil || status != http.StatusOK || json.Unmarshal(answer, &list) != nil {
		return nil
	}
	counts := map[string]int{"all": len(list.Items)}
	for _, pod := range list.Items {
		counts[pod.Status.Phase]++
	}
	return counts
}

// pod returns the i-th pod of a wave: a server with probes, volumes and an init container, a job, or a plain one.
func pod(wave string, i int) object {
	name := fmt.Sprintf("%s-%d", wave, i)
	container := object{
		"name": "app", "image": image(fmt.Sprintf("app-%s-%d", wave, i%3)), "args": []string{"serve"}, "imagePullPolicy": "IfNotPresent",
		"resources": object{"requests": object{"cpu": "1m", "memory": "8Mi"}, "limits": object{"memory": "64Mi"}},
	}
	spec := object{
		"nodeName": "node-1", "containers": []any{container}, "terminationGracePeriodSeconds": 10,
		"tolerations": []any{object{"operator": "Exists"}}, "automountServiceAccountToken": false, "enableServiceLinks": false,
	}
	switch i % 3 {
	case 0:
		container["readinessProbe"] = object{"httpGet": object{"port": 8080, "path": "/"}, "periodSeconds": 2}
		container["livenessProbe"] = object{"exec": object{"command": []string{"/app", "exit", "0"}}, "periodSeconds": 5, "timeoutSeconds": 10}
		container["volumeMounts"] = []any{object{"name": "settings", "mountPath": "/settings"}, object{"name": "scratch", "mountPath": "/scratch"}}
		spec["volumes"] = []any{
			object{"name": "settings", "configMap": object{"name": "settings"}},
			object{"name": "scratch", "emptyDir": object{"medium": "Memory"}},
		}
		spec["initContainers"] = []any{object{"name": "prepare", "image": container["image"], "args": []string{"exit", "0"}}}
	case 1:
		container["args"] = []string{"exit", "0"}
		spec["restartPolicy"] = "Never"
	}
	return object{
		"apiVersion": "v1", "kind": "Pod", "spec": spec,
		"metadata": object{"name": name, "labels": object{"app": wave}},
	}
}

// mistakes are what users do on healthy nodes every day: an image that does not exist, a program that fails.
func mistakes(wave string) []object {
	absent := pod(wave+"-absent", 2)
	absent["spec"].(object)["containers"].([]any)[0].(object)["image"] = image("absent")
	failing := pod(wave+"-failing", 2)
	failing["spec"].(object)["containers"].([]any)[0].(object)["args"] = []string{"exit", "1"}
	return []object{absent, failing}
}

// wave creates pods, sees them run, calls meanwhile, and deletes them.
func (n *node) wave(t testing.TB, name string, count int, meanwhile func()) {
	t.Helper()
	for i := range count {
		n.create(t, pods, pod(name, i))
	}
	lab.Eventually(t, 5*time.Minute, "the pods of wave "+name+" run", func() bool {
		phases := n.phases()
		return phases["all"] >= count && phases["Pending"] == 0
	})
	meanwhile()
	if status, answer, err := n.call(http.MethodDelete, pods, nil); err != nil || status != http.StatusOK {
		t.Fatalf("delete pods: status %d, %v: %s", status, err, answer)
	}
	lab.Eventually(t, 5*time.Minute, "the pods of wave "+name+" are gone", func() bool {
		phases := n.phases()
		return phases != nil && phases["all"] == 0
	})
}

// staticPod puts a pod into kubelet's directory for a while.
func (n *node) staticPod(t testing.TB, name string) {
	t.Helper()
	o := pod(name, 2)
	delete(o["spec"].(object), "nodeName")
	file := filepath.Join(n.dir, "static", name+".json")
	if err := os.WriteFile(file, marshal(o), 0o644); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, time.Minute, "the static pod runs", func() bool { return n.phases()["Running"] == 1 })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, time.Minute, "the static pod is gone", func() bool {
		phases := n.phases()
		return phases != nil && phases["all"] == 0
	})
}
