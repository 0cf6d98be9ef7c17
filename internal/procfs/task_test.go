package procfs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hosttest"
)

func line(tid int, state byte, threads int) string {
	return fmt.Sprintf("%d (x) %c 1 %s %d 0 900 %s", tid, state, tail, threads, rest)
}

func TestEachBlocked(t *testing.T) {
	h := hosttest.Tree{
		"proc/1/stat":             line(1, 'S', 1),
		"proc/1/task/2/stat":      line(2, 'D', 1), // not looked at, as there is one thread only
		"proc/10/stat":            line(10, 'D', 1),
		"proc/20/stat":            line(20, 'D', 3),
		"proc/20/task/20/stat":    "broken, but proc/20/stat has it",
		"proc/20/task/21/stat":    line(21, 'S', 3),
		"proc/20/task/22/stat":    line(22, 'D', 3),
		"proc/30/stat":            line(30, 'Z', 2),
		"proc/30/task/31/stat":    line(31, 'D', 2),
		"proc/40/stat":            line(40, 'S', 5),
		"proc/40/task/41/stat":    "41 (x) D",
		"proc/40/task/42/stat":    "",
		"proc/40/task/43/stat":    ")",
		"proc/40/task/44/status":  "Name:\tended\n",
		"proc/50/stat":            "broken",
		"proc/60/stat":            line(60, 'S', 2), // its threads have ended meanwhile
		"proc/sys/kernel/pid_max": "32768\n",
	}.Open(t)
	var seen []string
	err := EachBlocked(context.Background(), h, func(pid int, s Stat) { seen = append(seen, fmt.Sprintf("%d of %d", s.PID, pid)) })
	slices.Sort(seen)
	if want := []string{"10 of 10", "20 of 20", "22 of 20", "31 of 30"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("%q, %v; want %q", seen, err, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := EachBlocked(ctx, h, func(int, Stat) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %v", err)
	}
	for want, tree := range map[string]hosttest.Tree{
		"mount the host's /proc there": {},
		"no process in":                {"proc/loadavg": ""},
		"1 stat files in":              {"proc/1/stat": "broken"},
	} {
		if err := EachBlocked(context.Background(), tree.Open(t), func(int, Stat) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The files of this thread, in the kernel that runs the test.
func TestThreadOfThisMachine(t *testing.T) {
	h, err := host.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	link, err := os.Readlink("/proc/thread-self")
	if err != nil {
		t.Skipf("needs Linux 3.17: %v", err)
	}
	tid, err := strconv.Atoi(link[strings.LastIndex(link, "/")+1:])
	if err != nil {
		t.Fatal(err)
	}
	p := Thread(h, os.Getpid(), tid)
	if s, err := p.Stat(); err != nil || s.PID != tid {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := p.Sleep(); err != nil || s.Switches == 0 || s.Dumping {
		t.Errorf("%+v, %v", s, err)
	}
	here, err := os.Getwd()
	if dir, err2 := p.WorkingDirectory(); err != nil || err2 != nil || dir != here {
		t.Errorf("%q, %v; want %q, %v", dir, err2, here, err)
	}
	if load, err := Load(h); err != nil || load > 10000 {
		t.Errorf("%v, %v", load, err)
	}
}

func TestStack(t *testing.T) {
	h := hosttest.Tree{
		"proc/1/stack": "[<0>] percpu_rwsem_wait+0x117/0x170\n[<0>] mnt_want_write+0x7e/0x90\n[<0>] entry_SYSCALL_64_after_hwframe+0x77/0x7f\n",
		// Linux 3.10 has the addresses and a last line of its own.
		"proc/2/stack": "[<ffffffffa0129f75>] jbd2_log_wait_commit+0xc5/0x140 [jbd2]\n[<ffffffffffffffff>] 0xffffffffffffffff\n",
		"proc/3/stack": "",
	}.Open(t)
	for pid, want := range map[int][]string{1: {"percpu_rwsem_wait", "mnt_want_write", "entry_SYSCALL_64_after_hwframe"}, 2: {"jbd2_log_wait_commit"}, 3: nil, 4: nil} {
		if got := Of(h, pid).Stack(); !slices.Equal(got, want) {
			t.Errorf("%d: %q, want %q", pid, got, want)
		}
	}
}

func FuzzSleep(f *testing.F) {
	for _, seed := range []string{
		"Name:\tdd\nState:\tD (disk sleep)\nCoreDumping:\t0\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t4\n",
		"CoreDumping:\t1\nvoluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t999999999999999999\n",
		"voluntary_ctxt_switches:\t-1\nnonvoluntary_ctxt_switches:\t4", "voluntary_ctxt_switches:\t1\n", "Name:\tvoluntary_ctxt_switches:\n", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSleep(b)
		if err != nil {
			if s != (Sleep{}) {
				t.Errorf("%+v beside the error %v", s, err)
			}
			return
		}
		dumping := "0"
		if s.Dumping {
			dumping = "1"
		}
		again, err := parseSleep(fmt.Appendf(nil, "CoreDumping:\t%s\nvoluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t0\n", dumping, s.Switches))
		if s.Switches < 1e18 && (err != nil || again != s) {
			t.Errorf("%+v, %v; want %+v", again, err, s)
		}
	})
}

func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"0.20 0.38 0.41 2/744 32012\n", "123.45 ", "-1 0", "nan 1", "inf 1", "1e400 1", "0x10 1", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		load, err := parseLoad(b)
		if math.IsNaN(load) || load < 0 || load > 1<<31 || err != nil && load != 0 {
			t.Errorf("%v, %v of %q", load, err, b)
		}
	})
}
