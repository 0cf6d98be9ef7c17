package procfs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/host/hosttest"
)

func TestParseMount(t *testing.T) {
	tests := []struct {
		name, line string
		want       Mount
	}{
		{"3.10", "17 38 0:16 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw", Mount{0, 16, "/", "/sys", "rw,nosuid,nodev,noexec,relatime", "sysfs", "sysfs", "rw"}},
		{"no optional field", "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard", Mount{254, 0, "/", "/", "rw,relatime", "ext4", "/dev/vda", "rw,discard"}},
		{"two optional fields", "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:5 master:1 - ext3 /dev/root rw,errors=continue", Mount{98, 0, "/mnt1", "/mnt2", "rw,noatime", "ext3", "/dev/root", "rw,errors=continue"}},
		{"blanks", `90 27 0:45 / /mnt/a\040b\134c rw - fuse.s3fs my\040bucket\011x rw,user_id=0`, Mount{0, 45, "/", `/mnt/a b\c`, "rw", "fuse.s3fs", "my bucket\tx", "rw,user_id=0"}},
		{"no source", "91 27 0:46 / /run rw - tmpfs  rw,size=5k", Mount{0, 46, "/", "/run", "rw", "tmpfs", "", "rw,size=5k"}},
		{"large device numbers", "92 27 259:1048575 / /data rw - xfs /dev/nvme9n1p1 rw", Mount{259, 1048575, "/", "/data", "rw", "xfs", "/dev/nvme9n1p1", "rw"}},
		{"a dash for a name", "93 27 8:1 / /- rw - ext4 - rw", Mount{8, 1, "/", "/-", "rw", "ext4", "-", "rw"}},
		{"a broken escape", `94 27 8:1 / /a\04 rw - ext4 \9 rw`, Mount{8, 1, "/", `/a\04`, "rw", "ext4", `\9`, "rw"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseMount([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, line := range []string{"", "\x00", "1 2 3:4 / / rw", "1 2 3:4 / / rw - ext4 /dev/sda1", "1 2 3 / / rw - ext4 x rw", "1 2 a:b / / rw - ext4 x rw", "1 2 4294967296:1 / / rw - ext4 x rw", "1 2 3:4 / - ext4 x rw"} {
		if m, err := parseMount([]byte(line)); !errors.Is(err, ErrMountinfo) {
			t.Errorf("%q: %+v, %v", line, m, err)
		}
	}
}

func TestEachMount(t *testing.T) {
	var many strings.Builder
	many.WriteString("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
	fmt.Fprintf(&many, "28 27 0:50 / /merged rw - overlay overlay rw,lowerdir=%s\n", strings.Repeat("/var/lib/x:", 20000))
	for i := range 60000 { // more than a whole file may have elsewhere
		fmt.Fprintf(&many, "%d 27 0:%d / /run/netns/cni-%08d rw,nosuid,nodev,noexec,relatime shared:1234 - nsfs nsfs rw\n", i+30, i+60, i)
	}
	tests := []struct {
		name, file string
		mounts     int
		err        string
	}{
		{"many", many.String(), 60002, ""},
		{"empty", "", 0, "not what proc(5) describes"},
		{"garbage", "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\ngarbage\n", 1, "not what proc(5) describes"},
		{"one long line", strings.Repeat("7", 2<<20), 0, "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			err := EachMount(hosttest.Tree{"proc/1/mountinfo": tt.file}.Open(t), func(Mount) bool { n++; return true })
			if n != tt.mounts || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%d mounts, %v; want %d, %q", n, err, tt.mounts, tt.err)
			}
		})
	}
	if err := EachMount(hosttest.Tree{}.Open(t), func(Mount) bool { return true }); err == nil || !strings.Contains(err.Error(), "mount the host's /proc there") {
		t.Errorf("without a file: %v", err)
	}
	n := 0
	if err := EachMount(hosttest.Tree{"proc/1/mountinfo": many.String()}.Open(t), func(Mount) bool { n++; return n < 2 }); err != nil || n != 2 {
		t.Errorf("%d, %v; want to stop after two", n, err)
	}
}

func FuzzParseMount(f *testing.F) {
	for _, seed := range []string{"36 35 98:0 /mnt1 /mnt2 rw,noatime shared:5 master:1 - ext3 /dev/root rw", `90 27 0:45 / /a\040b rw - fuse.x a\134 rw`, "1 2 3:4 - - - - - - -", " - ", ""} {
		f.Add([]byte(seed))
	}
	escape := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMount(b)
		if err != nil {
			if m != (Mount{}) {
				t.Errorf("%+v beside the error %v", m, err)
			}
			return
		}
		// What was read, written as the kernel does, reads the same.
		line := fmt.Sprintf("1 2 %d:%d %s %s %s - %s %s %s", m.Major, m.Minor, escape.Replace(m.Root), escape.Replace(m.Point), m.Options, escape.Replace(m.Type), escape.Replace(m.Source), escape.Replace(m.SuperOptions))
		if strings.Contains(m.Options, " ") {
			t.Fatalf("options %q", m.Options)
		}
		again, err := parseMount([]byte(line))
		if err != nil || again != m {
			t.Errorf("%+v, %v; want %+v", again, err, m)
		}
	})
}
