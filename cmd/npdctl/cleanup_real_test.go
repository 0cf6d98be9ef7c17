package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"npd-plugins/internal/apiserver"
	"npd-plugins/test/lab"
)

// TestCleanupOfRealNodes: kube-apiserver understands the patch, does nothing in a dry run, and refuses it when the node has changed.
func TestCleanupOfRealNodes(t *testing.T) {
	cluster := lab.StartControlPlane(t)
	for _, name := range []string{"node-1", "node-2"} {
		node := map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]string{"name": name}}
		cluster.Call(t, http.MethodPost, "/api/v1/nodes", node)
		node["status"] = map[string]any{"conditions": []map[string]string{
			{"type": "Ready", "status": "True", "reason": "KubeletReady"},
			{"type": "ZombieProcesses", "status": "True", "reason": "ZombiesNotReaped", "message": "7 zombies"},
			{"type": "KernelDeadlock", "status": "False", "reason": "KernelHasNoDeadlock"},
			{"type": "PLEGStalled", "status": "Unknown", "reason": "PLEGHealthy"},
			{"type": "TasksNearLimit", "status": "True", "reason": "OfSomebodyElse"},
		}}
		cluster.Call(t, http.MethodPut, "/api/v1/nodes/"+name+"/status", node)
	}
	types := func(name string) string {
		t.Helper()
		var node struct {
			Status struct{ Conditions []struct{ Type string } }
		}
		if err := json.Unmarshal(cluster.Call(t, http.MethodGet, "/api/v1/nodes/"+name, nil), &node); err != nil {
			t.Fatal(err)
		}
		var types []string
		for _, c := range node.Status.Conditions {
			types = append(types, c.Type)
		}
		return strings.Join(types, " ")
	}
	cleanup := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := npdctl(append([]string{"cleanup"}, args...), &out, &errs); code != exitFine {
			t.Fatalf("exit %d\n%s%s", code, &out, &errs)
		}
		return out.String()
	}
	whole := types("node-1")

	said := cleanup("--kubeconfig", cluster.Kubeconfig(), "--dry-run")
	if now := types("node-1"); now != whole || !strings.Contains(said, "node-1: to remove ZombieProcesses PLEGStalled\n") {
		t.Errorf("%s\nleft %s", said, now)
	}
	said = cleanup("--kubeconfig", cluster.Kubeconfig(), "--node=node-1")
	if now := types("node-1"); now != "Ready KernelDeadlock TasksNearLimit" || types("node-2") != whole {
		t.Errorf("%s\nleft %s", said, now)
	}

	client, err := apiserver.Load(cluster.Kubeconfig(), "")
	if err != nil {
		t.Fatal(err)
	}
	read, err := client.Node(t.Context(), "node-2")
	if err != nil {
		t.Fatal(err)
	}
	said = cleanup("--kubeconfig", cluster.Kubeconfig())
	if now := types("node-2"); now != "Ready KernelDeadlock TasksNearLimit" || strings.Contains(said, "node-1:") {
		t.Errorf("%s\nleft %s", said, now)
	}
	var status *apiserver.StatusError
	if _, err := client.RemoveConditions(t.Context(), read, []string{"KernelDeadlock"}, false); !errors.As(err, &status) || status.Code != http.StatusConflict {
		t.Errorf("a node that has changed since: %v", err)
	}

	if help, err := exec.Command("kubectl", "patch", "--help").Output(); err != nil || !strings.Contains(string(help), "--subresource") {
		t.Skip("the printed command is not run: it needs kubectl 1.24 or newer on PATH")
	}
	shell := exec.Command("sh", "-ec", cleanup())
	shell.Env = append(shell.Environ(), "KUBECONFIG="+cluster.Kubeconfig())
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if now := types("node-2"); now != "Ready KernelDeadlock" { // kubectl does not ask who gave the reason
		t.Errorf("kubectl left %s", now)
	}
}
