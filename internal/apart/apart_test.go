package apart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host/hosttest"
)

func TestMain(m *testing.M) {
	Serve()
	os.Exit(m.Run())
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestStatfs(t *testing.T) {
	h := hosttest.Tree{"var/lib/kubelet/": "", "run/escape": "-> /proc", "run/link": "-> ../var/lib"}.Open(t)
	got, err := Statfs(soon(t), h, []string{"/var/lib/kubelet", "/var/lib/absent", "/run/escape", "/run/link"})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(h.Path("/"), &st); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(h.Path("/"), &stat); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 3} {
		if got[i].Err != nil || got[i].Device != stat.Dev || got[i].Size != st.Blocks*uint64(st.Frsize) || got[i].Inodes != st.Files || got[i].Available == 0 || got[i].Free < got[i].Available || got[i].InodesFree == 0 {
			t.Errorf("path %d: %+v, want that of %+v", i, got[i], st)
		}
	}
	if !errors.Is(got[1].Err, os.ErrNotExist) || !strings.Contains(got[1].Err.Error(), h.Path("/var/lib/absent")) {
		t.Errorf("a missing path: %v", got[1].Err)
	}
	if !errors.Is(got[2].Err, os.ErrNotExist) {
		t.Errorf("a symlink to what only the reader has: %v", got[2].Err)
	}
}

func TestStatfsOfRelativeRoot(t *testing.T) {
	dir := t.TempDir()
	hosttest.Tree{"root/data/": ""}.Write(t, dir)
	t.Chdir(dir)
	got, err := Statfs(soon(t), hosttest.Open(t, "root"), []string{"/data"})
	if err != nil || got[0].Err != nil || got[0].Size == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A FIFO without a writer is what a process can hang on and still be killed: it is, and the next question can be asked.
func TestStatfsHangs(t *testing.T) {
	h := hosttest.Tree{"data/": ""}.Open(t)
	if err := unix.Mkfifo(h.Path("/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	got, err := Statfs(ctx, h, []string{"/fifo", "/data"})
	if err != nil || !errors.Is(got[0].Err, ErrHangs) || got[1].Err != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child is left: %v", err)
	}
	if got, err := Statfs(soon(t), h, []string{"/data"}); err != nil || got[0].Err != nil {
		t.Errorf("the next question: %+v, %v", got, err)
	}
}

func TestOneAtATime(t *testing.T) {
	h := hosttest.Tree{"data/": ""}.Open(t)
	held, err := acquire(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := Statfs(soon(t), h, []string{"/data"}); !errors.Is(err, ErrStuck) {
		t.Errorf("while the lock is held: %v", err)
	}
	if took := time.Since(began); took < patience || took > 5*patience {
		t.Errorf("said so after %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began = time.Now()
	if _, err := Statfs(ctx, h, []string{"/data"}); !errors.Is(err, ErrStuck) || time.Since(began) >= patience {
		t.Errorf("without time: %v after %v", err, time.Since(began))
	}
	time.AfterFunc(patience/10, func() { held.Close() })
	if _, err := Statfs(soon(t), h, []string{"/data"}); err != nil {
		t.Errorf("after the lock was given back: %v", err)
	}
}

// The process apart has nothing of the check's but the pipe and the lock, and stands elsewhere.
func TestProcessApart(t *testing.T) {
	h := hosttest.Tree{"data/": ""}.Open(t)
	if err := unix.Mkfifo(h.Path("/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := Statfs(ctx, h, []string{"/fifo"})
		done <- err
	}()
	var dir string
	for deadline := time.Now().Add(10 * time.Second); dir == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no process apart")
		}
		comms, _ := filepath.Glob("/proc/[0-9]*/comm")
		for _, path := range comms {
			status, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
			if comm, _ := os.ReadFile(path); string(comm) == statfsName+"\n" && strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid())) {
				dir = filepath.Dir(path)
			}
		}
	}
	for fd, want := range []string{os.DevNull, os.DevNull, os.DevNull, "pipe:", executableOf(t)} {
		if got, err := os.Readlink(filepath.Join(dir, "fd", string(rune('0'+fd)))); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("descriptor %d is %s, %v; want %s", fd, got, err, want)
		}
	}
	if got, err := os.Readlink(filepath.Join(dir, "cwd")); got != "/" {
		t.Errorf("works in %s, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func executableOf(t *testing.T) string {
	t.Helper()
	path, err := os.Readlink(executable)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadNames(t *testing.T) {
	h := hosttest.Tree{"var/log/pods/a_b_c/": "", "var/log/pods/d e\n/": "", "var/log/empty/": "", "var/log/file": "x"}.Open(t)
	names, err := ReadNames(soon(t), h, "/var/log/pods", 10)
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"a_b_c", "d e\n"}) {
		t.Errorf("%q, %v", names, err)
	}
	if names, err := ReadNames(soon(t), h, "/var/log/pods", 1); err != nil || len(names) != 1 {
		t.Errorf("%q, %v; want one of two", names, err)
	}
	if names, err := ReadNames(soon(t), h, "/var/log/empty", 10); err != nil || len(names) != 0 {
		t.Errorf("of an empty directory: %q, %v", names, err)
	}
	if _, err := ReadNames(soon(t), h, "/var/log/absent", 10); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), h.Path("/var/log/absent")) {
		t.Errorf("of a missing directory: %v", err)
	}
	if _, err := ReadNames(soon(t), h, "/var/log/file", 10); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("of a file: %v", err)
	}
}

func TestLargest(t *testing.T) {
	h := hosttest.Tree{
		"var/log/app/old/big":   strings.Repeat("x", 3<<20),
		"var/log/other":         strings.Repeat("x", 64<<10),
		"var/lib/kubelet/pods/": "", "var/lib/kubelet/pods/uid/data": strings.Repeat("x", 5<<20),
		"home/link": "-> /var/lib/kubelet/pods/uid",
	}.Open(t)
	for i := range 200 {
		hosttest.Tree{fmt.Sprintf("var/spool/%d", i): ""}.Write(t, h.Path("/"))
	}
	tree := Tree{Dir: "/var/lib/kubelet", Starts: []string{"/", "/var", "/absent"}, Skip: []string{"/var/lib/kubelet/pods"}}
	got, err := Largest(soon(t), h, tree)
	if err != nil || len(got) < 2 || got[0].Path != "/var/log/app" || got[0].Bytes < 3<<20 || got[0].Bytes > 4<<20 {
		t.Fatalf("%+v, %v", got, err)
	}
	spool := func(d Directory) bool { return d.Path == "/var/spool" && d.Inodes == 200 }
	if !slices.ContainsFunc(got, spool) {
		t.Errorf("no directory with 200 inodes: %+v", got)
	}
	for _, d := range got {
		if strings.HasPrefix(d.Path, "/var/lib/kubelet/pods") {
			t.Errorf("looked into what it should leave out: %+v", d)
		}
	}
}

// What is mounted below the node's directories is not touched: a dead server there would hold up every later question.
func TestLargestLeavesOutMounts(t *testing.T) {
	h := hosttest.Tree{"srv/dead/big": strings.Repeat("x", 1<<20), "srv/link/small": "x", "var/log/pods/uid": "x", "var/lib/kubelet/big": strings.Repeat("x", 1<<20)}.Open(t)
	here, elsewhere := [2]uint32{254, 0}, [2]uint32{0, 77}
	mounted := mounts{"/": here, "/srv/dead": elsewhere, "/var/log/pods": elsewhere, "/var/lib": here}
	tree := Tree{Dir: "/var/lib/kubelet", Starts: []string{"/", "/var/lib", "/var/log/pods"}}
	var paths []string
	for _, d := range tree.walk(h, mounted) {
		paths = append(paths, d.Path)
	}
	slices.Sort(paths)
	want := []string{"/", "/srv", "/srv/link", "/var", "/var/lib", "/var/lib/kubelet"} // of /var/log all is mounted
	if !slices.Equal(paths, want) {
		t.Errorf("looked at %v, want %v", paths, want)
	}
}

func TestShortPath(t *testing.T) {
	for _, tt := range [][3]string{
		{"/", "/", "/"}, {"/", "/var/log", "/var/log"}, {"/", "/var/log/app/old/1", "/var/log/app"},
		{"/var/lib/kubelet", "/var/lib/kubelet", "/var/lib/kubelet"}, {"/var/lib/kubelet", "/var/lib/kubelet/a/b/c/d", "/var/lib/kubelet/a/b/c"},
		{"/var/lib", "/var/log/pods/x/y", "/var/log/pods"},
	} {
		if got := shortPath(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%s of %s: %s, want %s", tt[1], tt[0], got, tt[2])
		}
	}
}
