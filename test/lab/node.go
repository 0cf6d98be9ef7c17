package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

// NodeName is the name of the lab's node in Kubernetes.
const NodeName = "node-1"

// Node is a Kubernetes node without scheduler and controllers: etcd, kube-apiserver, containerd and kubelet, each with its
// data in a directory of its own. Kubelet authenticates and authorises requests as on a real node.
type Node struct {
	Containerd *Containerd
	// Kubelet is the host and port of kubelet, Certificate the file with what it has signed itself.
	Kubelet, Certificate string
	// Cgroup is kubelet's cgroupRoot, below which the pods' are.
	Cgroup string

	dir, api  string
	program   string // kubelet
	hugePages int
	config    string // of kubelet
	http      *http.Client
	kubelet   *daemon
}

// NodeConfig is what tests need of a node that differs from the lab's usual one.
type NodeConfig struct {
	// Kubelet is one of KubeletReleases, "" for that of EnvKubelet or else the newest.
	Kubelet string
	// Settings are more lines of kubelet's configuration (YAML).
	Settings string
	// Containerd differs likewise; its CNI plugin is the node's.
	Containerd ContainerdConfig
	// HugePages is how many huge pages of 2 MiB kubelet and what InNode starts see. The machine's stay as they are.
	HugePages int
}

// adminToken makes its bearer a member of system:masters.
const adminToken = "admin-of-the-lab"

// StartNode starts the lab's usual node, whose kubelet has these lines of configuration more (YAML).
func StartNode(t testing.TB, binaries, kubelet string) *Node {
	t.Helper()
	return StartNodeWith(t, binaries, NodeConfig{Settings: kubelet})
}

// StartNodeWith starts a node and waits until it is ready. Everything ends with the test. The test skips without root,
// containerd, or the programs of Kubernetes.
func StartNodeWith(t testing.TB, binaries string, config NodeConfig) *Node {
	t.Helper()
	NeedRoot(t)
	NeedCommand(t, "unshare", "util-linux")
	n := &Node{program: kubernetesProgram(t, "kubelet", config.Kubelet), hugePages: config.HugePages, dir: ShortDir(t)}
	config.Containerd.CNI = NewCNI(t)
	n.Containerd = StartContainerd(t, binaries, config.Containerd)
	n.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // kube-apiserver signs its certificate itself
	}}
	n.startControlPlane(t)
	n.write(t, "kubeconfig", fmt.Sprintf(kubeconfig, n.api, adminToken))
	n.Kubelet, n.Certificate = freeAddress(t), filepath.Join(n.dir, "pki/kubelet.crt")
	_, port, _ := net.SplitHostPort(n.Kubelet)
	n.Cgroup = NewCgroup(t, "node").Path
	n.config = fmt.Sprintf(kubeletConfig, n.Containerd.Endpoint, n.dir, port, n.Cgroup)
	for _, dir := range []string{"kubelet", "podlogs"} {
		if err := os.Mkdir(filepath.Join(n.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		n.kubelet.stop()
		n.removePods(t)
		unmountBelow(t, n.dir)
	})
	n.StartKubelet(t, config.Settings)
	Eventually(t, time.Minute, "the node is ready", func() bool { return n.Condition(t, "Ready") == "True" })
	return n
}

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "%s", insecure-skip-tls-verify: true}}]
users: [{name: lab, user: {token: %s}}]
contexts: [{name: lab, context: {cluster: lab, user: lab}}]
current-context: lab
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: %[1]s
podLogsDir: %[2]s/podlogs
address: 127.0.0.1
port: %[3]s
healthzPort: 0
cgroupDriver: cgroupfs
cgroupRoot: %[4]s
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
enableControllerAttachDetach: false
nodeStatusUpdateFrequency: 2s
nodeStatusReportFrequency: 5s
resolvConf: ""
`

// startControlPlane starts etcd and kube-apiserver on the loopback interface.
func (n *Node) startControlPlane(t testing.TB) {
	t.Helper()
	client, peer, secure := "http://"+freeAddress(t), "http://"+freeAddress(t), freeAddress(t)
	start(t, n.dir, "etcd", kubernetesProgram(t, "etcd", ""), "--data-dir="+n.dir+"/etcd-data", "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	n.write(t, "accounts.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	n.write(t, "tokens.csv", adminToken+`,admin,admin,"system:masters"`+"\n")
	_, port, _ := net.SplitHostPort(secure)
	start(t, n.dir, "kube-apiserver", kubernetesProgram(t, "kube-apiserver", ""), "--etcd-servers="+client, "--bind-address=127.0.0.1", "--secure-port="+port,
		"--cert-dir="+n.dir+"/apiserver", "--service-account-issuer=https://lab", "--service-account-key-file="+n.dir+"/accounts.key",
		"--service-account-signing-key-file="+n.dir+"/accounts.key", "--token-auth-file="+n.dir+"/tokens.csv", "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.214.0.0/24", "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none", "--allow-privileged=true")
	n.api = "https://" + secure
	Eventually(t, time.Minute, "kube-apiserver is ready", func() bool {
		_, status, err := n.try(http.MethodGet, "/readyz", nil)
		return err == nil && status == http.StatusOK
	})
}

func (n *Node) write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// withSysctls starts a program for which these sysctls have the values that kubelet writes at each start: they are the
// machine's. The mounts of pods go on to be seen by the runtime.
//
// Likewise it sees that many huge pages of 2 MiB, when there are to be any: in the tables of the kernel they belong to the
// machine.
const withSysctls = `set -e
mount --make-private /proc
dir=$1; pages=$2; shift 2
if [ $pages -gt 0 ]; then
  mount --make-private /sys
  mkdir -p $dir/hugepages/hugepages-2048kB
  echo $pages >$dir/hugepages/hugepages-2048kB/nr_hugepages
  mount --bind $dir/hugepages /sys/kernel/mm/hugepages
  sed "s/^Hugetlb:.*/Hugetlb: $((pages * 2048)) kB/" /proc/meminfo >$dir/meminfo
  mount --bind $dir/meminfo /proc/meminfo
fi
for sysctl in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  file=$dir/$(basename ${sysctl%=*})
  echo ${sysctl#*=} >$file
  mount --bind $file /proc/sys/${sysctl%=*}
done
exec "$@"`

// StartKubelet starts kubelet, which StartNode has done already, with more lines of configuration (YAML), and waits until
// it serves.
func (n *Node) StartKubelet(t testing.TB, more string) {
	t.Helper()
	n.write(t, "kubelet.yaml", n.config+more)
	n.kubelet = start(t, n.dir, "kubelet", "unshare", "--mount", "--propagation=unchanged", "sh", "-c", withSysctls, "sh", n.dir, strconv.Itoa(n.hugePages),
		n.program, "--config="+n.dir+"/kubelet.yaml", "--kubeconfig="+n.dir+"/kubeconfig", "--root-dir="+n.dir+"/kubelet",
		"--cert-dir="+n.dir+"/pki", "--hostname-override="+NodeName, "-v=2")
	Eventually(t, time.Minute, "kubelet serves", func() bool {
		connection, err := net.Dial("tcp", n.Kubelet)
		if err == nil {
			connection.Close()
		}
		return err == nil
	})
}

// StopKubelet ends kubelet. Its pods go on.
func (n *Node) StopKubelet() { n.kubelet.stop() }

// InNode is the command line that executes a program where it sees what kubelet sees.
func (n *Node) InNode(command ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(n.KubeletPID()), "--mount", "--"}, command...)...)
}

// KubeletLog is what kubelet has logged so far.
func (n *Node) KubeletLog(t testing.TB) string {
	t.Helper()
	said, err := os.ReadFile(filepath.Join(n.dir, "kubelet.log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

// KubeletPID is the process of kubelet.
func (n *Node) KubeletPID() int { return n.kubelet.cmd.Process.Pid }

// Call calls kube-apiserver as a member of system:masters and returns its answer. body is sent as JSON, nil for none.
func (n *Node) Call(t testing.TB, method, path string, body any) []byte {
	t.Helper()
	answer, status, err := n.try(method, path, body)
	if err != nil || status >= 300 {
		t.Fatalf("%s %s: %d %v\n%s", method, path, status, err, answer)
	}
	return answer
}

func (n *Node) try(method, path string, body any) (answer []byte, status int, err error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, 0, err
	}
	if body == nil {
		content = nil
	}
	return n.send(method, path, "application/json", content)
}

func (n *Node) send(method, path, contentType string, content []byte) (answer []byte, status int, err error) {
	request, err := http.NewRequest(method, n.api+path, bytes.NewReader(content))
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Authorization", "Bearer "+adminToken)
	request.Header.Set("Content-Type", contentType)
	response, err := n.http.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return answer, response.StatusCode, err
}

// collections are the paths of the kinds that Apply makes, %s the namespace.
var collections = map[string]string{
	"Namespace":          "/api/v1/namespaces",
	"ServiceAccount":     "/api/v1/namespaces/%s/serviceaccounts",
	"ClusterRole":        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
	"ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}

// Apply makes the objects of a YAML file that are not there yet.
func (n *Node) Apply(t testing.TB, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq("\n"+string(content), "\n---") {
		var object struct {
			Kind     string
			Metadata struct{ Namespace string }
		}
		var whole map[string]any
		if err := yaml.UnmarshalStrict([]byte(document), &whole); err != nil || len(whole) == 0 {
			t.Fatalf("%s: %v in %q", file, err, document)
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		path, ok := collections[object.Kind]
		if !ok {
			t.Fatalf("%s: no path for a %s", file, object.Kind)
		}
		if strings.Contains(path, "%s") {
			path = fmt.Sprintf(path, object.Metadata.Namespace)
		}
		if answer, status, err := n.try(http.MethodPost, path, whole); err != nil || status >= 300 && status != http.StatusConflict {
			t.Fatalf("%s: make %s: %d %v\n%s", file, object.Kind, status, err, answer)
		}
	}
}

// ServiceAccount makes a service account when it is not there, and returns a file with a token of it.
func (n *Node) ServiceAccount(t testing.TB, namespace, name string) (tokenFile string) {
	t.Helper()
	accounts := fmt.Sprintf(collections["ServiceAccount"], namespace)
	if answer, status, err := n.try(http.MethodPost, accounts, object{"metadata": object{"name": name}}); err != nil || status >= 300 && status != http.StatusConflict {
		t.Fatalf("make service account: %d %v\n%s", status, err, answer)
	}
	var token struct{ Status struct{ Token string } }
	answer := n.Call(t, http.MethodPost, accounts+"/"+name+"/token", object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"})
	if err := json.Unmarshal(answer, &token); err != nil || token.Status.Token == "" {
		t.Fatalf("token of %s: %v\n%s", name, err, answer)
	}
	tokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(token.Status.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	return tokenFile
}

type object = map[string]any

// Condition is the status of the node's condition: True, False, Unknown, or "" while there is none.
func (n *Node) Condition(t testing.TB, name string) string {
	t.Helper()
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	answer, status, err := n.try(http.MethodGet, "/api/v1/nodes/"+NodeName, nil)
	if err != nil || status != http.StatusOK {
		return ""
	}
	if err := json.Unmarshal(answer, &node); err != nil {
		t.Fatal(err)
	}
	for _, c := range node.Status.Conditions {
		if c.Type == name {
			return c.Status
		}
	}
	return ""
}

// KubeletVersion is the version that kubelet has told kube-apiserver, such as v1.37.2.
func (n *Node) KubeletVersion(t testing.TB) string {
	t.Helper()
	var node struct {
		Status struct {
			NodeInfo struct{ KubeletVersion string }
		}
	}
	if err := json.Unmarshal(n.Call(t, http.MethodGet, "/api/v1/nodes/"+NodeName, nil), &node); err != nil {
		t.Fatal(err)
	}
	return node.Status.NodeInfo.KubeletVersion
}

// CreatePod makes a pod of one container that sleeps, in the namespace default and on the host's network.
func (n *Node) CreatePod(t testing.TB, name string) {
	t.Helper()
	n.Call(t, http.MethodPost, "/api/v1/namespaces/default/pods", object{
		"metadata": object{"name": name},
		"spec": object{
			"nodeName": NodeName, "hostNetwork": true, "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 1,
			"tolerations": []object{{"operator": "Exists"}},
			"containers":  []object{{"name": "pause", "image": PauseImage, "imagePullPolicy": "Never"}},
		},
	})
}

// PodPhase is the phase of a pod in the namespace default: Pending, Running …
func (n *Node) PodPhase(t testing.TB, name string) string {
	t.Helper()
	var pod struct{ Status struct{ Phase string } }
	if err := json.Unmarshal(n.Call(t, http.MethodGet, "/api/v1/namespaces/default/pods/"+name, nil), &pod); err != nil {
		t.Fatal(err)
	}
	return pod.Status.Phase
}

// removePods removes from containerd what kubelet has left there.
func (n *Node) removePods(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	reply, err := n.Containerd.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Logf("what kubelet left stays: %v", err)
		return
	}
	var ids []string
	for _, sandbox := range reply.Items {
		ids = append(ids, sandbox.Id)
	}
	n.Containerd.RemovePods(t, ids)
}

// daemon is a program of the node.
type daemon struct {
	cmd     *exec.Cmd
	stopped bool
}

// start starts a program that logs to a file of its name, until the test ends.
func start(t testing.TB, dir, name, command string, args ...string) *daemon {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d := &daemon{cmd: exec.Command(command, args...)}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			content, _ := os.ReadFile(log.Name())
			t.Logf("%s's last words:\n%s", name, content[max(0, len(content)-4096):])
		}
	})
	return d
}

func (d *daemon) stop() {
	if d.stopped {
		return
	}
	d.stopped = true
	d.cmd.Process.Signal(unix.SIGCONT)
	d.cmd.Process.Signal(unix.SIGTERM)
	force := time.AfterFunc(10*time.Second, func() { d.cmd.Process.Kill() })
	d.cmd.Wait()
	force.Stop()
}

// freeAddress is a free port of the loopback interface, with its address.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
