package procfs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hosttest"
)

// tail holds the fields 6 to 19 of a stat line as Linux 6.1 writes them.
const tail = "4711 4711 0 -1 4194560 158 0 0 0 12 3 0 0 20 0"

// rest holds what follows the start time.
const rest = "4579328 228 18446744073709551615 94223 94845 140732 0 0 0 0 4096 65536 0 0 0 17 1 0 0 0 0 0\n"

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, line string
		want       Stat
	}{
		{"plain", "4711 (nginx) S 1 " + tail + " 5 0 12345 " + rest, Stat{4711, "nginx", 'S', 1, 5, 12345, false}},
		{"zombie", "4712 (sh) Z 4711 " + strings.Replace(tail, "4194560", "4194564", 1) + " 1 0 99 0 0 18446744073709551615 0 0 0 0 0 0 0 0\n", Stat{4712, "sh", 'Z', 4711, 1, 99, true}},
		{"ends at the start time", "4711 (sh) R 1 " + tail + " 1 0 12345", Stat{4711, "sh", 'R', 1, 1, 12345, false}},
		{"spaces", "4711 (tmux: server 1) S 1 " + tail + " 1 0 7 " + rest, Stat{4711, "tmux: server 1", 'S', 1, 1, 7, false}},
		{"parentheses", "4711 ((sd-pam)) S 1 " + tail + " 1 0 7 " + rest, Stat{4711, "(sd-pam)", 'S', 1, 1, 7, false}},
		{"a stat line for a name", "4711 (a) Z 9 9 (b) S 1 " + tail + " 1 0 7 " + rest, Stat{4711, "a) Z 9 9 (b", 'S', 1, 1, 7, false}},
		{"newline", "4711 (a\nb) D 1 " + tail + " 1 0 7 " + rest, Stat{4711, "a\nb", 'D', 1, 1, 7, false}},
		{"no name", "4711 () S 1 " + tail + " 1 0 7 " + rest, Stat{4711, "", 'S', 1, 1, 7, false}},
		{"kernel thread", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 16 0 0 20 0 1 0 3 0 0 18446744073709551615\n", Stat{2, "kthreadd", 'S', 0, 1, 3, false}},
		{"negative priority", "18 (migration/0) S 2 0 0 0 -1 69238848 0 0 0 0 0 4 0 0 -100 0 1 0 5 0 0\n", Stat{18, "migration/0", 'S', 2, 1, 5, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseStat([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseStatBroken(t *testing.T) {
	tests := map[string]string{
		"":                              "no comm in parentheses",
		"4711":                          "no comm in parentheses",
		"4711 (nginx":                   "no comm in parentheses",
		"4711 )nginx( S 1":              "no comm in parentheses",
		"(nginx) S 1":                   "no comm in parentheses",
		"4711 (nginx)":                  "no comm in parentheses",
		"4711 (nginx) S":                "no comm in parentheses",
		"x (nginx) S 1 " + tail:         "no pid",
		"-1 (nginx) S 1 " + tail:        "no pid",
		"4711 (nginx) S 1 " + tail:      "field 20 is no number",
		"4711 (nginx) S -1 " + tail:     "field 4 is no number",
		"4711 (n) S 1 " + tail + " 1 0": "field 22 is no number",
		"4711 (n) S 1 " + tail + " 1 0 " + strings.Repeat("9", 19): "field 22 is no number",
	}
	for line, want := range tests {
		if s, err := ParseStat([]byte(line)); err == nil || err.Error() != "stat: "+want {
			t.Errorf("%q: %+v, %v; want %s", line, s, err, want)
		}
	}
}

func TestAge(t *testing.T) {
	if got := (Stat{Start: 12345}).Age(300 * time.Second); got != 176550*time.Millisecond {
		t.Errorf("started at 123.45 s, now 300 s: %v", got)
	}
}

func statLine(pid int, comm string) string {
	return fmt.Sprintf("%d (%s) S 1 %s 1 0 7 %s", pid, comm, tail, rest)
}

func TestEachStat(t *testing.T) {
	tree := hosttest.Tree{
		"proc/1/stat":      statLine(1, "systemd"),
		"proc/20/stat":     statLine(20, "kubelet"),
		"proc/300/stat":    statLine(300, "pause"),
		"proc/301/stat":    "\x00 no stat",
		"proc/4000/":       "", // ended between the listing and the read
		"proc/50/stat":     "", // ended while it was read
		"proc/loadavg":     "0.00 0.01 0.05 1/3 300\n",
		"proc/irq/stat":    statLine(7, "no process"),
		"proc/0/stat":      statLine(0, "no process"),
		"proc/self":        "-> 1",
		"outside":          statLine(60, "link"),
		"proc/60/stat":     "-> ../../outside",
		"proc/sys/fs/stat": "",
	}
	h := tree.Open(t)
	collect := func(enough int) (names []string) {
		t.Helper()
		err := EachStat(h, func(s Stat) bool {
			names = append(names, s.Comm)
			return len(names) < enough
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		return names
	}
	if diff := cmp.Diff([]string{"kubelet", "pause", "systemd"}, collect(100)); diff != "" {
		t.Error(diff)
	}
	if got := collect(1); len(got) != 1 {
		t.Errorf("visited %q after the visit said enough", got)
	}
}

func TestEachStatManyProcesses(t *testing.T) {
	tree := hosttest.Tree{}
	for pid := 1; pid <= 1500; pid++ {
		tree[fmt.Sprintf("proc/%d/stat", pid)] = statLine(pid, "p")
	}
	seen := map[int]bool{}
	err := EachStat(tree.Open(t), func(s Stat) bool {
		seen[s.PID] = true
		return true
	})
	if err != nil || len(seen) != 1500 {
		t.Errorf("saw %d of 1500 processes, %v", len(seen), err)
	}
}

func TestEachStatWithoutProcesses(t *testing.T) {
	visit := func(Stat) bool { t.Error("visited a process that is not there"); return true }
	h := hosttest.Tree{"proc/loadavg": "0 0 0 1/2 3\n"}.Open(t)
	if err := EachStat(h, visit); err == nil || !strings.Contains(err.Error(), "mount the host's /proc there") {
		t.Errorf("a /proc without processes: %v", err)
	}
	h = hosttest.Tree{"proc/1/stat": "\x00\xff"}.Open(t)
	if err := EachStat(h, visit); err == nil || !strings.Contains(err.Error(), "1 stat files in ") {
		t.Errorf("a /proc of garbage: %v", err)
	}
	if err := EachStat(hosttest.Tree{}.Open(t), visit); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no /proc: %v", err)
	}
}

func TestTasks(t *testing.T) {
	tests := []struct {
		loadavg string
		want    int // 0 for an error
	}{
		{"0.20 0.38 0.41 2/744 32012\n", 744},
		{"12.20 11.04 9.31 3/31744 32012", 31744},
		{"0.00 0.00 0.00 0/1 1\n", 1},
		{"", 0},
		{"0.20 0.38 0.41\n", 0},
		{"0.20 0.38 0.41 744 32012\n", 0},
		{"0.20 0.38 0.41 2/ 32012\n", 0},
		{"0.20 0.38 0.41 2/0 32012\n", 0},
		{"0.20 0.38 0.41 2/-5 32012\n", 0},
		{"0.20 0.38 0.41 2/4294967296 32012\n", 0},
		{"\x00\xff\n", 0},
	}
	for _, tt := range tests {
		n, err := Tasks(hosttest.Tree{"proc/loadavg": tt.loadavg}.Open(t))
		if n != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("%q: %d, %v; want %d", tt.loadavg, n, err, tt.want)
		}
	}
	if _, err := Tasks(hosttest.Tree{}.Open(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no loadavg: %v", err)
	}
}

func TestUptime(t *testing.T) {
	for content, want := range map[string]time.Duration{
		"1620.26 3021.58\n":  1620260 * time.Millisecond,
		"0.00 0.00\n":        0,
		"31536000.50 1.00\n": 31536000500 * time.Millisecond,
		"":                   -1,
		"-1.0 2.0\n":         -1,
		"NaN 0\n":            -1,
		"Inf 0\n":            -1,
		"1e30 0\n":           -1,
		"an hour or so\n":    -1,
	} {
		got, err := Uptime(hosttest.Tree{"proc/uptime": content}.Open(t))
		if (err != nil) != (want < 0) || err == nil && got.Round(time.Millisecond) != want {
			t.Errorf("%q: %v, %v; want %v", content, got, err, want)
		}
	}
	if _, err := Uptime(hosttest.Tree{}.Open(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no uptime: %v", err)
	}
}

func TestTaskLimit(t *testing.T) {
	const (
		hostNamespace = "Name:\ttask-limit\nPid:\t812\nNSpid:\t812\n"
		container     = "Name:\ttask-limit\nPid:\t812\nNSpid:\t812\t23\n"
	)
	tests := []struct {
		name                             string
		pidMax, threads, release, status string
		flag                             uint64
		want                             Limit
		foreign                          bool
	}{
		{"pid_max is less", "32768", "192730", "5.10.0-28-amd64", hostNamespace, 0, Limit{32768, "kernel.pid_max"}, false},
		{"threads-max is less", "4194304", "30832", "5.10.0-28-amd64", hostNamespace, 0, Limit{30832, "kernel.threads-max"}, false},
		{"both the same", "30832", "30832", "5.10.0-28-amd64", hostNamespace, 0, Limit{30832, "kernel.pid_max"}, false},
		{"6.12 in a container", "32768", "192730", "6.12.43+deb13-amd64", container, 0, Limit{32768, "kernel.pid_max"}, false},
		{"6.13 in a container", "32768", "192730", "6.13.0", container, 0, Limit{32768, "kernel.pid_max"}, false},
		{"6.14 in a container", "4194304", "192730", "6.14.0-rc1", container, 0, Limit{192730, "kernel.threads-max"}, true},
		{"7.0 in a container", "4194304", "192730", "7.0.3", container, 0, Limit{192730, "kernel.threads-max"}, true},
		{"6.14 with hostPID", "32768", "192730", "6.14.0", hostNamespace, 0, Limit{32768, "kernel.pid_max"}, false},
		{"6.14 in a container, told", "4194304", "192730", "6.14.0", container, 32768, Limit{32768, "kernel.pid_max"}, false},
		{"told more than threads-max", "4194304", "1000", "6.14.0", container, 32768, Limit{1000, "kernel.threads-max"}, false},
		{"status without NSpid (before 4.1)", "32768", "192730", "3.10.0-1160.el7.x86_64", "Name:\tx\n", 0, Limit{32768, "kernel.pid_max"}, false},
		{"unreadable release", "32768", "192730", "tomorrow", container, 0, Limit{32768, "kernel.pid_max"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := hosttest.Tree{
				"proc/sys/kernel/pid_max":     tt.pidMax + "\n",
				"proc/sys/kernel/threads-max": tt.threads + "\n",
				"proc/sys/kernel/osrelease":   tt.release + "\n",
				"proc/812/status":             tt.status,
				"proc/self":                   "-> 812",
			}.Open(t)
			got, err := TaskLimit(h, tt.flag)
			if got != tt.want || errors.Is(err, ErrForeignNamespace) != tt.foreign || err != nil && !tt.foreign {
				t.Errorf("got %+v, %v; want %+v, foreign %v", got, err, tt.want, tt.foreign)
			}
		})
	}
}

func TestDefaultPIDMax(t *testing.T) {
	for possible, want := range map[string]uint64{
		"0\n": 32768, "0-31\n": 32768, "0-63\n": 65536, "0-63,128-191\n": 131072, "": 32768, "0-\n": 32768, "63-0\n": 32768, "0-65536\n": 32768, "many\n": 32768,
	} {
		if got := DefaultPIDMax(hosttest.Tree{"sys/devices/system/cpu/possible": possible}.Open(t)); got != want {
			t.Errorf("%q: %d, want %d", possible, got, want)
		}
	}
	if got := DefaultPIDMax(hosttest.Tree{}.Open(t)); got != 32768 {
		t.Errorf("without /sys: %d", got)
	}
}

func TestOwnPID(t *testing.T) {
	for status, want := range map[string]uint64{
		"Name:\tx\nNSpid:\t812\t23\n": 812, "Name:\tx\nNSpid:\t812\n": 812, "Name:\tx\n": 0, "NSpid:\n": 0, "NSpid:\tx\n": 0,
	} {
		if got := OwnPID(hosttest.Tree{"proc/self": "-> 9", "proc/9/status": status}.Open(t)); got != want {
			t.Errorf("%q: %d, want %d", status, got, want)
		}
	}
}

func TestTaskLimitNotReadable(t *testing.T) {
	for name, tree := range map[string]hosttest.Tree{
		"pid_max is missing":     {"proc/sys/kernel/threads-max": "1000\n"},
		"threads-max is missing": {"proc/sys/kernel/pid_max": "1000\n"},
		"pid_max is garbage":     {"proc/sys/kernel/threads-max": "1000\n", "proc/sys/kernel/pid_max": "many\n"},
		"pid_max is 0":           {"proc/sys/kernel/threads-max": "1000\n", "proc/sys/kernel/pid_max": "0\n"},
		"threads-max is max":     {"proc/sys/kernel/threads-max": "max\n", "proc/sys/kernel/pid_max": "1000\n"},
	} {
		file, _, _ := strings.Cut(name, " ")
		if l, err := TaskLimit(tree.Open(t), 0); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

func TestProcess(t *testing.T) {
	h := hosttest.Tree{
		"proc/7/stat":   statLine(7, "runc:[2:INIT]"),
		"proc/7/wchan":  "pipe_write",
		"proc/7/status": "Name:\trunc:[2:INIT]\nUmask:\t0022\nUid:\t1000\t0\t0\t0\nGid:\t0\t0\t0\t0\n",
		"proc/7/cgroup": "0::/kubepods\n",
		"proc/7/fd/0":   "-> /dev/null",
		"proc/7/fd/1":   "-> pipe:[100]",
		"proc/7/fd/2":   "-> pipe:[100]",
		"proc/7/fd/3":   "-> pipe:[200]",
		"proc/7/fd/4":   "-> socket:[300]",
		"proc/7/fd/5":   "-> /run/pipe:[400]",
		"proc/20/wchan": "0",
		"proc/20/stack": "[<0>] pipe_wait+0x6f/0xb0\n[<0>] pipe_write+0x2f/0x5c0\n",
		"proc/21/stack": "[<ffffffff8116a1f1>] wait_for_partner+0x31/0x70\n[<ffffffffffffffff>] 0xffffffffffffffff\n",
		"proc/22/wchan": "0",
		"proc/22/stack": "",
		"proc/23/wchan": "0",
		"proc/23/stack": "[<0>] 0xffffffffffffffff\n",
		"proc/8/stat":   "garbage",
		"proc/8/wchan":  "0",
		"proc/8/status": "Name:\tx\n",
		"proc/9/status": "Uid:\n",
	}.Open(t)

	p := Of(h, 7)
	if s, err := p.Stat(); err != nil || s.Comm != "runc:[2:INIT]" {
		t.Errorf("Stat: %+v, %v", s, err)
	}
	for pid, want := range map[int]string{7: "pipe_write", 20: "pipe_wait", 21: "wait_for_partner", 22: "", 23: ""} {
		if w := Of(h, pid).WaitChannel(); w != want {
			t.Errorf("WaitChannel of %d: %q, want %q", pid, w, want)
		}
	}
	if uid, err := p.UID(); err != nil || uid != 1000 {
		t.Errorf("UID: %d, %v", uid, err)
	}
	if b, err := p.Cgroups(); err != nil || string(b) != "0::/kubepods\n" {
		t.Errorf("Cgroups: %q, %v", b, err)
	}
	if n, err := p.Pipes(); err != nil || n != 2 {
		t.Errorf("Pipes: %d, %v; want 2, of which one is held at both ends", n, err)
	}

	if _, err := Of(h, 8).Stat(); err == nil {
		t.Error("a garbage stat was read")
	}
	if w := Of(h, 8).WaitChannel(); w != "" {
		t.Errorf("wait channel 0: %q, want none", w)
	}
	for _, pid := range []int{8, 9, 10} {
		if uid, err := Of(h, pid).UID(); err == nil {
			t.Errorf("UID %d of a status without one", uid)
		}
	}
	if w := Of(h, 10).WaitChannel(); w != "" {
		t.Errorf("wait channel of no process: %q", w)
	}
	if _, err := Of(h, 10).Pipes(); !host.Gone(err) {
		t.Errorf("pipes of no process: %v", err)
	}
}

// The test's own process on the real /proc.
func TestOwnProcess(t *testing.T) {
	h := hosttest.Open(t, "/")
	self := Of(h, os.Getpid())
	s, err := self.Stat()
	if err != nil {
		t.Skipf("no /proc of this process: %v", err)
	}
	if s.PID != os.Getpid() || s.PPID != os.Getppid() || s.Threads < 1 {
		t.Errorf("stat %+v of pid %d, parent %d", s, os.Getpid(), os.Getppid())
	}
	if uid, err := self.UID(); err != nil || uid != os.Getuid() {
		t.Errorf("uid %d, %v; want %d", uid, err, os.Getuid())
	}
	before, err := self.Pipes()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
	}
	if after, err := self.Pipes(); err != nil || after != before+3 {
		t.Errorf("%d pipes, %v; want %d and 3 more", after, err, before)
	}
	seen := false
	if err := EachStat(h, func(s Stat) bool {
		seen = seen || s.PID == os.Getpid()
		return true
	}); err != nil || !seen {
		t.Errorf("this process is not among all: %v", err)
	}
	if n, err := Tasks(h); err != nil || n < 2 {
		t.Errorf("%d tasks, %v", n, err)
	}
}
