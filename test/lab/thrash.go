package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Thrasher is a process that needs more memory than it gets: it keeps reading all pages of a file that it has mapped as
// executable, as a program does with its own code, beside memory of its own. To make room the kernel takes pages of the
// file away, and each has to be read from the disk again at once.
//
// Executable matters: the kernel counts such pages among the working set, and to wait for a page of the working set is
// memory pressure, to wait for any other one is not.
type Thrasher struct {
	Pid int

	cmd    *exec.Cmd
	orders io.WriteCloser
}

// thrashWorkers is how many threads read the file.
const thrashWorkers = 8

// StartThrasher starts a process that will read the file, hold that many bytes of its own, and take grow more every
// second. It touches nothing of that before Begin, so that it can be put into a cgroup. It is killed when the test ends.
// The test binary's TestMain must call RunCulprit.
func StartThrasher(t testing.TB, file string, held, grow int) *Thrasher {
	t.Helper()
	th := &Thrasher{cmd: self("thrash")}
	th.cmd.Args = []string{th.cmd.Path, file, strconv.Itoa(held), strconv.Itoa(grow)}
	th.cmd.Env = append(th.cmd.Env, "GOMAXPROCS="+strconv.Itoa(thrashWorkers+1)) // a page fault keeps its processor
	var err error
	if th.orders, err = th.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := th.cmd.Start(); err != nil {
		t.Fatalf("start a process that thrashes: %v", err)
	}
	th.Pid = th.cmd.Process.Pid
	t.Cleanup(th.Stop)
	return th
}

// Begin makes it read, hold and grow.
func (th *Thrasher) Begin(t testing.TB) {
	t.Helper()
	if _, err := fmt.Fprintln(th.orders, "begin"); err != nil {
		t.Fatalf("the process that thrashes is gone: %v", err)
	}
}

// Stop kills it and returns when it is gone.
func (th *Thrasher) Stop() {
	th.cmd.Process.Kill()
	th.cmd.Wait()
}

// Killed returns when the process was killed by somebody else, the OOM killer say, or says that it was not within limit.
func (th *Thrasher) Killed(limit time.Duration) error {
	ended := make(chan error, 1)
	go func() { ended <- th.cmd.Wait() }()
	select {
	case err := <-ended:
		if status, ok := th.cmd.ProcessState.Sys().(interface{ Signaled() bool }); !ok || !status.Signaled() {
			return fmt.Errorf("it ended otherwise: %v", err)
		}
		return nil
	case <-time.After(limit):
		return errors.New("it runs on")
	}
}

// thrash does what StartThrasher says. args are the file, and the bytes to hold and to grow by.
func thrash(args []string) error {
	held, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	grow, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err // the test is over
	}
	// When the whole machine runs out of memory, let it be this process that is killed.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return err
	}
	pages, err := mapExecutable(args[0])
	if err != nil {
		return err
	}
	if err := take(held); err != nil {
		return err
	}
	for range thrashWorkers {
		go func() {
			for {
				touched.Add(uint32(pages[rand.IntN(len(pages)/4096)*4096]))
			}
		}()
	}
	for range time.Tick(time.Second) {
		if err := take(grow); err != nil {
			return err
		}
	}
	return nil
}

// touched keeps the compiler from leaving the reads out.
var touched atomic.Uint32

// mapExecutable maps a file or a block device whole. Random access keeps the kernel from reading ahead.
func mapExecutable(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd) // a block device has no size in stat
	if err != nil {
		return nil, err
	}
	pages, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return pages, unix.Madvise(pages, unix.MADV_RANDOM)
}

// take takes bytes of memory for good.
func take(bytes int) error {
	if bytes == 0 {
		return nil
	}
	memory, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("take memory: %w", err)
	}
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	return nil
}

// ColdFile makes a file of zeros of that size in dir, on the disk and not in the page cache: pages that are there stay
// charged to whoever wrote them.
func ColdFile(t testing.TB, dir string, size int) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "cold"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for left, zeros := size, make([]byte, 1<<20); left > 0; left -= len(zeros) {
		if _, err := f.Write(zeros[:min(left, len(zeros))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// LimitMemory sets the most memory that the group can have, in bytes, or skips the test where the kernel has no memory
// controller.
func (c *Cgroup) LimitMemory(t testing.TB, bytes int) {
	t.Helper()
	for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
		if dir, err := c.dirWith(file); err == nil {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(bytes)), 0); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Skipf("needs the memory cgroup controller: none under %s", cgroupRoot)
}

// SlowReads lets the processes of the group read only that many times a second from the disk that has the file, as the
// disks of small cloud machines do. It needs cgroup v2 with the io controller.
func (c *Cgroup) SlowReads(t testing.TB, file string, perSecond int) {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(file, &stat); err != nil {
		t.Fatal(err)
	}
	passOnIO(c.dirs[0])
	limit := fmt.Sprintf("%d:%d riops=%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), perSecond)
	if err := os.WriteFile(filepath.Join(c.dirs[0], "io.max"), []byte(limit), 0); err != nil {
		t.Fatalf("slow the disk of %s: %v", file, err)
	}
}
