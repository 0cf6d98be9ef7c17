package lab

import (
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Namespace is the namespace of every pod of the lab.
const Namespace = "production"

// PodConfig returns the sandbox configuration of the i-th pod of a Deployment's ReplicaSet, with the labels and
// annotations a pod of a usual Helm chart has when kubelet hands it to the runtime: about 600 encoded bytes in a list
// reply. manifest > 0 adds an annotation as kubectl apply leaves it, with that many bytes. The pod uses the host's
// network, so that no CNI plugin is needed.
func PodConfig(replicaSet string, i, manifest int) *runtimeapi.PodSandboxConfig {
	app := strings.SplitN(replicaSet, "-", 2)[0]
	pod := replicaSet + "-" + randomSuffix(i)
	uid := fmt.Sprintf("%08x-2c1e-4b7a-9d52-%012x", i, len(replicaSet))
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: pod, Namespace: Namespace, Uid: uid},
		Labels: map[string]string{
			"app":                          app,
			"app.kubernetes.io/managed-by": "Helm",
			"app.kubernetes.io/name":       app,
			"io.kubernetes.pod.name":       pod,
			"io.kubernetes.pod.namespace":  Namespace,
			"io.kubernetes.pod.uid":        uid,
			"pod-template-hash":            replicaSet[strings.LastIndex(replicaSet, "-")+1:],
		},
		Annotations: map[string]string{
			"kubernetes.io/config.seen":   "2026-01-01T00:00:00.000000000Z",
			"kubernetes.io/config.source": "api",
			"prometheus.io/port":          "8080",
			"prometheus.io/scrape":        "true",
		},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER},
			},
		},
	}
	if manifest > 0 {
		config.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = strings.Repeat("x", manifest)
	}
	return config
}

// randomSuffix returns the five characters Kubernetes appends to the names of a ReplicaSet's pods, in its own alphabet
// (k8s.io/apimachinery/pkg/util/rand), here a number below 27^5.
func randomSuffix(i int) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	suffix := make([]byte, 5)
	for k := range suffix {
		suffix[len(suffix)-1-k] = alphabet[i%len(alphabet)]
		i /= len(alphabet)
	}
	return string(suffix)
}

// ContainerConfig returns the configuration of a container of that pod, with the labels and annotations kubelet gives
// every container: about 800 encoded bytes in a list reply.
func ContainerConfig(pod *runtimeapi.PodSandboxConfig, container string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: container},
		Image:    &runtimeapi.ImageSpec{Image: PauseImage, UserSpecifiedImage: PauseImage}, // CRI-O demands the latter
		LogPath:  container + "_0.log",
		Labels: map[string]string{
			"io.kubernetes.container.name": container,
			"io.kubernetes.pod.name":       pod.Metadata.Name,
			"io.kubernetes.pod.namespace":  pod.Metadata.Namespace,
			"io.kubernetes.pod.uid":        pod.Metadata.Uid,
		},
		Annotations: map[string]string{
			"io.kubernetes.container.hash":                     "5f1d7a84",
			"io.kubernetes.container.ports":                    `[{"name":"http","containerPort":8080,"protocol":"TCP"}]`,
			"io.kubernetes.container.restartCount":             "0",
			"io.kubernetes.container.terminationMessagePath":   "/dev/termination-log",
			"io.kubernetes.container.terminationMessagePolicy": "File",
			"io.kubernetes.pod.terminationGracePeriod":         "30",
		},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       &runtimeapi.LinuxContainerResources{CpuShares: 2},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: pod.GetLinux().GetSecurityContext().GetNamespaceOptions()},
		},
	}
}

// Sandbox returns what a runtime lists for a pod. The id is made from the number.
func Sandbox(pod *runtimeapi.PodSandboxConfig, id int, state runtimeapi.PodSandboxState, createdAt int64) *runtimeapi.PodSandbox {
	return &runtimeapi.PodSandbox{
		Id:          fmt.Sprintf("%064x", id),
		Metadata:    pod.Metadata,
		State:       state,
		CreatedAt:   createdAt,
		Labels:      pod.Labels,
		Annotations: pod.Annotations,
	}
}

// Container returns what a runtime lists for a container of the sandbox with that number. The id is made from the
// number id.
func Container(config *runtimeapi.ContainerConfig, id, sandbox int, state runtimeapi.ContainerState, createdAt int64) *runtimeapi.Container {
	return &runtimeapi.Container{
		Id:           fmt.Sprintf("%064x", id),
		PodSandboxId: fmt.Sprintf("%064x", sandbox),
		Metadata:     config.Metadata,
		Image:        config.Image,
		ImageRef:     "sha256:7031c1b283388d2c2e09b57badb803c05ebed362dc88d84b480cc47f72a21097",
		State:        state,
		CreatedAt:    createdAt,
		Labels:       config.Labels,
		Annotations:  config.Annotations,
	}
}
