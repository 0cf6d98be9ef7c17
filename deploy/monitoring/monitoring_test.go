package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"npd-plugins/test/lab"
)

func TestMain(m *testing.M) {
	lab.RunCulprit()
	os.Exit(m.Run())
}

type rule struct {
	Alert       string            `json:"alert"`
	Record      string            `json:"record"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

func readGroups(t *testing.T, path string) []group {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []group }
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups
}

// TestPrometheusRule has the operator's resource hold the very groups of the rule file.
func TestPrometheusRule(t *testing.T) {
	text, err := os.ReadFile("prometheusrule.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var resource struct {
		Kind string
		Spec struct{ Groups []group }
	}
	if err := yaml.Unmarshal(text, &resource); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readGroups(t, "rules.yaml"), resource.Spec.Groups); resource.Kind != "PrometheusRule" || diff != "" {
		t.Errorf("%s %s", resource.Kind, diff)
	}
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	for _, g := range readGroups(t, "rules.yaml") {
		for _, r := range g.Rules {
			if r.Record != "" {
				continue
			}
			summary, runbook := r.Annotations["summary"], r.Annotations["runbook_url"]
			if !strings.HasPrefix(summary, "Node {{ $labels.node }}: ") || !strings.Contains(summary, " Next: ") {
				t.Errorf("%s: the summary names no node or no next step: %s", r.Alert, summary)
			}
			page, _, _ := strings.Cut(strings.TrimPrefix(runbook, "npd-plugins/"), "#")
			if _, err := os.Stat(filepath.Join("../..", page)); err != nil {
				t.Errorf("%s: runbook %s: %v", r.Alert, runbook, err)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" && s != "info" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			if !strings.Contains(r.Expr, "by (cluster, node") {
				t.Errorf("%s: the label of the cluster is lost: %s", r.Alert, r.Expr)
			}
		}
	}
}

func TestCheckRules(t *testing.T) {
	out, err := exec.Command(lab.Promtool(t), "check", "rules", "rules.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAlertmanager has Alertmanager's own parser read the routes, and asks where alerts go.
func TestAlertmanager(t *testing.T) {
	amtool := lab.Amtool(t)
	if out, err := exec.Command(amtool, "check-config", "alertmanager.yaml").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for labels, receiver := range map[string]string{
		"alertname=TasksStuck severity=critical node=a":        "on-call",
		"alertname=ZombieProcesses severity=warning node=a":    "working-hours",
		"alertname=NodeLogProblem severity=info node=a":        "record",
		"alertname=SomebodyElses severity=critical service=db": "working-hours",
	} {
		args := append([]string{"config", "routes", "test", "--config.file=alertmanager.yaml", "--verify.receivers=" + receiver}, strings.Fields(labels)...)
		if out, err := exec.Command(amtool, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", labels, err, out)
		}
	}
}

// TestInhibition sends alerts to a real Alertmanager and asks which of them it holds back.
func TestInhibition(t *testing.T) {
	program := lab.Alertmanager(t)
	const templates = "/usr/share/prometheus/alertmanager"
	if _, err := os.Stat(templates); err != nil { // Debian's does not start without these files, which a package that is only unpacked lacks
		lab.NeedRoot(t)
		lab.OwnNamespaces(t, unix.CLONE_NEWNS)
		if err := unix.Mount("tmpfs", "/usr/share", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(templates, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"default.tmpl", "email.tmpl"} {
			if err := os.WriteFile(filepath.Join(templates, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	cmd := exec.Command(program, "--config.file=alertmanager.yaml", "--storage.path="+t.TempDir(), "--web.listen-address="+address, "--cluster.listen-address=")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("Alertmanager said:\n%s", said.String())
		}
	})

	type labels = map[string]string
	of := func(alert, node string) labels {
		return labels{"alertname": alert, "cluster": "a", "node": node, "severity": "critical"}
	}
	heldBack := map[string]bool{}
	var sent []map[string]labels
	for _, one := range []struct {
		labels labels
		held   bool
	}{
		{of("NodeUnderMaintenance", "drained"), false},
		{of("KubeNodeNotReady", "drained"), true}, // somebody else's
		{of("KubeNodeNotReady", "well"), false},
		{labels{"alertname": "KubeNodeNotReady", "cluster": "b", "node": "drained", "severity": "critical"}, false},
		{labels{"alertname": "DatabaseDown", "cluster": "a", "severity": "critical"}, false}, // of no node
		{of("ContainerRuntimeStalled", "sick"), false},
		{of("PLEGStalled", "sick"), true},
		{of("PLEGStalled", "other"), false},
		{of("NodeProblemDetectorGone", "gone"), false},
		{of("NodeCheckCannotLook", "gone"), true},
	} {
		sent = append(sent, map[string]labels{"labels": one.labels})
		heldBack[fmt.Sprint(one.labels)] = one.held
	}
	body, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 30*time.Second, "Alertmanager takes the alerts", func() bool {
		response, err := http.Post("http://"+address+"/api/v2/alerts", "application/json", bytes.NewReader(body))
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	type told struct {
		Labels labels
		Status struct{ InhibitedBy []string }
	}
	var known []told
	agree := func() bool {
		response, err := http.Get("http://" + address + "/api/v2/alerts")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		if json.NewDecoder(response.Body).Decode(&known) != nil || len(known) != len(sent) {
			return false
		}
		return !slices.ContainsFunc(known, func(a told) bool { return heldBack[fmt.Sprint(a.Labels)] != (len(a.Status.InhibitedBy) > 0) })
	}
	for deadline := time.Now().Add(90 * time.Second); !agree(); time.Sleep(time.Second) { // group_wait comes first
		if time.Now().After(deadline) {
			t.Fatalf("held back: %+v, want %v", known, heldBack)
		}
	}
}

// firing is an alert that is expected, of a node.
type firing struct{ node, condition, reason, value string }

// moment says what an alert does then.
type moment struct {
	at     string
	firing []firing
}

// scenario is a time line, a sample a minute, in the notation of promtool.
type scenario struct {
	series  map[string]string
	moments []moment
}

// ruleFile is a rule file and the label by which it tells clusters apart.
type ruleFile struct{ path, cluster string }

var shipped = ruleFile{"rules.yaml", "cluster"}

// run lets promtool play a scenario for an alert of a rule file.
func run(t *testing.T, promtool string, file ruleFile, r rule, s scenario) {
	t.Helper()
	rules, err := filepath.Abs(file.path)
	if err != nil {
		t.Fatal(err)
	}
	type expected struct {
		Labels      map[string]string `json:"exp_labels"`
		Annotations map[string]string `json:"exp_annotations"`
	}
	type check struct {
		Time   string     `json:"eval_time"`
		Alert  string     `json:"alertname"`
		Alerts []expected `json:"exp_alerts"`
	}
	type input struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	var test struct {
		Interval string  `json:"interval"`
		Input    []input `json:"input_series"`
		Checks   []check `json:"alert_rule_test"`
	}
	test.Interval = "1m"
	for series, values := range s.series {
		test.Input = append(test.Input, input{series, values})
	}
	for _, m := range s.moments {
		c := check{Time: m.at, Alert: r.Alert}
		for _, f := range m.firing {
			e := expected{map[string]string{"severity": r.Labels["severity"], file.cluster: "a", "node": f.node}, map[string]string{}}
			if f.condition != "" {
				e.Labels["condition"] = f.condition
			}
			if f.reason != "" {
				e.Labels["reason"] = f.reason
			}
			filled := strings.NewReplacer("{{ $labels.node }}", f.node, "{{ $labels.condition }}", f.condition, "{{ $labels.reason }}", f.reason,
				"{{ $value }}", f.value, `{{ printf "%.0f" $value }}`, f.value)
			for name, text := range r.Annotations {
				e.Annotations[name] = filled.Replace(text)
			}
			c.Alerts = append(c.Alerts, e)
		}
		test.Checks = append(test.Checks, c)
	}
	content, err := yaml.Marshal(map[string]any{"rule_files": []string{rules}, "evaluation_interval": "1m", "tests": []any{test}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// find returns the alert of a name, and of a severity where there are several.
func find(t *testing.T, path, alert string) rule {
	t.Helper()
	name, severity, _ := strings.Cut(alert, " ")
	for _, g := range readGroups(t, path) {
		for _, r := range g.Rules {
			if r.Alert == name && (severity == "" || r.Labels["severity"] == severity) {
				return r
			}
		}
	}
	t.Fatalf("no alert %s", alert)
	return rule{}
}

// state is the series of a condition as kube-state-metrics writes it, of one of its pods.
func state(node, condition, status, exporter string) string {
	return fmt.Sprintf(`kube_node_status_condition{cluster="a",node=%q,condition=%q,status=%q,instance=%q,job="kube-state-metrics"}`, node, condition, status, exporter)
}

// inB is the same series of another cluster.
func inB(series string) string { return strings.Replace(series, `cluster="a"`, `cluster="b"`, 1) }

// TestConditionAlerts plays every condition: it fires on the node that has it, when it has stayed as long as it must, through failed
// scrapes and a restart of kube-state-metrics, and it resolves; it does not fire for Unknown, for a blink, on a node that is drained, on
// the node of the same name in another cluster, or for a series without the label that tells the node.
func TestConditionAlerts(t *testing.T) {
	promtool := lab.Promtool(t)
	groups := readGroups(t, "rules.yaml")
	i := slices.IndexFunc(groups, func(g group) bool { return g.Name == "npd-plugins-conditions" })
	for _, r := range groups[i].Rules {
		t.Run(r.Alert, func(t *testing.T) {
			t.Parallel()
			c := r.Alert
			duration, err := time.ParseDuration(r.For)
			if err != nil {
				t.Fatal(err)
			}
			wait := int(duration.Minutes())
			if r.Labels["severity"] == "critical" && wait > 1 {
				t.Errorf("critical, and waits for %s", r.For)
			}
			minute := func(n int) string { return fmt.Sprintf("%dm", n) }
			series := map[string]string{
				state("sick", c, "true", "a"):                                      fmt.Sprintf("0x4 1x%d 0x60", 2*wait+40),
				state("sick", c, "false", "a"):                                     fmt.Sprintf("1x4 0x%d 1x60", 2*wait+40),
				state("scraped", c, "true", "a"):                                   fmt.Sprintf("0x4 1 1 _ _ _ 1 _ 1 _ _ _ _ 1 _ _ 1x%d 0x60", 2*wait+27),
				state("moved", c, "true", "a"):                                     "0x4 1x5 stale",
				state("moved", c, "true", "b"):                                     fmt.Sprintf("_x14 1x%d 0x60", 2*wait+30),
				state("unseen", c, "true", "a"):                                    "0x300",
				state("unseen", c, "unknown", "a"):                                 "1x300",
				state("drained", c, "true", "a"):                                   fmt.Sprintf("0x4 1x%d 0x60", 2*wait+40),
				state("drained", "DrainInProgress", "true", "a"):                   fmt.Sprintf("0x4 1x%d 0x300", wait+20),
				state("well", c, "true", "a"):                                      "0x300",
				inB(state("sick", c, "true", "a")):                                 "0x300",
				`kube_node_status_condition{condition="` + c + `",status="false"}`: "1x300",
			}
			if wait > 0 {
				series[state("blink", c, "true", "a")] = fmt.Sprintf("0x4 1x%d 0x300", wait-1)
			}
			three := []firing{{node: "sick", condition: c}, {node: "scraped", condition: c}, {node: "moved", condition: c}}
			run(t, promtool, shipped, r, scenario{series, []moment{
				{minute(4 + wait), nil},
				{minute(5 + wait), three},
				{minute(15 + wait), three},
				{minute(27 + 2*wait), append(three, firing{node: "drained", condition: c})},
				{minute(75 + 2*wait), nil},
			}})
		})
	}
}

// detector is a node-problem-detector that is ready, on a node.
func detector(node string) map[string]string {
	pod := "node-problem-detector-" + node
	return map[string]string{
		fmt.Sprintf(`kube_pod_info{cluster="a",namespace="kube-system",pod=%q,node=%q,instance="a"}`, pod, node):             "1x200",
		fmt.Sprintf(`kube_pod_status_ready{cluster="a",namespace="kube-system",pod=%q,condition="true",instance="a"}`, pod):  "1x200",
		fmt.Sprintf(`kube_pod_status_ready{cluster="a",namespace="kube-system",pod=%q,condition="false",instance="a"}`, pod): "0x200",
		fmt.Sprintf(`kube_node_info{cluster="a",node=%q,instance="a"}`, node):                                                "1x200",
	}
}

// with joins series.
func with(all ...map[string]string) map[string]string {
	joined := map[string]string{}
	for _, m := range all {
		maps.Copy(joined, m)
	}
	return joined
}

func TestGeneralAlerts(t *testing.T) {
	promtool := lab.Promtool(t)
	const c = "TasksNearLimit"
	const d = "ZombieProcesses"
	counter := func(node, reason string) string {
		return fmt.Sprintf(`problem_counter{cluster="a",namespace="kube-system",pod="node-problem-detector-%s",reason=%q}`, node, reason)
	}
	node := func(name string) string { return fmt.Sprintf(`kube_node_info{cluster="a",node=%q}`, name) }
	podInfo := func(pod, node string) string {
		return fmt.Sprintf(`kube_pod_info{cluster="a",namespace="npd",pod=%q,node=%q}`, pod, node)
	}
	podReady := func(pod string) string {
		return fmt.Sprintf(`kube_pod_status_ready{cluster="a",namespace="npd",pod=%q,condition="true"}`, pod)
	}
	evicted := map[string]string{}
	for i := range 20 {
		pod := fmt.Sprintf("job-%d", i)
		evicted[fmt.Sprintf(`kube_pod_status_reason{cluster="a",namespace="batch",pod=%q,reason="Evicted"}`, pod)] = "1x60 _x20 stale"
		evicted[fmt.Sprintf(`kube_pod_info{cluster="a",namespace="batch",pod=%q,node="full"}`, pod)] = "1x60 _x20 stale"
		evicted[fmt.Sprintf(`kube_pod_status_reason{cluster="a",namespace="web",pod=%q,reason="Evicted"}`, pod)] = "0x200"
		evicted[fmt.Sprintf(`kube_pod_info{cluster="a",namespace="web",pod=%q,node="well"}`, pod)] = "1x200"
	}
	logged := func(reason, three string) map[string]string {
		return with(detector("sick"), detector("well"), detector("reset"), detector("drained"), map[string]string{
			counter("sick", reason):                                                      three,
			counter("sick", "TaskHung"):                                                  "0+1x100",    // a reason of somebody else
			counter("reset", reason):                                                     "7x20 0x100", // a restart that begins anew
			counter("stray", reason):                                                     "0+1x100",    // of a pod that nobody knows
			counter("drained", reason):                                                   "0x20 0+1x5 5x100",
			state("drained", "MaintenanceInProgress", "true", "a"):                       "1x300",
			fmt.Sprintf(`problem_counter{reason=%q}`, reason):                            "0+1x100", // neither pod nor namespace nor node
			fmt.Sprintf(`problem_counter{cluster="a",node="service",reason=%q}`, reason): three,     // node-problem-detector as a service
			`kube_pod_info{cluster="b",namespace="kube-system",pod="node-problem-detector-sick",node="sick"}`: "1x200",
		})
	}
	once := "0x20 1x5 stale" // and then node-problem-detector begins anew
	tests := map[string][]scenario{
		"NodeCheckCannotLook": {{map[string]string{
			state("blind", c, "unknown", "a"):                   "0x5 1x60 0x80",
			state("short", c, "unknown", "a"):                   "1x10 0x200",
			state("sick", c, "unknown", "a"):                    "0x200",
			state("sick", c, "true", "a"):                       "1x200",
			state("other", "Ready", "unknown", "a"):             "1x200",
			state("drained", c, "unknown", "a"):                 "1x200",
			state("drained", "MaintenancePlanned", "true", "a"): "1x200",
			inB(state("blind", c, "unknown", "a")):              "0x200",
		}, []moment{{"30m", nil}, {"40m", []firing{{node: "blind", condition: c}}}, {"120m", nil}}}},
		"NodeConditionMissing": {{with(map[string]string{
			state("whole", c, "true", "a"): "0x200", state("whole", d, "true", "a"): "1x200",
			state("half", c, "true", "a"): "0x200", state("half", d, "true", "a"): "_x100 0x100",
			inB(state("small", c, "true", "a")): "0x200", // a cluster in which all have fewer
		}, detector("whole"), detector("half"), detector("none")),
			[]moment{{"30m", nil}, {"80m", []firing{{node: "half", value: "1"}, {node: "none", value: "0"}}}, {"150m", []firing{{node: "none", value: "0"}}}}},
		},
		"NodeProblemDetectorGone": {{with(detector("well"), map[string]string{
			node("service"): "1x200", state("service", c, "true", "a"): "0x200", // node-problem-detector is a service there, or has another name
			node("deleted"): "1x5 stale", podInfo("my-node-problem-detector-0", "deleted"): "1x5 stale",
			node("broken"): "1x200", podInfo("my-node-problem-detector-1", "broken"): "1x200", podReady("my-node-problem-detector-1"): "1x50 0x50 1x100",
			node("gone"): "1x200", podInfo("my-node-problem-detector-4", "gone"): "1x50 stale", podReady("my-node-problem-detector-4"): "1x50 stale",
			node("drained"): "1x200", podInfo("my-node-problem-detector-5", "drained"): "1x50 stale", podReady("my-node-problem-detector-5"): "1x50 stale",
			state("drained", "Drained", "true", "a"):           "1x200",
			node("restarted"):                                  "1x200",
			podInfo("my-node-problem-detector-2", "restarted"): "1x30 stale", podReady("my-node-problem-detector-2"): "1x30 stale",
			podInfo("my-node-problem-detector-3", "restarted"): "_x33 1x170", podReady("my-node-problem-detector-3"): "_x33 0 0 1x170",
			inB(node("broken")): "1x200", inB(podInfo("my-node-problem-detector-1", "broken")): "1x200", inB(podReady("my-node-problem-detector-1")): "1x200",
		}), []moment{{"45m", nil}, {"90m", []firing{{node: "broken"}, {node: "gone"}}}, {"130m", []firing{{node: "gone"}}}}}},
		"NodeUnderMaintenance": {{map[string]string{
			state("drained", "DrainInProgress", "true", "a"): "0x4 1x20 0x20", state("well", "DrainInProgress", "true", "a"): "0x200", state("sick", c, "true", "a"): "1x200",
		}, []moment{{"4m", nil}, {"5m", []firing{{node: "drained", condition: "DrainInProgress"}}}, {"40m", nil}}}},
		// A file system that turned read-only is told of once, and at once; node-problem-detector that starts anew and reads the line once more
		// neither tells of it again nor ends it.
		"NodeLogProblem critical": {{with(logged("KernelFilesystemReadonly", once), detector("anew"), map[string]string{
			`problem_counter{cluster="a",namespace="kube-system",pod="node-problem-detector-anew",reason="KernelFilesystemReadonly"}`: "_x28 1x100",
		}), []moment{{"20m", nil}, {"21m", []firing{{node: "sick", reason: "KernelFilesystemReadonly", value: "1"}, {node: "service", reason: "KernelFilesystemReadonly", value: "1"}}}, {"60m", nil}}}},
		"NodeLogProblem warning": {{logged("KernelOOMNode", "0x20 0+1x5 5x100"), []moment{{"15m", nil},
			{"27m", []firing{{node: "sick", reason: "KernelOOMNode", value: "5"}, {node: "service", reason: "KernelOOMNode", value: "5"}}}, {"60m", nil}}},
			{logged("KernelOOMNode", once), []moment{{"21m", nil}, {"27m", nil}}}},
		"NodeLogProblem info": {{logged("KernelOOMContainer", "0x20 0+1x5 5x100"), []moment{{"15m", nil},
			{"27m", []firing{{node: "sick", reason: "KernelOOMContainer", value: "5"}, {node: "service", reason: "KernelOOMContainer", value: "5"}}}, {"60m", nil}}}},
		"EvictedPodsPileUp": {{evicted, []moment{{"20m", nil}, {"40m", []firing{{node: "full", value: "20"}}}, {"100m", nil}}}},
	}
	groups := readGroups(t, "rules.yaml")
	i := slices.IndexFunc(groups, func(g group) bool { return g.Name == "npd-plugins-general" })
	for _, r := range groups[i].Rules {
		name := r.Alert
		if len(tests[name]) == 0 {
			name += " " + r.Labels["severity"]
		}
		if len(tests[name]) == 0 {
			t.Errorf("%s has no test", name)
		}
		for _, s := range tests[name] {
			t.Run(name, func(t *testing.T) { run(t, promtool, shipped, find(t, "rules.yaml", name), s) })
		}
	}
}

// TestDetectorAsService plays the rules that the generator makes for node-problem-detector as a service of the host, which has no pod.
func TestDetectorAsService(t *testing.T) {
	promtool := lab.Promtool(t)
	dir := t.TempDir()
	generate := exec.Command("go", "run", "../generate", "--root=../..", "--out="+dir, "--detector-job=npd", "--cluster-label=k8s_cluster", "--runbooks=https://git.example.com/npd-plugins/blob/main")
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rules := filepath.Join(dir, "monitoring/rules.yaml")
	gone := find(t, rules, "NodeProblemDetectorGone")
	if url := gone.Annotations["runbook_url"]; url != "https://git.example.com/npd-plugins/blob/main/deploy/monitoring/README.md#nodeproblemdetectorgone" {
		t.Errorf("runbook %s", url)
	}
	for _, g := range readGroups(t, rules) {
		for _, r := range g.Rules {
			if !strings.Contains(r.Expr, "by (k8s_cluster, ") || strings.Contains(r.Expr, "(cluster") {
				t.Errorf("%s%s: %s", r.Alert, r.Record, r.Expr)
			}
		}
	}
	node := func(name string) string { return fmt.Sprintf(`kube_node_info{k8s_cluster="a",node=%q}`, name) }
	up := func(name string) string { return fmt.Sprintf(`up{k8s_cluster="a",job="npd",node=%q}`, name) }
	run(t, promtool, ruleFile{rules, "k8s_cluster"}, gone, scenario{map[string]string{
		node("well"): "1x200", up("well"): "1x200",
		node("never"):   "1x200",
		node("stopped"): "1x200", up("stopped"): "1x50 0x150",
		node("flaky"): "1x200", up("flaky"): "1 0 0 _ 0 0 1 0 0 0 1x190",
		node("deleted"): "1x30 stale", up("deleted"): "1x30 stale",
	}, []moment{{"50m", nil}, {"90m", []firing{{node: "stopped"}}}}})
}
