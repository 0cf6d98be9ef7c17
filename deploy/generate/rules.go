package main

import (
	"fmt"
	"strings"
)

const made = "# Made by go generate ./deploy/... from config/, deploy/conditions.yaml and deploy/reasons.yaml.\n"

// alert is an alerting rule of Prometheus.
type alert struct {
	name, expr, wait, severity, summary, description, runbook string
}

// recent is how old a value may be: a scrape that fails, or a restart of kube-state-metrics, must not end an alert.
const recent = "10m"

// maintenance are the conditions of a node that is being shut down, drained or worked on, by Kubernetes (1.37, alpha). What our alerts
// would tell of it is expected then.
const maintenance = "GracefulNodeShutdownInProgress|DrainInProgress|Drained|MaintenancePlanned|MaintenanceInProgress"

// status is whether a condition has the status on a node: a series for each such node, of the value 1.
func (s settings) status(condition, is string) string {
	return fmt.Sprintf(`max by (%s, node, condition) (last_over_time(kube_node_status_condition{condition=~"%s",status="%s"}[%s])) == 1`, s.cluster, condition, is, recent)
}

// notInMaintenance leaves out the nodes that are worked on.
func (s settings) notInMaintenance(expr string) string {
	return fmt.Sprintf("(\n  %s\n)\nunless on (%s, node)\n(%s)", strings.ReplaceAll(expr, "\n", "\n  "), s.cluster, s.status(maintenance, "true"))
}

func types(conditions []condition) string {
	var names []string
	for _, c := range conditions {
		names = append(names, c.Type)
	}
	return strings.Join(names, "|")
}

// conditionAlerts has an alert for each condition.
func (s settings) conditionAlerts(conditions []condition) (alerts []alert) {
	for _, c := range conditions {
		alerts = append(alerts, alert{
			name: c.Type, expr: s.notInMaintenance(s.status(c.Type, "true")), wait: c.Advice.For, severity: c.Advice.Severity,
			summary:     fmt.Sprintf("Node {{ $labels.node }}: %s. Next: %s.", c.Type, c.Advice.Next),
			description: "kubectl describe node {{ $labels.node }} shows under Conditions what was measured, and what causes it.",
			runbook:     s.runbooks + "/plugins/" + c.Check + "/README.md",
		})
	}
	return alerts
}

// podNode tells on which node each pod is.
func (s settings) podNode() string {
	return fmt.Sprintf(`* on (%[1]s, namespace, pod) group_left (node) max by (%[1]s, namespace, pod, node) (last_over_time(kube_pod_info{node!=""}[%[2]s]))`, s.cluster, recent)
}

// detectorGone is true for the nodes that are there, had a node-problem-detector within a day, and have none that works. A node that never
// had one is none of these: it may have none on purpose, or as a service that these metrics do not know.
func (s settings) detectorGone() string {
	had := fmt.Sprintf(`max by (%s, node) (last_over_time(kube_pod_info{pod=~"%s",node!=""}[1d]))`, s.cluster, s.pods)
	works := fmt.Sprintf(`max by (%[1]s, node) ((max by (%[1]s, namespace, pod) (last_over_time(kube_pod_status_ready{pod=~"%[2]s",condition="true"}[%[3]s])) == 1) %[4]s)`, s.cluster, s.pods, recent, s.podNode())
	if s.job != "" {
		had = fmt.Sprintf(`max by (%s, node) (last_over_time(up{job=~"%s",node!=""}[1d]))`, s.cluster, s.job)
		works = fmt.Sprintf(`max by (%s, node) (max_over_time(up{job=~"%s"}[%s])) == 1`, s.cluster, s.job, recent)
	}
	return fmt.Sprintf("max by (%[1]s, node) (last_over_time(kube_node_info[%[2]s]))\nand on (%[1]s, node)\n%[3]s\nunless on (%[1]s, node)\n(%[4]s)", s.cluster, recent, had, works)
}

// logged is how often a reason was logged on a node in 15 minutes. The node is a label of the scrape, or that of the pod.
func (s settings) logged(reason string) string {
	return fmt.Sprintf(`sum by (%[1]s, node, reason) (
  increase(problem_counter{%[2]s,node!=""}[15m])
or
  sum by (%[1]s, namespace, pod, reason) (increase(problem_counter{%[2]s,node=""}[15m])) %[3]s
)`, s.cluster, reason, s.podNode())
}

// logAlerts are one alert in three severities.
func (s settings) logAlerts(r reasons) []alert {
	critical, info := strings.Join(r.Critical, "|"), strings.Join(r.Info, "|")
	one := alert{
		name: "NodeLogProblem", wait: "0m",
		summary: "Node {{ $labels.node }}: {{ $labels.reason }} was logged {{ printf \"%.0f\" $value }} times in 15 minutes. Next: read the events of the node, " +
			"kubectl events --for node/{{ $labels.node }}.",
		description: "journal-rules/README.md has a section for each reason. Needs node-problem-detector's own metrics to be scraped, with the label node or with namespace and pod.",
		runbook:     s.runbooks + "/journal-rules/README.md",
	}
	var alerts []alert
	for _, class := range []struct{ severity, reason, threshold string }{
		{"critical", `reason=~"` + critical + `"`, "> 0"},
		{"warning", `reason=~"(Kubelet|Containerd|Docker|Crio|Kernel|Systemd)[A-Z].+",reason!~"` + critical + "|" + info + `"`, ">= 3"},
		{"info", `reason=~"` + info + `"`, ">= 3"},
	} {
		one.severity, one.expr = class.severity, s.notInMaintenance(s.logged(class.reason)+" "+class.threshold)
		alerts = append(alerts, one)
	}
	return alerts
}

// generalAlerts are about the checks and the nodes, whichever the condition.
func (s settings) generalAlerts(conditions []condition, r reasons) []alert {
	runbook := s.runbooks + "/deploy/monitoring/README.md"
	ours := fmt.Sprintf(`last_over_time(kube_node_status_condition{condition=~"%s",status="true"}[%s])`, types(conditions), recent)
	alerts := []alert{{
		name: "NodeCheckCannotLook", expr: s.notInMaintenance(s.status(types(conditions), "unknown")), wait: "30m", severity: "warning",
		summary:     "Node {{ $labels.node }}: the check of {{ $labels.condition }} cannot look. Next: read its message, which names the mount or right that it lacks.",
		description: "kubectl describe node {{ $labels.node }} shows the message. Until it is mended nobody is told of this condition on this node.",
		runbook:     runbook + "#nodecheckcannotlook",
	}, {
		name: "NodeConditionMissing", wait: "1h", severity: "warning",
		expr: s.notInMaintenance(fmt.Sprintf(`count by (%[1]s, node) (%[2]s)
  < on (%[1]s) group_left ()
max by (%[1]s) (count by (%[1]s, node) (%[2]s))
or on (%[1]s, node)
0 * (max by (%[1]s, node) (last_over_time(kube_node_info[%[3]s])) unless on (%[1]s, node) %[2]s)`, s.cluster, ours, recent)),
		summary:     "Node {{ $labels.node }}: has {{ $value }} of our conditions, other nodes have more. Next: look whether node-problem-detector runs there with the same configuration.",
		description: "A check that was never started has no condition, and so never raises an alert.",
		runbook:     runbook + "#nodeconditionmissing",
	}, {
		name: "NodeProblemDetectorGone", wait: "15m", severity: "critical", expr: s.notInMaintenance(s.detectorGone()),
		summary:     "Node {{ $labels.node }}: node-problem-detector no longer works there. Next: look at its DaemonSet or unit, and at its log.",
		description: "Its conditions stay on the node as they were, and none of them is looked at any more.",
		runbook:     runbook + "#nodeproblemdetectorgone",
	}, {
		name: "NodeUnderMaintenance", wait: "0m", severity: "info", expr: s.status(maintenance, "true"),
		summary:     "Node {{ $labels.node }}: {{ $labels.condition }}. Next: nothing; the other alerts of this node wait for its end.",
		description: "kubectl describe node {{ $labels.node }} says who works on the node.",
		runbook:     runbook + "#nodeundermaintenance",
	}, {
		name: "EvictedPodsPileUp", wait: "30m", severity: "warning",
		expr:        s.notInMaintenance(fmt.Sprintf(`count by (%[1]s, node) ((max by (%[1]s, namespace, pod) (last_over_time(kube_pod_status_reason{reason="Evicted"}[%[2]s])) == 1) %[3]s) >= 20`, s.cluster, recent, s.podNode())),
		summary:     "Node {{ $labels.node }}: {{ $value }} evicted pods are left. Next: find what keeps being evicted, then delete them: kubectl delete pods -A --field-selector=status.phase=Failed.",
		description: "Each keeps an object, and until kubelet has removed it directories and dead sandboxes. See EvictionImminent for what runs short.",
		runbook:     runbook + "#evictedpodspileup",
	}}
	return append(alerts, s.logAlerts(r)...)
}

// recordings are about the fleet: the share of a cluster's nodes that have a condition, from 0 to 1.
func (s settings) recordings(conditions []condition) string {
	var b strings.Builder
	for _, is := range []string{"true", "unknown"} {
		fmt.Fprintf(&b, `      - record: condition:kube_node_status_condition_%[1]s:ratio
        expr: |-
          sum by (%[2]s, condition) (max by (%[2]s, node, condition) (last_over_time(kube_node_status_condition{condition=~"%[3]s",status="%[1]s"}[%[4]s])))
            / on (%[2]s) group_left ()
          count by (%[2]s) (max by (%[2]s, node) (last_over_time(kube_node_info[%[4]s])))
`, is, s.cluster, types(conditions), recent)
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
func (s settings) groups(conditions []condition, r reasons) string {
	var b strings.Builder
	b.WriteString("  groups:\n  - name: npd-plugins-conditions\n    rules:\n")
	for _, a := range s.conditionAlerts(conditions) {
		b.WriteString(a.yaml())
	}
	b.WriteString("  - name: npd-plugins-general\n    rules:\n")
	for _, a := range s.generalAlerts(conditions, r) {
		b.WriteString(a.yaml())
	}
	b.WriteString("  - name: npd-plugins-fleet\n    rules:\n" + s.recordings(conditions))
	return b.String()
}

// rules is a rule file of Prometheus.
func rules(groups string) string {
	var b strings.Builder
	b.WriteString(made)
	for line := range strings.Lines(groups) {
		b.WriteString(strings.TrimPrefix(line, "  "))
	}
	return b.String()
}

// prometheusRule is the same for the Prometheus operator.
func prometheusRule(groups string) string {
	return made + `apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: npd-plugins
  labels:
    app.kubernetes.io/name: npd-plugins
spec:
` + groups
}
