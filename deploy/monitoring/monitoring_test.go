package monitoring

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

func readGroups(t *testing.T) []group {
	t.Helper()
	text, err := os.ReadFile("rules.yaml")
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
	if diff := cmp.Diff(readGroups(t), resource.Spec.Groups); resource.Kind != "PrometheusRule" || diff != "" {
		t.Errorf("%s %s", resource.Kind, diff)
	}
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	for _, g := range readGroups(t) {
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
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity %q", r.Alert, s)
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
		"alertname=SomebodyElses severity=critical service=db": "working-hours",
	} {
		args := append([]string{"config", "routes", "test", "--config.file=alertmanager.yaml", "--verify.receivers=" + receiver}, strings.Fields(labels)...)
		if out, err := exec.Command(amtool, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", labels, err, out)
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

// run lets promtool play a scenario for an alert.
func run(t *testing.T, promtool string, r rule, s scenario) {
	t.Helper()
	rules, err := filepath.Abs("rules.yaml")
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
			e := expected{map[string]string{"severity": r.Labels["severity"], "node": f.node}, map[string]string{}}
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
	file, err := yaml.Marshal(map[string]any{"rule_files": []string{rules}, "evaluation_interval": "1m", "tests": []any{test}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func find(t *testing.T, alert string) rule {
	t.Helper()
	for _, g := range readGroups(t) {
		for _, r := range g.Rules {
			if r.Alert == alert {
				return r
			}
		}
	}
	t.Fatalf("no alert %s", alert)
	return rule{}
}

// state is the series of a condition as kube-state-metrics writes it, of one of its pods.
func state(node, condition, status, exporter string) string {
	return fmt.Sprintf(`kube_node_status_condition{node=%q,condition=%q,status=%q,instance=%q,job="kube-state-metrics"}`, node, condition, status, exporter)
}

// TestConditionAlerts plays every condition: it fires on the node that has it, through failed scrapes and a restart of kube-state-metrics,
// and it resolves; it does not fire for Unknown, for a blink, or for a series without the label that tells the node.
func TestConditionAlerts(t *testing.T) {
	promtool := lab.Promtool(t)
	i := slices.IndexFunc(readGroups(t), func(g group) bool { return g.Name == "npd-plugins-conditions" })
	for _, r := range readGroups(t)[i].Rules {
		t.Run(r.Alert, func(t *testing.T) {
			t.Parallel()
			c := r.Alert
			run(t, promtool, r, scenario{map[string]string{
				state("sick", c, "true", "a"):                                      "0x4 1x40 0x60",
				state("sick", c, "false", "a"):                                     "1x4 0x40 1x60",
				state("scraped", c, "true", "a"):                                   "0 0 1 1 _ _ _ 1 _ 1 _ _ _ _ 1 _ _ 1x10 0x60",
				state("moved", c, "true", "a"):                                     "1x10 stale",
				state("moved", c, "true", "b"):                                     "_x12 1x40 0x60",
				state("unseen", c, "true", "a"):                                    "0x100",
				state("unseen", c, "unknown", "a"):                                 "1x100",
				state("blink", c, "true", "a"):                                     "0x10 1 1 0x80",
				state("well", c, "true", "a"):                                      "0x100",
				`kube_node_status_condition{condition="` + c + `",status="false"}`: "1x100",
			}, []moment{
				{"4m", nil},
				{"16m", []firing{{node: "sick", condition: c}, {node: "scraped", condition: c}, {node: "moved", condition: c}}},
				{"20m", []firing{{node: "sick", condition: c}, {node: "scraped", condition: c}, {node: "moved", condition: c}}},
				{"90m", nil},
			}})
		})
	}
}

func TestGeneralAlerts(t *testing.T) {
	promtool := lab.Promtool(t)
	const c = "TasksNearLimit"
	const d = "ZombieProcesses"
	detector := func(node string) map[string]string {
		pod := "node-problem-detector-" + node
		return map[string]string{
			fmt.Sprintf(`kube_pod_info{namespace="kube-system",pod=%q,node=%q,instance="a"}`, pod, node):             "1x200",
			fmt.Sprintf(`kube_pod_status_ready{namespace="kube-system",pod=%q,condition="true",instance="a"}`, pod):  "1x200",
			fmt.Sprintf(`kube_pod_status_ready{namespace="kube-system",pod=%q,condition="false",instance="a"}`, pod): "0x200",
			fmt.Sprintf(`kube_node_info{node=%q,instance="a"}`, node):                                                "1x200",
		}
	}
	with := func(all ...map[string]string) map[string]string {
		joined := map[string]string{}
		for _, m := range all {
			for series, values := range m {
				joined[series] = values
			}
		}
		return joined
	}
	counter := func(node, reason string) string {
		return fmt.Sprintf(`problem_counter{namespace="kube-system",pod="node-problem-detector-%s",reason=%q}`, node, reason)
	}
	evicted := map[string]string{}
	for i := range 20 {
		pod := fmt.Sprintf("job-%d", i)
		evicted[fmt.Sprintf(`kube_pod_status_reason{namespace="batch",pod=%q,reason="Evicted"}`, pod)] = "1x60 _x20 stale"
		evicted[fmt.Sprintf(`kube_pod_info{namespace="batch",pod=%q,node="full"}`, pod)] = "1x60 _x20 stale"
		evicted[fmt.Sprintf(`kube_pod_status_reason{namespace="web",pod=%q,reason="Evicted"}`, pod)] = "0x200"
		evicted[fmt.Sprintf(`kube_pod_info{namespace="web",pod=%q,node="well"}`, pod)] = "1x200"
	}
	tests := map[string][]scenario{
		"NodeCheckCannotLook": {{map[string]string{
			state("blind", c, "unknown", "a"):       "0x5 1x60 0x80",
			state("short", c, "unknown", "a"):       "1x10 0x200",
			state("sick", c, "unknown", "a"):        "0x200",
			state("sick", c, "true", "a"):           "1x200",
			state("other", "Ready", "unknown", "a"): "1x200",
		}, []moment{{"30m", nil}, {"40m", []firing{{node: "blind", condition: c}}}, {"120m", nil}}}},
		"NodeConditionMissing": {{with(map[string]string{
			state("whole", c, "true", "a"): "0x200", state("whole", d, "true", "a"): "1x200",
			state("half", c, "true", "a"): "0x200", state("half", d, "true", "a"): "_x100 0x100",
		}, detector("whole"), detector("half"), detector("none")),
			[]moment{{"30m", nil}, {"80m", []firing{{node: "half", value: "1"}, {node: "none", value: "0"}}}, {"150m", []firing{{node: "none", value: "0"}}}}},
		},
		"NodeProblemDetectorGone": {{with(detector("well"), map[string]string{
			`kube_node_info{node="bare"}`:    "1x200",
			`kube_node_info{node="deleted"}`: "1x5 stale",
			`kube_node_info{node="broken"}`:  "1x200",
			`kube_pod_info{namespace="npd",pod="my-node-problem-detector-1",node="broken"}`:            "1x200",
			`kube_pod_status_ready{namespace="npd",pod="my-node-problem-detector-1",condition="true"}`: "1x50 0x50 1x100",
			`kube_node_info{node="restarted"}`:                                                         "1x200",
			`kube_pod_info{namespace="npd",pod="my-node-problem-detector-2",node="restarted"}`:         "1x30 stale",
			`kube_pod_status_ready{namespace="npd",pod="my-node-problem-detector-2",condition="true"}`: "1x30 stale",
			`kube_pod_info{namespace="npd",pod="my-node-problem-detector-3",node="restarted"}`:         "_x33 1x170",
			`kube_pod_status_ready{namespace="npd",pod="my-node-problem-detector-3",condition="true"}`: "_x33 0 0 1x170",
		}), []moment{{"10m", nil}, {"45m", []firing{{node: "bare"}}}, {"90m", []firing{{node: "bare"}, {node: "broken"}}}, {"130m", []firing{{node: "bare"}}}}}},
		"NodeLogProblem": {{with(detector("sick"), detector("well"), detector("reset"), map[string]string{
			counter("sick", "KernelOOMNode"):          "0x20 0+1x5 5x100",
			counter("sick", "TaskHung"):               "0+1x100",        // a reason of somebody else
			counter("well", "KernelOOMNode"):          "0x10 1x50 0x50", // once, and a restart that begins anew
			counter("reset", "KernelOOMNode"):         "7x20 0x100",
			counter("stray", "KernelOOMNode"):         "0+1x100", // of a pod that nobody knows
			`problem_counter{reason="KernelOOMNode"}`: "0+1x100", // neither pod nor namespace
		}), []moment{{"15m", nil}, {"27m", []firing{{node: "sick", reason: "KernelOOMNode", value: "5"}}}, {"60m", nil}}}},
		"EvictedPodsPileUp": {{evicted, []moment{{"20m", nil}, {"40m", []firing{{node: "full", value: "20"}}}, {"100m", nil}}}},
	}
	i := slices.IndexFunc(readGroups(t), func(g group) bool { return g.Name == "npd-plugins-general" })
	for _, r := range readGroups(t)[i].Rules {
		if len(tests[r.Alert]) == 0 {
			t.Errorf("%s has no test", r.Alert)
		}
		for _, s := range tests[r.Alert] {
			t.Run(r.Alert, func(t *testing.T) { run(t, promtool, find(t, r.Alert), s) })
		}
	}
}
