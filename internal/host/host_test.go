package host_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hosttest"
)

func TestOpenMissing(t *testing.T) {
	_, err := host.Open(filepath.Join(t.TempDir(), "absent"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "host root: ") {
		t.Errorf("got %v, want a host root that does not exist", err)
	}
}

func TestOpenNoDirectory(t *testing.T) {
	dir := t.TempDir()
	hosttest.Tree{"file": ""}.Write(t, dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "fifo"} {
		if _, err := host.Open(filepath.Join(dir, name)); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSymlinks(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	hosttest.Tree{
		"proc/4711/status":    "inside",
		"proc/self":           "-> 4711",
		"data/containerd/x":   "moved",
		"var/lib/containerd":  "-> /data/containerd",
		"proc/absolute":       "-> " + outside,
		"proc/dotdot":         "-> ../../" + strings.Repeat("../", 20) + outside[1:],
		"proc/out":            "-> " + filepath.Dir(outside),
		"proc/circle":         "-> circle",
		"run/containerd.sock": "-> ../proc/4711/status",
	}.Write(t, dir)
	look := func(t *testing.T, openat2 bool) {
		h := hosttest.Open(t, dir)
		for path, want := range map[string]string{"/proc/self/status": "inside", "/run/containerd.sock": "inside", "/var/lib/containerd/x": "moved"} {
			b, err := h.ReadFile(path)
			info, statErr := h.Stat(path)
			if path == "/var/lib/containerd/x" && !openat2 {
				if err == nil || statErr == nil {
					t.Errorf("an absolute link without openat2: %q, %v, %v", b, err, statErr)
				}
				continue
			}
			if err != nil || string(b) != want || statErr != nil || info.Size() != int64(len(want)) {
				t.Errorf("%s: %q, %v, %v", path, b, err, statErr)
			}
		}
		for _, path := range []string{"/proc/absolute", "/proc/dotdot", "/proc/out/secret", "/proc/../../" + outside, "/proc/circle", "/absent"} {
			if b, err := h.ReadFile(path); err == nil || !strings.Contains(err.Error(), h.Path(path)) {
				t.Errorf("%s leads nowhere in the root and gave %q, %v", path, b, err)
			}
			if _, err := h.Stat(path); err == nil || !strings.Contains(err.Error(), h.Path(path)) {
				t.Errorf("stat of %s, which leads nowhere in the root: %v", path, err)
			}
		}
		if link, err := h.Readlink("/proc/absolute"); err != nil || link != outside {
			t.Errorf("Readlink: %q, %v; want %q, not followed", link, err, outside)
		}
		for _, path := range []string{"/proc", "/proc/4711/status", "/absent"} {
			if link, err := h.Readlink(path); err == nil || !strings.Contains(err.Error(), h.Path(path)) {
				t.Errorf("Readlink of %s, which is none: %q, %v", path, link, err)
			}
		}
	}
	look(t, true)
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		t.Run("openat2 "+errno.Error(), func(t *testing.T) {
			withoutOpenat2(t, errno, func() { look(t, false) })
		})
	}
}

// withoutOpenat2 runs f on a thread whose openat2(2) fails so, as on Linux before 5.6 or under a seccomp filter that does
// not know it.
func withoutOpenat2(t *testing.T, errno unix.Errno, f func()) {
	done := make(chan error)
	go func() {
		var err error
		defer func() { done <- err }()
		runtime.LockOSThread() // the thread ends with the goroutine
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // seccomp_data.nr
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_OPENAT2},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
			if e != 0 {
				err = e
			}
		}
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Skipf("seccomp filter: %v", err)
	}
}

func TestReadFile(t *testing.T) {
	h := hosttest.Tree{
		"whole":  strings.Repeat("x", 4<<20),
		"large":  strings.Repeat("x", 4<<20+1),
		"a/file": "in a",
	}.Open(t)
	if b, err := h.ReadFile("/whole"); err != nil || len(b) != 4<<20 {
		t.Errorf("4 MiB: %d bytes, %v", len(b), err)
	}
	if _, err := h.ReadFile("/large"); err == nil || !strings.Contains(err.Error(), "more than 4194304 bytes") {
		t.Errorf("more than 4 MiB: %v", err)
	}
	if b, err := h.ReadFile("/a//file"); err != nil || string(b) != "in a" {
		t.Errorf("two slashes: %q, %v", b, err)
	}
	if _, err := h.ReadFile("/a"); err == nil {
		t.Error("read a directory as a file")
	}
	if _, err := h.ReadFile("/absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func TestReadUint(t *testing.T) {
	tests := []struct {
		content string
		n       uint64
		ok      bool
		err     string
	}{
		{content: "32768\n", n: 32768, ok: true},
		{content: "0", ok: true},
		{content: " 7 \n", n: 7, ok: true},
		{content: "18446744073709551615\n", n: 1<<64 - 1, ok: true},
		{content: "max\n"},
		{content: "18446744073709551616\n", err: `"18446744073709551616" is no number`},
		{content: "", err: `"" is no number`},
		{content: "-1\n", err: `"-1" is no number`},
		{content: "1 2\n", err: `"1 2" is no number`},
		{content: strings.Repeat("z", 5000), err: fmt.Sprintf("%q is no number", strings.Repeat("z", 40))},
	}
	for _, tt := range tests {
		h := hosttest.Tree{"proc/sys/kernel/pid_max": tt.content}.Open(t)
		n, ok, err := h.ReadUint("/proc/sys/kernel/pid_max")
		if n != tt.n || ok != tt.ok || (err == nil) != (tt.err == "") {
			t.Errorf("%.20q: %d, %v, %v; want %d, %v, error %q", tt.content, n, ok, err, tt.n, tt.ok, tt.err)
		}
		if err != nil && (!strings.HasSuffix(err.Error(), tt.err) || !strings.Contains(err.Error(), h.Path("/proc/sys/kernel/pid_max"))) {
			t.Errorf("%.20q: error %q does not name the file and %q", tt.content, err, tt.err)
		}
	}
	if _, _, err := (hosttest.Tree{}).Open(t).ReadUint("/absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func TestReadNames(t *testing.T) {
	h := hosttest.Tree{"d/a": "", "d/b": "", "d/c": "", "empty/": ""}.Open(t)
	names, err := h.ReadNames("/d", 100)
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Errorf("all: %q, %v", names, err)
	}
	if names, err := h.ReadNames("/d", 2); err != nil || len(names) != 2 {
		t.Errorf("at most two: %q, %v", names, err)
	}
	if names, err := h.ReadNames("/empty", 2); err != nil || len(names) != 0 {
		t.Errorf("empty: %q, %v", names, err)
	}
	if _, err := h.ReadNames("/absent", 2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestGone(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("read: %w", fs.ErrNotExist):     true,
		fmt.Errorf("read: %w", syscall.ESRCH):      true,
		fmt.Errorf("read: %w", syscall.ENODEV):     true,
		fmt.Errorf("read: %w", fs.ErrPermission):   false,
		fmt.Errorf("read: %w", syscall.EIO):        false,
		errors.New("read: no such file or folder"): false,
	} {
		if got := host.Gone(err); got != want {
			t.Errorf("Gone(%v) = %v", err, got)
		}
	}
}

func TestBootID(t *testing.T) {
	const id = "/proc/sys/kernel/random/boot_id"
	for content, want := range map[string]string{
		"0b8f7f3c-8f0c-4a55-9d3d-0f6f5f5c6a11\n": "0b8f7f3c-8f0c-4a55-9d3d-0f6f5f5c6a11",
		strings.Repeat("9", 5000):                strings.Repeat("9", 40),
	} {
		if got := (hosttest.Tree{id: content}).Open(t).BootID(); got != want {
			t.Errorf("%.50q: got %q", content, got)
		}
	}
	if got := (hosttest.Tree{}).Open(t).BootID(); got != "" {
		t.Errorf("without the file: %q", got)
	}
}

func TestPath(t *testing.T) {
	dir := t.TempDir()
	h := hosttest.Open(t, dir)
	if got := h.Path("/run/crio/crio.sock"); got != dir+"/run/crio/crio.sock" {
		t.Errorf("got %q", got)
	}
	if info, err := h.Stat("/"); err != nil || !info.IsDir() {
		t.Errorf("the root itself: %v", err)
	}
}

func TestOpenNow(t *testing.T) {
	dir := t.TempDir()
	hosttest.Tree{"file": "x", "dir/": "", "out": "-> /etc/passwd"}.Write(t, dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := hosttest.Open(t, dir)
	for path, opens := range map[string]bool{"/file": true, "/dir": true, "/fifo": true, "/out": false, "/none": false} {
		f, err := h.OpenNow(path)
		if (err == nil) != opens {
			t.Errorf("%s: %v", path, err)
		}
		f.Close()
	}
}
