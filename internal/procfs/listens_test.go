package procfs

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"npd-plugins/internal/host/hosttest"
)

func TestParseUnix(t *testing.T) {
	got := parseUnix([]byte(`Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000003 00000000 00000000 0001 03 21 /run/systemd/journal/stdout
0000000000000000: 00000002 00000000 00010000 0001 01 22 /run/containerd/containerd.sock
ffff8881: 00000002 00000000 00010000 0005 01 23 /run/udev/control
0000000000000000: 00000002 00000000 00010000 0001 01 24 @/containerd-shim/a b.sock
0000000000000000: 00000002 00000000 00010000 0001 01 25
0000000000000000: 00000002 00000000 00000000 0002 01 26 /run/systemd/notify
garbage
`))
	if len(got) != 2 || got["22"] != "/run/containerd/containerd.sock" || got["24"] != "@/containerd-shim/a b.sock" {
		t.Errorf("%q", got)
	}
}

func FuzzParseUnix(f *testing.F) {
	f.Add([]byte("0000000000000000: 00000002 00000000 00010000 0001 01 22 /run/containerd/containerd.sock\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for inode, path := range parseUnix(b) {
			if inode == "" || path == "" {
				t.Errorf("%q listens at %q", inode, path)
			}
		}
	})
}

func TestListens(t *testing.T) {
	at := filepath.Join(t.TempDir(), "x.sock")
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	self := Of(hosttest.Open(t, "/"), os.Getpid())
	if paths, err := self.Listens(); err != nil || !slices.Contains(paths, at) {
		t.Errorf("listens at %q, %v; want %s among them", paths, err, at)
	}
	l.Close()
	if paths, err := self.Listens(); err != nil || slices.Contains(paths, at) {
		t.Errorf("listens at %q, %v, after it was closed", paths, err)
	}
	if !self.HostsNamespace() {
		t.Error("this process is not in its own PID namespace")
	}
	if cpu, err := self.CPU(); err != nil || cpu < 0 {
		t.Errorf("CPU %v, %v", cpu, err)
	}
	if exe, err := self.Executable(); err != nil || exe == "" {
		t.Errorf("executable %q, %v", exe, err)
	}
}

func TestHostsNamespace(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nNSpid:\t812\n": true, "Name:\tx\nNSpid:\t812\t1\n": false, "Name:\tx\n": true, "NSpid:\n": false,
	} {
		if got := Of(hosttest.Tree{"proc/812/status": status}.Open(t), 812).HostsNamespace(); got != want {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
	if Of(hosttest.Tree{"proc/1/": ""}.Open(t), 812).HostsNamespace() {
		t.Error("a process that is not there is in the host's namespace")
	}
}

func TestCPU(t *testing.T) {
	stat := "812 (a) 9 9) S 1 1 1 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 20 0 4000 0 0 18446744073709551615 0 0\n"
	for content, want := range map[string]string{stat: "2s", "812 (x) S 1": "", "": ""} {
		cpu, err := Of(hosttest.Tree{"proc/812/stat": content}.Open(t), 812).CPU()
		if (err == nil) != (want != "") || err == nil && cpu.String() != want {
			t.Errorf("%q: %v, %v; want %s", content, cpu, err, want)
		}
	}
}
