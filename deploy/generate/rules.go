package main

import (
	"fmt"
	"strings"
)

const made = "# Made by go generate ./deploy/... from config/ and deploy/conditions.yaml.\n"

// alert is an alerting rule of Prometheus.
type alert struct {
	name, expr, wait, severity, summary, description, runbook string
}

// A scrape that fails must not end an alert, so the last value of the last ten minutes counts; and an operator shall not be told of what
// heals by itself within five.
const (
	recent = "10m"
	wait   = "5m"
)

// status is whether the condition has the status on a node: a series for each such node, of the value 1.
func status(condition, is string) string {
	return fmt.Sprintf(`max by (node, condition) (last_over_time(kube_node_status_condition{condition=~"%s",status="%s"}[%s])) == 1`, condition, is, recent)
}

func types(conditions []condition) string {
	var names []string
	for _, c := range conditions {
		names = append(names, c.Type)
	}
	return strings.Join(names, "|")
}

// conditionAlerts has an alert for each condition.
func conditionAlerts(conditions []condition) (alerts []alert) {
	for _, c := range conditions {
		alerts = append(alerts, alert{
			name: c.Type, expr: status(c.Type, "true"), wait: wait, severity: c.Advice.Severity,
			summary:     fmt.Sprintf("Node {{ $labels.node }}: %s. Next: %s.", c.Type, c.Advice.Next),
			description: "kubectl describe node {{ $labels.node }} shows under Conditions what was measured, and what causes it.",
			runbook:     "npd-plugins/plugins/" + c.Check + "/README.md",
		})
	}
	return alerts
}

// podNode tells on which node each pod is.
const podNode = `* on (namespace, pod) group_left (node) max by (namespace, pod, node) (last_over_time(kube_pod_info{node!=""}[` + recent + `]))`

// detectorPod is what the pods of node-problem-detector are called, by its own DaemonSet and by the Helm chart.
const detectorPod = `(.+-)?node-problem-detector-.+`

// generalAlerts are about the checks and the nodes, whichever the condition.
func generalAlerts(conditions []condition) []alert {
	const runbook = "npd-plugins/deploy/monitoring/README.md"
	return []alert{{
		name: "NodeCheckCannotLook", expr: status(types(conditions), "unknown"), wait: "30m", severity: "warning",
		summary:     "Node {{ $labels.node }}: the check of {{ $labels.condition }} cannot look. Next: read its message, which names the mount or right that it lacks.",
		description: "kubectl describe node {{ $labels.node }} shows the message. Until it is mended nobody is told of this condition on this node.",
		runbook:     runbook + "#nodecheckcannotlook",
	}, {
		name: "NodeConditionMissing", wait: "1h", severity: "warning",
		expr: `count by (node) (last_over_time(kube_node_status_condition{condition=~"` + types(conditions) + `",status="true"}[` + recent + `]))` +
			"\n  < on () group_left ()\n" +
			`max (count by (node) (last_over_time(kube_node_status_condition{condition=~"` + types(conditions) + `",status="true"}[` + recent + `])))` +
			"\nor on (node)\n" +
			`0 * (max by (node) (last_over_time(kube_node_info[` + recent + `])) unless on (node) last_over_time(kube_node_status_condition{condition=~"` + types(conditions) + `"}[` + recent + `]))`,
		summary:     "Node {{ $labels.node }}: has {{ $value }} of our conditions, other nodes have more. Next: look whether node-problem-detector runs there with the same configuration.",
		description: "A check that was never started has no condition, and so never raises an alert.",
		runbook:     runbook + "#nodeconditionmissing",
	}, {
		name: "NodeProblemDetectorGone", wait: "15m", severity: "critical",
		expr: `max by (node) (last_over_time(kube_node_info[` + recent + `]))` +
			"\nunless on (node)\n" +
			`max by (node) ((max by (namespace, pod) (last_over_time(kube_pod_status_ready{pod=~"` + detectorPod + `",condition="true"}[` + recent + `])) == 1) ` + podNode + `)`,
		summary:     "Node {{ $labels.node }}: no node-problem-detector is ready there. Next: look at its DaemonSet and at its pod's log.",
		description: "Its conditions stay on the node as they were, and none of them is looked at any more.",
		runbook:     runbook + "#nodeproblemdetectorgone",
	}, {
		name: "NodeLogProblem", wait: "0m", severity: "warning",
		expr: `sum by (node, reason) (sum by (namespace, pod, reason) (increase(problem_counter{reason=~"(Kubelet|Containerd|Docker|Crio|Kernel|Systemd)[A-Z].+"}[15m])) ` + podNode + `) >= 3`,
		summary: "Node {{ $labels.node }}: {{ $labels.reason }} was logged {{ printf \"%.0f\" $value }} times in 15 minutes. Next: read the events of the node, " +
			"kubectl events --for node/{{ $labels.node }}.",
		description: "journal-rules/README.md has a section for each reason. Needs node-problem-detector's own metrics to be scraped with the labels namespace and pod.",
		runbook:     "npd-plugins/journal-rules/README.md",
	}, {
		name: "EvictedPodsPileUp", wait: "30m", severity: "warning",
		expr:        `count by (node) ((max by (namespace, pod) (last_over_time(kube_pod_status_reason{reason="Evicted"}[` + recent + `])) == 1) ` + podNode + `) >= 20`,
		summary:     "Node {{ $labels.node }}: {{ $value }} evicted pods are left. Next: find what keeps being evicted, then delete them: kubectl delete pods -A --field-selector=status.phase=Failed.",
		description: "Each keeps an object, and until kubelet has removed it directories and dead sandboxes. See EvictionImminent for what runs short.",
		runbook:     runbook + "#evictedpodspileup",
	}}
}

// recordings are about the fleet: the share of the nodes that have a condition, from 0 to 1.
func recordings(conditions []condition) string {
	var b strings.Builder
	for _, is := range []string{"true", "unknown"} {
		fmt.Fprintf(&b, `      - record: condition:kube_node_status_condition_%s:ratio
        expr: |-
          sum by (condition) (max by (node, condition) (last_over_time(kube_node_status_condition{condition=~"%s",status="%s"}[%s])))
            / on () group_left ()
          count (max by (node) (last_over_time(kube_node_info[%s])))
`, is, types(conditions), is, recent, recent)
	}
	return b.String()
}

func (a alert) yaml() string {
	indented := strings.ReplaceAll(a.expr, "\n", "\n          ")
	return fmt.Sprintf(`      - alert: %s
        expr: |-
          %s
        for: %s
        labels:
          severity: %s
        annotations:
          summary: %q
          description: %q
          runbook_url: %s
`, a.name, indented, a.wait, a.severity, a.summary, a.description, a.runbook)
}

// groups are the rule groups, indented as both kinds of file need it.
func groups(conditions []condition) string {
	var b strings.Builder
	b.WriteString("  groups:\n  - name: npd-plugins-conditions\n    rules:\n")
	for _, a := range conditionAlerts(conditions) {
		b.WriteString(a.yaml())
	}
	b.WriteString("  - name: npd-plugins-general\n    rules:\n")
	for _, a := range generalAlerts(conditions) {
		b.WriteString(a.yaml())
	}
	b.WriteString("  - name: npd-plugins-fleet\n    rules:\n" + recordings(conditions))
	return b.String()
}

// rules is a rule file of Prometheus.
func rules(conditions []condition) (string, error) {
	var b strings.Builder
	b.WriteString(made)
	for line := range strings.Lines(groups(conditions)) {
		b.WriteString(strings.TrimPrefix(line, "  "))
	}
	return b.String(), nil
}

// prometheusRule is the same for the Prometheus operator.
func prometheusRule(conditions []condition) (string, error) {
	return made + `apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: npd-plugins
  labels:
    app.kubernetes.io/name: npd-plugins
spec:
` + groups(conditions), nil
}
