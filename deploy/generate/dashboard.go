package main

import (
	"bytes"
	"encoding/json"
	"strings"
)

type object map[string]any

// datasource is chosen by the reader.
var datasource = object{"type": "prometheus", "uid": "${datasource}"}

// state is 0 for a condition that is False, 1 for True, 2 for Unknown.
const state = `max by (node, condition) (kube_node_status_condition{node=~"$node",condition=~"$condition",status="true"})` +
	` + 2 * max by (node, condition) (kube_node_status_condition{node=~"$node",condition=~"$condition",status="unknown"})`

// states are the words and colours of that.
var states = object{"type": "value", "options": object{
	"0": object{"text": "well", "color": "green", "index": 0},
	"1": object{"text": "problem", "color": "red", "index": 1},
	"2": object{"text": "cannot look", "color": "yellow", "index": 2},
}}

// panel is at a place of a grid that is 24 wide.
type panel struct {
	title, about, kind, unit string
	x, y, width, height      int
	queries                  []query
	options                  object
	defaults                 object
}

type query struct{ expr, legend string }

func (s settings) panels() []panel {
	pod := `{pod=~"` + s.pods + `",container!=""}`
	timeline := object{"showValue": "never", "mergeValues": true, "rowHeight": 0.9}
	stateful := object{"mappings": []any{states}, "color": object{"mode": "thresholds"}}
	one := func(expr string) []query { return []query{{expr, ""}} }
	return []panel{
		{"Nodes with a problem", "", "stat", "none", 0, 0, 6, 4,
			one(`count(max by (node) (kube_node_status_condition{node=~"$node",condition=~"$condition",status="true"}) == 1) or vector(0)`), nil, nil},
		{"Nodes on which a check cannot look", "", "stat", "none", 6, 0, 6, 4,
			one(`count(max by (node) (kube_node_status_condition{node=~"$node",condition=~"$condition",status="unknown"}) == 1) or vector(0)`), nil, nil},
		{"Nodes without node-problem-detector", "", "stat", "none", 12, 0, 6, 4,
			one("count(" + s.detectorGone() + ") or vector(0)"), nil, nil},
		{"Nodes", "", "stat", "none", 18, 0, 6, 4, one(`count(max by (node) (kube_node_info))`), nil, nil},
		{"Nodes and their conditions", "Only what has been a problem, or could not be looked at, in this time.", "state-timeline", "none", 0, 4, 24, 12,
			[]query{{"(" + state + `) and on (node, condition) (max_over_time((` + state + `)[$__range:1m]) > 0)`, "{{node}} {{condition}}"}}, timeline, stateful},
		{"Share of the nodes that have a condition", "A tenth of the fleet at once is no longer the nodes.", "timeseries", "percentunit", 0, 16, 12, 8,
			[]query{{`condition:kube_node_status_condition_true:ratio{condition=~"$condition"} > 0`, "{{condition}}"}}, nil, nil},
		{"Log problems by reason", "Events of the journal rules, all nodes.", "timeseries", "none", 12, 16, 12, 8,
			[]query{{`sum by (reason) (increase(problem_counter[$__rate_interval])) > 0`, "{{reason}}"}}, nil, nil},
		{"One node: conditions", "Choose a node above.", "state-timeline", "none", 0, 24, 12, 14, []query{{state, "{{node}} {{condition}}"}}, timeline, stateful},
		{"One node: log problems by reason", "", "timeseries", "none", 12, 24, 12, 14,
			[]query{{`sum by (node, reason) (increase(problem_counter[$__rate_interval]) * on (namespace, pod) group_left (node) max by (namespace, pod, node) (kube_pod_info{node=~"$node"})) > 0`, "{{node}} {{reason}}"}}, nil, nil},
		{"Cost: CPU of node-problem-detector with all checks", "In CPUs, the mean and the worst pod.", "timeseries", "none", 0, 38, 12, 8, []query{
			{`avg(sum by (namespace, pod) (rate(container_cpu_usage_seconds_total` + pod + `[$__rate_interval])))`, "mean"},
			{`max(sum by (namespace, pod) (rate(container_cpu_usage_seconds_total` + pod + `[$__rate_interval])))`, "worst"},
			{`avg(sum by (namespace, pod) (rate(container_cpu_cfs_throttled_seconds_total` + pod + `[$__rate_interval])))`, "throttled, mean"}}, nil, nil},
		{"Cost: memory of node-problem-detector with all checks", "The mean and the worst pod.", "timeseries", "bytes", 12, 38, 12, 8, []query{
			{`avg(sum by (namespace, pod) (container_memory_working_set_bytes` + pod + `))`, "mean"},
			{`max(sum by (namespace, pod) (container_memory_working_set_bytes` + pod + `))`, "worst"}}, nil, nil},
	}
}

// dashboard is a dashboard of Grafana 10 and later.
func (s settings) dashboard(conditions []condition) (string, error) {
	variable := func(name, label, kind string, more object) object {
		v := object{"name": name, "label": label, "type": kind}
		for key, value := range more {
			v[key] = value
		}
		return v
	}
	all := object{"text": "All", "value": "$__all"}
	names := strings.Split(types(conditions), "|")
	var made []object
	for i, p := range s.panels() {
		var targets []object
		for j, q := range p.queries {
			targets = append(targets, object{"refId": string(rune('A' + j)), "datasource": datasource, "expr": q.expr, "legendFormat": q.legend})
		}
		defaults := object{"unit": p.unit}
		for key, value := range p.defaults {
			defaults[key] = value
		}
		options := p.options
		if options == nil {
			options = object{}
		}
		made = append(made, object{
			"id": i + 1, "title": p.title, "description": p.about, "type": p.kind, "datasource": datasource, "targets": targets, "options": options,
			"gridPos": object{"x": p.x, "y": p.y, "w": p.width, "h": p.height}, "fieldConfig": object{"defaults": defaults, "overrides": []any{}},
		})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(object{
		"title": "Node problems (npd-plugins)", "uid": "npd-plugins", "schemaVersion": 39, "editable": true, "refresh": "1m", "tags": []string{"kubernetes", "node"},
		"time": object{"from": "now-6h", "to": "now"}, "panels": made,
		"templating": object{"list": []object{
			variable("datasource", "Prometheus", "datasource", object{"query": "prometheus"}),
			variable("node", "Node", "query", object{"datasource": datasource, "query": "label_values(kube_node_info, node)", "refresh": 2, "multi": true, "includeAll": true, "current": all}),
			variable("condition", "Condition", "custom", object{"query": strings.Join(names, ","), "multi": true, "includeAll": true, "current": all}),
		}},
	})
	return b.String(), err
}
