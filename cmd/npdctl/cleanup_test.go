package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"npd-plugins/config"
	"npd-plugins/internal/npd"
)

// cluster is a kube-apiserver with nodes, which does of strategic merge patches what is needed to delete conditions.
type cluster struct {
	*testing.T
	kubeconfig string
	nodes      map[string]*node
	conflicts  int // before a patch is taken
	patches    int
	keeps      bool // it says yes and does nothing
}

type node struct {
	version    int
	conditions []map[string]string
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{T: t, nodes: map[string]*node{}, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	server := httptest.NewTLSServer(c)
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(filepath.Dir(c.kubeconfig), "ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	c.write(server.URL, "token: secret")
	for _, name := range []string{"node-1", "node-2", "node-3"} {
		c.nodes[name] = &node{version: 1, conditions: []map[string]string{{"type": "Ready", "status": "True", "reason": "KubeletReady"}}}
	}
	return c
}

func (c *cluster) write(server, user string) {
	text := fmt.Sprintf(`{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
		"clusters": [{"name": "a", "cluster": {"server": "%s", "certificate-authority": "ca.crt"}}], "users": [{"name": "a", "user": {%s}}]}`, server, user)
	if err := os.WriteFile(c.kubeconfig, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) set(name, kind, reason string) {
	c.nodes[name].conditions = append(c.nodes[name].conditions, map[string]string{"type": kind, "status": "True", "reason": reason})
}

func (c *cluster) types(name string) string {
	var types []string
	for _, one := range c.nodes[name].conditions {
		types = append(types, one["type"])
	}
	return strings.Join(types, " ")
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(code int, message string) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind": "Status", "message": %q}`, message)
	}
	name, sub, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v1/nodes"), "/"), "/")
	switch {
	case r.Header.Get("Authorization") != "Bearer secret":
		refuse(401, "Unauthorized")
	case r.Method == "GET" && name == "":
		var items []any
		for name := range c.nodes {
			items = append(items, c.object(name, c.nodes[name].conditions))
		}
		json.NewEncoder(w).Encode(map[string]any{"items": items})
	case c.nodes[name] == nil:
		refuse(404, fmt.Sprintf("nodes %q not found", name))
	case r.Method == "GET":
		json.NewEncoder(w).Encode(c.object(name, c.nodes[name].conditions))
	case r.Method == "PATCH" && sub == "status" && r.Header.Get("Content-Type") == "application/strategic-merge-patch+json":
		c.patch(w, r, name, refuse)
	default:
		refuse(405, "not here")
	}
}

func (c *cluster) object(name string, conditions any) map[string]any {
	return map[string]any{"metadata": map[string]string{"name": name, "resourceVersion": strconv.Itoa(c.nodes[name].version)}, "status": map[string]any{"conditions": conditions}}
}

func (c *cluster) patch(w http.ResponseWriter, r *http.Request, name string, refuse func(int, string)) {
	var patch struct {
		Metadata struct{ ResourceVersion string }
		Status   struct{ Conditions []map[string]string }
	}
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil {
		refuse(400, err.Error())
		return
	}
	n := c.nodes[name]
	if c.conflicts > 0 { // kubelet was faster
		c.conflicts--
		n.version++
	}
	if patch.Metadata.ResourceVersion != strconv.Itoa(n.version) {
		refuse(409, "the object has been modified")
		return
	}
	left := slices.DeleteFunc(slices.Clone(n.conditions), func(one map[string]string) bool {
		return !c.keeps && slices.ContainsFunc(patch.Status.Conditions, func(p map[string]string) bool { return p["$patch"] == "delete" && p["type"] == one["type"] })
	})
	if r.URL.Query().Get("dryRun") != "All" {
		n.conditions, n.version = left, n.version+1
		c.patches++
	}
	json.NewEncoder(w).Encode(c.object(name, left))
}

func (c *cluster) cleanup(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = npdctl(append([]string{"cleanup", "--kubeconfig", c.kubeconfig}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// cleans is cleanup that must say so and nothing else.
func (c *cluster) cleans(code int, stdout, stderr string, args ...string) {
	c.Helper()
	gotCode, out, errs := c.cleanup(args...)
	if gotCode != code || out != stdout || errs != stderr {
		c.Errorf("%q: exit %d\n%s\n%s\nwant %d\n%s\n%s", args, gotCode, out, errs, code, stdout, stderr)
	}
}

func TestCleanup(t *testing.T) {
	c := newCluster(t)
	c.set("node-1", "ZombieProcesses", "ZombiesNotReaped")
	c.set("node-1", "KernelDeadlock", "DockerHung")
	c.set("node-1", "PLEGStalled", "PLEGHealthy")
	c.set("node-2", "ZombieProcesses", "TooManyZombies") // somebody else's
	was := c.types("node-1")

	const stays = "npdctl cleanup: node-2: ZombieProcesses stays: its reason TooManyZombies is not one that these configurations give\n"
	c.cleans(0, "node-1: to remove ZombieProcesses PLEGStalled\n3 nodes, 1 with conditions to remove, 0 failed\n", stays, "--dry-run")
	if now := c.types("node-1"); now != was {
		t.Errorf("a dry run left %s", now)
	}
	c.cleans(0, "3 nodes, 0 with conditions removed, 0 failed\n", stays, "--node=node-2,node-3", "--node=node-3")
	c.cleans(2, "2 nodes, 0 with conditions removed, 1 failed\n", "npdctl cleanup: none: kube-apiserver says 404: nodes \"none\" not found\n", "--node=none,node-3")
	c.cleans(0, "node-1: removed ZombieProcesses PLEGStalled\n3 nodes, 1 with conditions removed, 0 failed\n", stays)
	if now := c.types("node-1") + ", " + c.types("node-2"); now != "Ready KernelDeadlock, Ready ZombieProcesses" {
		t.Errorf("left %s", now)
	}
	if c.patches != 1 {
		t.Errorf("%d patches", c.patches)
	}
}

// TestCleanupOfSome takes the conditions of the configurations given, and no others.
func TestCleanupOfSome(t *testing.T) {
	c := newCluster(t)
	c.set("node-1", "ZombieProcesses", "ZombiesNotReaped")
	c.set("node-1", "PLEGStalled", "PLEGHealthy")
	c.set("node-1", "DiskLost", "DiskGone")
	log := filepath.Join(t.TempDir(), "disk.json")
	text := `{"plugin": "kmsg", "logPath": "/dev/kmsg", "source": "disk", "conditions": [{"type": "DiskLost", "reason": "DiskThere", "message": "m"}],
		"rules": [{"type": "permanent", "condition": "DiskLost", "reason": "DiskGone", "pattern": "disk gone"}]}`
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.cleans(0, "node-1: removed ZombieProcesses DiskLost\n3 nodes, 1 with conditions removed, 0 failed\n", "", "../../config/zombies.json", log)
	if now := c.types("node-1"); now != "Ready PLEGStalled" {
		t.Errorf("left %s", now)
	}
}

func TestCleanupOfABusyNode(t *testing.T) {
	c := newCluster(t)
	c.set("node-1", "PLEGStalled", "PLEGHealthy")
	c.conflicts = conflicts
	c.cleans(2, "1 nodes, 0 with conditions removed, 1 failed\n", "npdctl cleanup: node-1: kube-apiserver says 409: the object has been modified\n", "--node=node-1")
	c.conflicts = conflicts - 1
	c.cleans(0, "node-1: removed PLEGStalled\n1 nodes, 1 with conditions removed, 0 failed\n", "", "--node=node-1")

	c.set("node-1", "PLEGStalled", "PLEGHealthy")
	c.keeps = true
	c.cleans(2, "1 nodes, 0 with conditions removed, 1 failed\n", "npdctl cleanup: node-1: kube-apiserver took the patch, and the conditions are still there\n", "--node=node-1")
}

// TestCleanupRefuses: whatever the configurations say, the conditions of others stay.
func TestCleanupRefuses(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	zombies, err := config.Files.ReadFile("zombies.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range []string{"Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "KernelDeadlock", "ReadonlyFilesystem",
		"FrequentKubeletRestart", "FrequentUnregisterNetDevice", "CorruptDockerOverlay2", "KubeletUnhealthy", "ContainerRuntimeUnhealthy", "NTPProblem", "DiskReady"} {
		file := filepath.Join(dir, condition+".json")
		if err := os.WriteFile(file, bytes.ReplaceAll(zombies, []byte("ZombieProcesses"), []byte(condition)), 0o600); err != nil {
			t.Fatal(err)
		}
		c.cleans(2, "", "npdctl cleanup: "+file+": "+condition+" is a condition of others, it is not removed\n", file, "../../config/pleg.json")
	}
	odd := filepath.Join(dir, "odd.json")
	if err := os.WriteFile(odd, bytes.ReplaceAll(zombies, []byte("ZombieProcesses"), []byte("a'; rm b; '")), 0o600); err != nil {
		t.Fatal(err)
	}
	c.cleans(2, "", "npdctl cleanup: "+odd+": \"a'; rm b; '\" cannot be a condition\n", odd)
	c.cleans(2, "", "npdctl cleanup: these configurations have no conditions\n", "../../journal-rules/kubelet.json")
	c.cleans(2, "", "npdctl cleanup: --node a;b: not the name of a node\n", "--node=a;b")
	c.cleans(2, "", "npdctl cleanup: stat "+dir+"/none: no such file or directory\n", dir+"/none")
	c.cleans(2, "", "npdctl cleanup: "+c.kubeconfig+": no context \"none\"\n", "--context=none")

	c.write("https://127.0.0.1:1", `"exec": {"command": "login"}`)
	code, out, errs := c.cleanup("--node=node-1", "../../config/zombies.json")
	if code != 2 || !strings.Contains(errs, "logs in with an exec plugin: only client certificates and tokens are supported; these commands do it:") ||
		out != `kubectl patch node node-1 --subresource=status -p '{"status":{"conditions":[{"$patch":"delete","type":"ZombieProcesses"}]}}'`+"\n" {
		t.Errorf("exit %d\n%s\n%s", code, out, errs)
	}
	c.write("https://127.0.0.1:1", `"token": "secret"`)
	if code, _, errs := c.cleanup(); code != 2 || !strings.Contains(errs, "list the nodes: ") || strings.Contains(errs, "secret") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestCleanupPrints(t *testing.T) {
	var out, errs bytes.Buffer
	if code := npdctl([]string{"cleanup", "--dry-run"}, &out, &errs); code != 0 || errs.Len() > 0 {
		t.Errorf("exit %d, %s", code, &errs)
	}
	if want := `for node in $(kubectl get nodes -o name); do kubectl patch "$node" --subresource=status --dry-run=server -p '{"status":{"conditions":[{"$patch":"delete","type":"`; !strings.HasPrefix(out.String(), want) {
		t.Errorf("printed %s", &out)
	}
	files, err := filepath.Glob("../../config/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		config, err := npd.LoadCustom(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, condition := range config.Conditions {
			if !strings.Contains(out.String(), `{"$patch":"delete","type":"`+condition.Type+`"}`) {
				t.Errorf("%s is missing", condition.Type)
			}
		}
	}
	out.Reset()
	if code := npdctl([]string{"cleanup", "--context=a"}, &out, &errs); code != 2 || out.Len() > 0 {
		t.Errorf("--context without --kubeconfig: exit %d, %s", code, &out)
	}
}
