//go:build tools

// Package e2e names the kubelet of the release before: kubelets are older than
// kube-apiserver in every cluster that is being upgraded.
package e2e

import _ "k8s.io/kubernetes/cmd/kubelet"
