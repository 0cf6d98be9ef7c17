package faults

import (
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// startServices starts a kubelet that ends with status 255 while the file sick is there, and a containerd. There are also a
// crio that fails at once, a docker that systemd gives up, and a cri-docker that nobody uses.
func startServices(t *testing.T, s *lab.Systemd) {
	t.Helper()
	const unit = "[Unit]\nDefaultDependencies=no\n"
	for name, text := range map[string]string{
		"kubelet.service": unit + "StartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=200ms\n" +
			"ExecStart=/bin/sh -c 'sleep 0.1; test -e /run/lab/units/sick && exit 255; exec sleep 3600'\n",
		"containerd.service": unit + "StartLimitIntervalSec=0\n[Service]\nRestart=always\nExecStart=/bin/sleep 3600\n",
		"crio.service":       unit + "[Service]\nExecStart=/bin/sh -c 'kill -9 $$$$'\n",
		"docker.service":     unit + "[Service]\nRestart=always\nRestartSec=10ms\nExecStart=/bin/sh -c 'exit 3'\n",
		"cri-docker.service": unit + "[Service]\nExecStart=/bin/sleep 3600\n",
	} {
		s.Unit(t, name, text)
	}
	s.Run(t, "systemctl", "daemon-reload")
	s.Run(t, "systemctl", "start", "kubelet.service", "containerd.service")
}

// heal lets kubelet run again.
func heal(t *testing.T, s *lab.Systemd) {
	t.Helper()
	s.Run(t, "sh", "-c", "rm /run/lab/units/sick")
}

func TestServiceRestarts(t *testing.T) {
	eachSystemd(t, func(t *testing.T, s *lab.Systemd) {
		startServices(t, s)
		pod, outside := watchSystemd(t, s, "service-restarts", "--window=20s")
		pod.wantOK(t)
		outside.wantOK(t)

		s.Run(t, "systemctl", "restart", "containerd.service") // a planned one
		pod.wantOK(t)
		s.Run(t, "systemctl", "reset-failed")
		pod.wantOK(t)

		s.Unit(t, "sick", "")
		s.Run(t, "systemctl", "restart", "kubelet.service")
		lab.Eventually(t, 15*time.Second, "kubelet has started five times", func() bool {
			time.Sleep(500 * time.Millisecond)
			return pod.look(t).Status == npd.NonOK
		})
		pod.wantProblem(t, "kubelet.service started ", "times in 20s, last ended by ", "see journalctl -u kubelet.service")
		outside.wantProblem(t, "kubelet.service started ")
		lab.Eventually(t, 30*time.Second, "a look that sees how it ends", func() bool {
			return strings.Contains(pod.look(t).Message, "last ended by exit status 255")
		})
		heal(t, s)
		lab.Eventually(t, time.Minute, "kubelet has run for a while", func() bool {
			time.Sleep(2 * time.Second)
			return pod.look(t).Status == npd.OK
		})

		for unit, end := range map[string]string{"crio.service": "SIGKILL", "docker.service": "exit status 3"} {
			s.Run(t, "systemctl", "start", unit)
			lab.Eventually(t, 10*time.Second, unit+" has failed", func() bool {
				return strings.Contains(pod.look(t).Message, unit+" has failed")
			})
			pod.wantProblem(t, unit+" has failed and systemd does not start it again: "+end)
			fresh, _ := watchSystemd(t, s, "service-restarts")
			fresh.wantProblem(t, unit+" has failed")
			s.Run(t, "systemctl", "reset-failed", unit)
			fresh.wantOK(t)
		}
	})
}
