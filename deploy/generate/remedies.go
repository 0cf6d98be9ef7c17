package main

import (
	"fmt"
	"strings"
)

// with returns the conditions with this remedy.
func with(conditions []condition, remedy string) (found []condition) {
	for _, c := range conditions {
		if c.Advice.Remedy == remedy {
			found = append(found, c)
		}
	}
	return found
}

// readinessRules has a rule of the node-readiness-controller for each condition that new pods should keep away from.
func readinessRules(conditions []condition) (string, error) {
	var b strings.Builder
	b.WriteString(made + `#
# Rules for the node-readiness-controller 0.4.1 and later: while a condition is not False the node has a taint that keeps new pods away. No pod is moved.
# The controller has no limit for the fleet, and Unknown counts as not False: a check that cannot look on all nodes would close all of
# them. So the rules begin as a dry run, and hold only for nodes with the label npd-plugins/taint=true: give it to no more nodes than you
# can do without, and not to the control plane.
`)
	for _, c := range append(with(conditions, "taint"), with(conditions, "replace")...) {
		fmt.Fprintf(&b, `---
apiVersion: readiness.node.x-k8s.io/v1alpha1
kind: NodeReadinessRule
metadata:
  name: npd-plugins-%s
spec:
  conditions:
  - type: %s
    requiredStatus: "False"
    defaultStatus: "False" # a node that is new has no condition yet, and need not wait for it
  taint:
    key: readiness.k8s.io/%s
    effect: NoSchedule
  enforcementMode: continuous
  nodeSelector:
    matchLabels:
      npd-plugins/taint: "true"
  dryRun: true
`, strings.ToLower(c.Type), c.Type, c.Type)
	}
	return b.String(), nil
}

// patience is how long a condition that only a new node heals must stay before that is done.
const patience = "30m"

// machineHealthCheck is for Cluster API.
func machineHealthCheck(conditions []condition) (string, error) {
	var b strings.Builder
	b.WriteString(made + `#
# A MachineHealthCheck of Cluster API for what only a new machine heals. At most a tenth of the machines is replaced at a time: when more
# are unhealthy it is no longer the machines, and nothing is done. Only status True counts; Unknown never costs a machine.
# Set clusterName and the selector to yours. With the API v1beta1 the fields are maxUnhealthy and unhealthyConditions with timeout.
apiVersion: cluster.x-k8s.io/v1beta2
kind: MachineHealthCheck
metadata:
  name: npd-plugins
spec:
  clusterName: CLUSTER
  selector:
    matchLabels:
      npd-plugins/replace: "true"
  checks:
    unhealthyNodeConditions:
`)
	for _, c := range with(conditions, "replace") {
		fmt.Fprintf(&b, "    - type: %s\n      status: \"True\"\n      timeoutSeconds: 1800\n", c.Type)
	}
	b.WriteString(`  remediation:
    triggerIf:
      unhealthyLessThanOrEqualTo: 10%
`)
	return b.String(), nil
}

// nodeHealthCheck is for the operators of medik8s.
func nodeHealthCheck(conditions []condition) (string, error) {
	var b strings.Builder
	b.WriteString(made + `#
# A NodeHealthCheck of medik8s for what only a reboot heals. Nothing is done when fewer than nine tenths of the selected nodes are healthy.
# Only status True counts. Set the template to the one of your remediation operator.
apiVersion: remediation.medik8s.io/v1alpha1
kind: NodeHealthCheck
metadata:
  name: npd-plugins
spec:
  selector:
    matchExpressions:
    - key: node-role.kubernetes.io/control-plane
      operator: DoesNotExist
    - key: npd-plugins/replace
      operator: In
      values: ["true"]
  minHealthy: 90%
  unhealthyConditions:
`)
	for _, c := range with(conditions, "replace") {
		fmt.Fprintf(&b, "  - type: %s\n    status: \"True\"\n    duration: %s\n", c.Type, patience)
	}
	b.WriteString(`  remediationTemplate:
    apiVersion: self-node-remediation.medik8s.io/v1alpha1
    kind: SelfNodeRemediationTemplate
    name: self-node-remediation-automatic-strategy-template
    namespace: medik8s
`)
	return b.String(), nil
}

// remedies is the page that tells of all this.
func remedies(conditions []condition) (string, error) {
	var b strings.Builder
	b.WriteString(`<!-- Made by go generate ./deploy/... from config/ and deploy/conditions.yaml. -->
# What to do about a condition

A false alarm on one node is a nuisance. The same false alarm on all nodes, with a controller that drains what has it, ends the cluster. So begin with alerts, watch them for some weeks, then
close nodes for new pods, and let machines be replaced last; never without a limit for the fleet, and never because of Unknown.

| Condition | Advice | Because |
|---|---|---|
`)
	for _, c := range conditions {
		advice := map[string]string{"alert": "alert only", "taint": "taint: no new pods", "replace": "replace or reboot"}[c.Advice.Remedy]
		fmt.Fprintf(&b, "| [%s](../../plugins/%s/README.md) | %s | %s |\n", c.Type, c.Check, advice, c.Advice.Why)
	}
	b.WriteString(`
- [node-readiness-rules.yaml](node-readiness-rules.yaml): taints by the [node-readiness-controller](https://github.com/kubernetes-sigs/node-readiness-controller), for "taint" and "replace". The limit is the label
  ` + "`npd-plugins/taint=true`" + `, and they begin as a dry run. They need version 0.4.1: older ones know no ` + "`defaultStatus`" + ` and taint every new node. Unknown closes a node too: keep the alert NodeCheckCannotLook.
- [machine-health-check.yaml](machine-health-check.yaml): Cluster API replaces the machine, for "replace". At most a tenth at a time.
- [node-health-check.yaml](node-health-check.yaml): medik8s reboots the node, for "replace". Only while nine tenths are healthy.

Controllers count from the condition's ` + "`lastTransitionTime`" + `. It stays as it is while the message changes, because the configs here have ` + "`enable_message_change_based_condition_update: false`" + `; leave that so. That of service-restarts alone begins anew when another service is told of.

A restart of node-problem-detector resets ` + "`lastTransitionTime`" + ` of every condition, and no setting keeps it: ` + "`skip_initial_status: true`" + ` keeps the status only. It becomes the time of the first run after
the restart, or of the restart itself where nothing is wrong. So each restart starts the timeouts of these controllers over. It never makes them act too early. A rollout of the DaemonSet delays a
remediation by up to its timeout, and a node-problem-detector that restarts more often than the timeout (` + patience + ` here) prevents it. Alert on its restarts, and take alerts, not ` + "`lastTransitionTime`" + `, for how
long a problem has lasted: ` + "`for:`" + ` counts the status, which a restart does not change.

Conditions of a check that was removed stay on the node for ever: ` + "`npdctl cleanup`" + ` removes them.
`)
	return b.String(), nil
}
