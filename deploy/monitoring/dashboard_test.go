package monitoring

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"npd-plugins/test/lab"
)

// metrics are those that the dashboard and the alerts may ask for, and who exports them.
var metrics = map[string]string{
	"kube_node_info":                            "kube-state-metrics",
	"kube_node_status_condition":                "kube-state-metrics",
	"kube_pod_info":                             "kube-state-metrics",
	"kube_pod_status_ready":                     "kube-state-metrics",
	"kube_pod_status_reason":                    "kube-state-metrics",
	"problem_counter":                           "node-problem-detector",
	"container_cpu_usage_seconds_total":         "kubelet",
	"container_cpu_cfs_throttled_seconds_total": "kubelet",
	"container_memory_working_set_bytes":        "kubelet",
}

type dashboard struct {
	Panels []struct {
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboardQueries has Prometheus' own parser read every query, as the expression of a recording rule.
func TestDashboardQueries(t *testing.T) {
	promtool := lab.Promtool(t)
	fill := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$node", ".*", "$condition", ".*")
	var rules []any
	for _, p := range readDashboard(t).Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%s asks for nothing", p.Title)
		}
		for _, q := range p.Targets {
			expr := fill.Replace(q.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("a variable that is not known: %s", expr)
			}
			rules = append(rules, map[string]any{"record": "panel:query", "expr": expr})
		}
	}
	file, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", "--lint=none", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

var (
	quoted   = regexp.MustCompile(`"[^"]*"`)
	variable = regexp.MustCompile(`\$\w+`)
	name     = regexp.MustCompile(`\b[a-z]+(?:[_:][a-z]+)+\b`)
)

// TestMetricsExist looks up every name with an underscore in the queries.
func TestMetricsExist(t *testing.T) {
	known := map[string]bool{"max_over_time": true, "last_over_time": true, "group_left": true}
	var queries []string
	for _, g := range readGroups(t, "rules.yaml") {
		for _, r := range g.Rules {
			known[r.Record] = true
			queries = append(queries, r.Expr)
		}
	}
	for _, p := range readDashboard(t).Panels {
		for _, q := range p.Targets {
			queries = append(queries, q.Expr)
		}
	}
	asked := map[string]bool{}
	for _, q := range queries {
		for _, n := range name.FindAllString(variable.ReplaceAllString(quoted.ReplaceAllString(q, ""), ""), -1) {
			asked[n] = true
			if metrics[n] == "" && !known[n] {
				t.Errorf("%s: who exports it? in %s", n, q)
			}
		}
	}
	for n := range metrics {
		if !asked[n] {
			t.Errorf("%s is asked for nowhere", n)
		}
	}
}

func TestDashboardGrid(t *testing.T) {
	taken := map[[2]int]string{}
	for _, p := range readDashboard(t).Panels {
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %q, or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
