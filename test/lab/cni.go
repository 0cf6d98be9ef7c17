package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// CNI is a network plugin for StartContainerd that only answers: a pod's network namespace stays empty. Its deletions
// can be made to fail, as those of a plugin whose daemon or configuration is gone.
type CNI struct {
	dir string
}

// cniPlugin is the plugin. The runtime also asks it for the loopback device of each pod, under that name.
const cniPlugin = `#!/bin/sh
version='"cniVersion":"0.3.1"'
case "${0##*/} $CNI_COMMAND" in
*" ADD")
	echo "{$version,\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"sandbox\":\"$CNI_NETNS\"}],\"ips\":[{\"version\":\"4\",\"interface\":0,\"address\":\"10.88.0.2/16\"}]}"
	;;
*" VERSION")
	echo "{$version,\"supportedVersions\":[\"0.3.1\"]}"
	;;
"lab DEL")
	if [ -e '%s' ]; then
		echo "{$version,\"code\":11,\"msg\":\"the network daemon does not answer\"}"
		exit 1
	fi
	;;
esac
`

const cniConfig = `{"cniVersion":"0.3.1","name":"lab","plugins":[{"type":"lab"}]}`

// NewCNI makes the plugin and its configuration.
func NewCNI(t testing.TB) *CNI {
	t.Helper()
	n := &CNI{ShortDir(t)}
	for _, dir := range []string{n.plugins(), n.configs()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"lab", "loopback"} {
		if err := os.WriteFile(filepath.Join(n.plugins(), name), fmt.Appendf(nil, cniPlugin, n.broken()), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(n.configs(), "10-lab.conflist"), []byte(cniConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/run/netns", "/var/lib/cni", "/var/lib/cni/cache", "/var/lib/cni/results"} { // made by the runtime
		if !exists(dir) {
			t.Cleanup(func() { os.Remove(dir) })
		}
	}
	return n
}

func (n *CNI) plugins() string { return filepath.Join(n.dir, "bin") }
func (n *CNI) configs() string { return filepath.Join(n.dir, "net.d") }
func (n *CNI) broken() string  { return filepath.Join(n.dir, "broken") }

// Break makes every deletion fail until Heal, or until the test ends.
func (n *CNI) Break(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(n.broken(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Heal)
}

// Heal lets deletions succeed again.
func (n *CNI) Heal() { os.Remove(n.broken()) }
