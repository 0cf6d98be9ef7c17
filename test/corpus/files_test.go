package corpus

const masked = `systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service systemd-resolved.service systemd-timesyncd.service
	systemd-logind.service getty@.service console-getty.service serial-getty@.service tmp.mount systemd-tmpfiles-setup.service systemd-sysctl.service
	systemd-remount-fs.service systemd-modules-load.service ssh.service systemd-sysusers.service systemd-networkd.socket
	systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-journal-flush.service systemd-random-seed.service
	systemd-update-utmp.service systemd-tmpfiles-setup-dev.service`

// units are the files below /etc/systemd; @ stands for the scratch directory.
var units = map[string]string{
	// Nothing may be dropped, nothing come from the kernel: that is the machine's, and read from /dev/kmsg.
	"journald.conf.d/lab.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=4G\nRateLimitIntervalSec=0\nRateLimitBurst=0\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\n",

	"system/default.target": "[Unit]\nDescription=Node\nRequires=basic.target\nWants=kube-apiserver.service containerd.service kubelet.service tick.timer\nAfter=basic.target\nAllowIsolate=yes\n",

	"system/etcd.service": `[Unit]
Description=etcd
[Service]
Type=notify
ExecStart=@/bin/etcd --data-dir @/etcd --unsafe-no-fsync
`,
	"system/kube-apiserver.service": `[Unit]
Description=Kubernetes API server
Requires=etcd.service
After=etcd.service
[Service]
Type=notify
ExecStart=@/bin/kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=127.0.0.1 --secure-port=6443 --cert-dir=@/apiserver \
  --service-account-issuer=https://lab --service-account-key-file=@/service-accounts.key --service-account-signing-key-file=@/service-accounts.key \
  --token-auth-file=@/tokens.csv --authorization-mode=RBAC --service-cluster-ip-range=10.214.0.0/24 \
  --disable-admission-plugins=ServiceAccount --endpoint-reconciler-type=none -v=2
`,
	"system/containerd.service": `[Unit]
Description=containerd container runtime
[Service]
Type=notify
ExecStart=/usr/bin/containerd -c @/containerd.toml
Restart=always
RestartSec=1
Delegate=yes
KillMode=process
`,
	"system/kubelet.service": `[Unit]
Description=Kubernetes kubelet
After=containerd.service kube-apiserver.service
[Service]
EnvironmentFile=@/kubelet.env
ExecStart=@/bin/kubelet --config=@/kubelet.yaml --root-dir=@/kubelet --cert-dir=@/kubelet/pki --hostname-override=node-1 --kubeconfig=@/kubeconfig -v=${VERBOSITY} --logging-format=${FORMAT}
Restart=always
RestartSec=1
`,
	// What cron jobs, log rotation and health checks leave in the journal of every host.
	"system/tick.service": "[Unit]\nDescription=Periodic task\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
	"system/tick.timer":   "[Unit]\nDescription=Periodic task\n[Timer]\nOnActiveSec=1s\nOnUnitActiveSec=2s\nAccuracySec=100ms\n",
}

// files are those of the scratch directory.
var files = map[string]string{
	"tokens.csv": `token,admin,admin,"system:masters"` + "\n",
	"kubeconfig": `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`,
	"kubelet.yaml": `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
readOnlyPort: 0
containerRuntimeEndpoint: unix://@/containerd.sock
staticPodPath: @/static
podLogsDir: @/podlogs
cgroupDriver: systemd
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
enableControllerAttachDetach: false
nodeStatusUpdateFrequency: 5s
nodeStatusReportFrequency: 10s
syncFrequency: 10s
fileCheckFrequency: 5s
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: "1%"}
resolvConf: ""
`,
	"cni/10-lab.conflist": `{"cniVersion":"0.4.0","name":"lab","plugins":[
 {"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","dataDir":"@/ipam","ranges":[[{"subnet":"10.213.0.0/24"}]],"routes":[]}}]}
`,
}

const containerdConfig = `version = 2
root = "@/containerd/root"
state = "@/containerd/state"
[debug]
  format = "FORMAT"
[grpc]
  address = "@/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "@/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "127.0.0.1:5000/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "@/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
`
