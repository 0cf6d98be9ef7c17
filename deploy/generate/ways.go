package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// ways returns the files that start node-problem-detector with the checks: by kustomize, Helm and systemd.
func ways(root string, conditions []condition) (map[string]string, error) {
	n, err := readNeeds(root, conditions)
	if err != nil {
		return nil, err
	}
	rbac, err := os.ReadFile(filepath.Join(root, "deploy/rbac.yaml"))
	if err != nil {
		return nil, err
	}
	files := map[string]string{"kustomize/all/rbac.yaml": "# Made by go generate ./deploy/... from deploy/rbac.yaml.\n" + string(rbac)}
	for _, profile := range []string{core, all} {
		plugins, logs := n.plugins(conditions, profile), n.logs(profile)
		files["kustomize/"+profile+"/arguments.yaml"] = arguments(plugins, logs)
		if files["helm/"+profile+".yaml"], err = helm(root, profile, plugins, logs); err != nil {
			return nil, err
		}
	}
	files["systemd/npd-plugins.conf"] = dropIn(n, conditions)
	files["README.md"], err = n.page(root, conditions)
	return files, err
}

const madeFromNeeds = "# Made by go generate ./deploy/... from config/, journal-rules/ and deploy/needs.yaml.\n"

// monitors are the flags of node-problem-detector for its two monitors. Given again a flag adds to what was given before.
func monitors(plugins, logs []string) [2]string {
	return [2]string{"--config.custom-plugin-monitor=" + strings.Join(plugins, ","), "--config.system-log-monitor=" + strings.Join(logs, ",")}
}

// arguments is a JSON patch that adds to the command of the DaemonSet. It fails where the DaemonSet has another shape.
func arguments(plugins, logs []string) string {
	var b strings.Builder
	b.WriteString(madeFromNeeds + `# node-problem-detector does not expand "*", so each file is named. Its flags add up: those that the command has already stay.
- op: test
  path: /spec/template/spec/containers/0/name
  value: node-problem-detector
`)
	for _, flag := range monitors(plugins, logs) {
		fmt.Fprintf(&b, "- op: add\n  path: /spec/template/spec/containers/0/command/-\n  value: %s\n", flag)
	}
	return b.String()
}

// pod is what the patches of kustomize add to a pod, as far as the chart has values for it.
type pod struct {
	InitContainers []any       `json:"initContainers"`
	Containers     []container `json:"containers"`
	Volumes        []any       `json:"volumes"`
}

type container struct {
	Name         string `json:"name"`
	Env          []any  `json:"env"`
	Resources    any    `json:"resources"`
	VolumeMounts []any  `json:"volumeMounts"`
}

// readPod reads a patch of one container.
func readPod(path string) (pod, error) {
	var patch struct {
		Spec struct {
			Template struct {
				Spec pod `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return pod{}, err
	}
	if err := yaml.Unmarshal(text, &patch); err != nil {
		return pod{}, fmt.Errorf("%s: %w", path, err)
	}
	p := patch.Spec.Template.Spec
	if len(p.Containers) != 1 {
		return pod{}, fmt.Errorf("%s has %d containers, not 1", path, len(p.Containers))
	}
	return p, nil
}

// readRules reads the rules of the ClusterRole in rbac.yaml.
func readRules(root string) ([]any, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/rbac.yaml"))
	if err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(string(text), "\n---\n") {
		var object struct {
			Kind  string `json:"kind"`
			Rules []any  `json:"rules"`
		}
		if err := yaml.Unmarshal([]byte(part), &object); err != nil {
			return nil, fmt.Errorf("rbac.yaml: %w", err)
		}
		if object.Kind == "ClusterRole" {
			return object.Rules, nil
		}
	}
	return nil, fmt.Errorf("rbac.yaml has no ClusterRole")
}

// chartLogs are the log monitors that the chart has by default. Helm replaces lists, so they are said again.
var chartLogs = []string{"/config/kernel-monitor.json", "/config/docker-monitor.json", "/config/readonly-monitor.json"}

// helm has values for the chart that are the same as the patches of kustomize.
func helm(root, profile string, plugins, logs []string) (string, error) {
	common, err := readPod(filepath.Join(root, "deploy/kustomize/common/pod.yaml"))
	if err != nil {
		return "", err
	}
	mounts, err := readPod(filepath.Join(root, "deploy/kustomize", profile, "mounts.yaml"))
	if err != nil {
		return "", err
	}
	values := map[string]any{
		"settings":          map[string]any{"custom_plugin_monitors": plugins, "log_monitors": append(chartLogs[:len(chartLogs):len(chartLogs)], logs...)},
		"initContainers":    common.InitContainers,
		"env":               common.Containers[0].Env,
		"resources":         common.Containers[0].Resources,
		"extraVolumeMounts": append(common.Containers[0].VolumeMounts, mounts.Containers[0].VolumeMounts...),
		"extraVolumes":      append(common.Volumes, mounts.Volumes...),
	}
	if profile == all {
		rules, err := readRules(root)
		if err != nil {
			return "", err
		}
		values["rbac"] = map[string]any{"clusterRole": map[string]any{"extraRules": rules}}
	}
	text, err := yaml.Marshal(values)
	return madeFromNeeds + `# Values for the chart node-problem-detector 2.4.1 of deliveryhero, the profile "` + profile + `". Give the image with
# --set 'initContainers[0].image=registry.example.com/npd-plugins:VERSION'.
#
# Helm replaces lists, it does not join them: copy into this file what your own values have of these lists. The first log monitors are the
# chart's own. The files are those that the init container installs, of the same version as the checks, so settings.custom_monitor_definitions
# and /custom-config stay yours. Items of settings.extraArgs need a space at their beginning, because the chart joins them without.
#
# To turn checks off leave the lists alone: --set 'initContainers[0].args[3]=--disable=zombies'.
` + string(text), err
}

// dropIn is for node-problem-detector as a service of the host. It has no service account, so the checks that cannot do without kubelet are left out.
func dropIn(n *needs, conditions []condition) string {
	var own []condition
	for _, c := range conditions {
		if n.Checks[c.Check].Kubelet != "needed" {
			own = append(own, c)
		}
	}
	flags := monitors(n.plugins(own, all), n.logs(all))
	return madeFromNeeds + `# A drop-in for node-problem-detector as a service of the host: /etc/systemd/system/node-problem-detector.service.d/npd-plugins.conf,
# after npdctl install --dest ` + installed + `.
#
# ExecStart is replaced, since systemd cannot add to it: put in place of the first line what "systemctl cat node-problem-detector" says, and keep
# the other two. The flags add up with those that are there already. pleg and kubelet-throttle are left out: to have them, give them a token and an address
# (npdctl install --set pleg.token-file=FILE --set pleg.kubelet=ADDRESS) and add their files.
[Service]
ExecStart=
ExecStart=/usr/local/bin/node-problem-detector --logtostderr \
    ` + flags[0] + ` \
    ` + flags[1] + `

# Where the checks remember. It stays when the service restarts.
RuntimeDirectory=npd-plugins
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes

# What the checks can do without. What they need is not here: PrivateTmp (CRI-O's downloads are in /var/tmp), PrivateDevices and ProtectKernelLogs
# (/dev/kmsg), ProtectProc and ProcSubset, PrivateUsers and PrivateNetwork.
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_SYSLOG
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
`
}
