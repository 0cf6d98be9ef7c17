package plugin

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (m *machine) stateFile() string { return filepath.Join(m.stateDir, "toy.state") }

func TestStateDirIsMade(t *testing.T) {
	m := newMachine(t)
	m.stateDir = filepath.Join(m.stateDir, "deeper")
	m.want(m.tell(OK, "well"), OK, "well")
	info, err := os.Stat(m.stateDir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(m.stateDir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "toy.state" {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if info, err := os.Stat(m.stateFile()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v, %v", info.Mode(), err)
	}
}

func TestStateBelongsToTheBoot(t *testing.T) {
	m := newMachine(t)
	m.tell(Problem, "broken")
	m.boot("boot-2")
	r := m.tell(Unknown, "no hands")
	m.want(r, Unknown, "no hands")
	if strings.Contains(r.stderr, "empty memory") {
		t.Errorf("a new boot is nothing to complain of: %q", r.stderr)
	}
}

// A state file that cannot be used is worth a word, and the next run has one that can.
func TestStateFileUnusable(t *testing.T) {
	tests := []struct {
		name   string
		make   func(t *testing.T, m *machine)
		stderr string // "" for nothing
	}{
		{"garbage", func(t *testing.T, m *machine) { writeState(t, m, "garbage") }, "not a whole state"},
		{"cut off", func(t *testing.T, m *machine) { writeState(t, m, "boot boot-1\nbad 0\nlas") }, "not a whole state"},
		{"empty", func(t *testing.T, m *machine) { writeState(t, m, "") }, "not a whole state"},
		{"no number", func(t *testing.T, m *machine) { writeState(t, m, "boot boot-1\nbad many\n") }, "bad: strconv.Atoi"},
		{"of a later version", func(t *testing.T, m *machine) { writeState(t, m, "boot boot-1\nsize 3\n") }, "size: no key of a state"},
		{"negative count", func(t *testing.T, m *machine) { writeState(t, m, "boot boot-1\nbad -1\n") }, "values out of range"},
		{"negative failures", func(t *testing.T, m *machine) { writeState(t, m, "boot boot-1\nfailed -100\n") }, "values out of range"},
		{"status 7", func(t *testing.T, m *machine) {
			writeState(t, m, "boot boot-1\nlast 7 x\n")
		}, "values out of range"},
		{"another boot's", func(t *testing.T, m *machine) {
			writeState(t, m, "boot boot-0\nlast 1 broken\n")
		}, ""},
		{"too large", func(t *testing.T, m *machine) {
			writeState(t, m, "boot boot-1\nlast 1 "+strings.Repeat("x", maxState)+"\n")
		}, "more than 4194304 bytes"},
		{"symlink", func(t *testing.T, m *machine) {
			target := filepath.Join(t.TempDir(), "target")
			if err := os.WriteFile(target, []byte("boot boot-1\nlast 1 of another\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, m.stateFile()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if b, err := os.ReadFile(target); err != nil || !strings.Contains(string(b), "of another") {
					t.Errorf("the target of the link was written: %q, %v", b, err)
				}
			})
		}, "too many levels of symbolic links"},
		{"FIFO", func(t *testing.T, m *machine) {
			if err := syscall.Mkfifo(m.stateFile(), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		{"of another user", func(t *testing.T, m *machine) {
			writeState(t, m, "boot boot-1\nlast 1 of another\n")
			if err := os.Chown(m.stateFile(), os.Geteuid()+1, -1); err != nil {
				t.Skipf("only root can give a file away: %v", err)
			}
		}, "not a regular file of uid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			if err := os.Mkdir(m.stateDir, 0o700); err != nil {
				t.Fatal(err)
			}
			tt.make(t, m)
			r := m.tell(Unknown, "no hands")
			m.want(r, Unknown, "no hands")
			if !strings.Contains(r.stderr, tt.stderr) || (r.stderr == "") != (tt.stderr == "") {
				t.Errorf("stderr %q, want a word of %q", r.stderr, tt.stderr)
			}
			m.want(m.tell(Problem, "broken"), Problem, "broken")
			r = m.tell(Unknown, "no hands")
			m.want(r, Problem, "broken")
			if strings.Contains(r.stderr, "empty memory") {
				t.Errorf("the file was not replaced: %q", r.stderr)
			}
		})
	}
}

func writeState(t *testing.T, m *machine, content string) {
	t.Helper()
	if err := os.WriteFile(m.stateFile(), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Without a place for the state the first bad look counts: nobody would count to two. What has to be seen twice is Unknown.
func TestNoState(t *testing.T) {
	tests := map[string]func(t *testing.T, m *machine){
		"the directory is a file": func(t *testing.T, m *machine) {
			if err := os.WriteFile(m.stateDir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"below a file": func(t *testing.T, m *machine) {
			if err := os.WriteFile(m.stateDir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			m.stateDir += "/deeper"
		},
		"below what nobody can write": func(t *testing.T, m *machine) { m.stateDir = "/proc/npd-plugins" },
		"the state file is a directory": func(t *testing.T, m *machine) {
			if err := os.MkdirAll(m.stateFile(), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.args = []string{"--failure-threshold=3"}
			prepare(t, m)
			m.look = func(_ context.Context, l *Look) Verdict {
				l.Remember("something")
				return m.verdict
			}
			for range 2 {
				r := m.tell(Problem, "broken")
				m.want(r, Problem, "broken")
				if !strings.Contains(r.stderr, "no memory between runs") {
					t.Errorf("stderr %q", r.stderr)
				}
			}
			m.wantUnkept()
			m.want(m.tell(Unknown, "no hands"), Unknown, "no hands")
			m.want(m.tell(OK, "well"), OK, "well")
		})
	}
}

// A state that cannot be written although its directory can: the file system fills up, say. Here the look makes a
// directory of the state file.
func TestStateCannotBeSaved(t *testing.T) {
	m := newMachine(t)
	m.args = []string{"--failure-threshold=3"}
	m.look = func(_ context.Context, l *Look) Verdict {
		if err := os.MkdirAll(m.stateFile(), 0o700); err != nil {
			t.Fatal(err)
		}
		return m.verdict
	}
	r := m.tell(Problem, "broken")
	m.want(r, Problem, "broken")
	if !strings.Contains(r.stderr, "cannot keep the memory for the next run") {
		t.Errorf("stderr: %q", r.stderr)
	}
	entries, err := os.ReadDir(m.stateDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// The memory that is still there does not stand in for what cannot be kept: nobody counts for how long it would.
func TestStateCannotBeSavedAnyMore(t *testing.T) {
	m := newMachine(t)
	m.want(m.tell(OK, "well"), OK, "well")
	full := false
	m.look = func(_ context.Context, l *Look) Verdict {
		if full { // no file can be made in the directory, which access(2) does not tell
			if err := os.RemoveAll(m.stateDir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(m.stateDir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return m.verdict
	}
	for _, tell := range []func(){
		m.wantUnkept,
		func() { m.want(m.tell(Unknown, "no hands"), Unknown, "no hands") },
	} {
		full = false
		os.Remove(m.stateDir)
		m.want(m.tell(OK, "well"), OK, "well")
		full = true
		tell()
	}
}

// wantUnkept wants Unknown of a look with a suspicion.
func (m *machine) wantUnkept() {
	m.t.Helper()
	m.verdict = Verdict{Message: "well, for now", Suspicion: "a toy creaks", Measurements: []Measurement{{Name: "toys", Value: 1, Unit: "toys"}}}
	r := m.run()
	if r.code != int(Unknown) || !strings.HasPrefix(r.stdout, "a toy creaks; whether it lasts is not known: nothing can be kept in --state-dir: ") {
		m.t.Errorf("exit %d, %q; stderr:\n%s", r.code, r.stdout, r.stderr)
	}
}

// A suspicion that can be kept is told by nobody.
func TestSuspicion(t *testing.T) {
	m := newMachine(t)
	m.verdict = Verdict{Message: "well, for now", Suspicion: "a toy creaks"}
	m.want(m.run(), OK, "well, for now")
}

// What would not be read back is not written.
func TestStateTooLarge(t *testing.T) {
	m := newMachine(t)
	m.look = func(_ context.Context, l *Look) Verdict {
		l.Remember(strings.Repeat("x", maxState))
		return Verdict{Message: "well, for now", Suspicion: "a toy creaks"}
	}
	if r := m.run(); r.code != int(Unknown) || !strings.Contains(r.stdout, "more than 4194304 bytes") {
		t.Errorf("exit %d, %q", r.code, r.stdout)
	}
}

// A reader never sees half a state: the file is replaced by another one.
func TestStateIsReplaced(t *testing.T) {
	m := newMachine(t)
	m.tell(OK, "well")
	before, err := os.Open(m.stateFile())
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	m.tell(Problem, "broken")
	if b, err := io.ReadAll(before); err != nil || !strings.Contains(string(b), "\nlast 0 well\n") {
		t.Errorf("what was open when it was replaced: %q, %v", b, err)
	}
	b, err := os.ReadFile(m.stateFile())
	if err != nil || !strings.Contains(string(b), "broken") {
		t.Errorf("the new one: %q, %v", b, err)
	}
}

// A run that remembers the same only tells that it ran.
func TestStateStays(t *testing.T) {
	m := newMachine(t)
	m.tell(OK, "well")
	before := m.stateInfo()
	m.age(time.Minute)
	m.want(m.tell(OK, "well"), OK, "well")
	if after := m.stateInfo(); !os.SameFile(before, after) || time.Since(after.ModTime()) > 30*time.Second {
		t.Errorf("written again, or of %v", after.ModTime())
	}
	m.tell(OK, "better")
	if os.SameFile(before, m.stateInfo()) {
		t.Error("not written")
	}
}

// A verdict stands in for failed looks for an hour, and never when the clock has gone back behind it.
func TestStateAges(t *testing.T) {
	for age, last := range map[time.Duration]string{59 * time.Minute: "broken", 61 * time.Minute: "no hands", -time.Minute: "no hands"} {
		m := newMachine(t)
		m.tell(Problem, "broken")
		m.age(age)
		if r := m.tell(Unknown, "no hands"); !strings.Contains(r.stdout, last) {
			t.Errorf("%v old: %q, want %q", age, r.stdout, last)
		}
	}
}

func (m *machine) stateInfo() os.FileInfo {
	m.t.Helper()
	info, err := os.Stat(m.stateFile())
	if err != nil {
		m.t.Fatal(err)
	}
	return info
}

// age makes the state this old.
func (m *machine) age(d time.Duration) {
	m.t.Helper()
	at := time.Now().Add(-d)
	if err := os.Chtimes(m.stateFile(), at, at); err != nil {
		m.t.Fatal(err)
	}
}

// Where the host root is no host for a while, the memory of the last run stays for the next.
func TestHostRootIsNoHost(t *testing.T) {
	for name, root := range map[string]string{"empty": t.TempDir(), "missing": filepath.Join(t.TempDir(), "absent")} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.tell(Problem, "broken")
			host := m.root
			m.root = root
			if r := m.tell(Unknown, "no hands"); r.code != int(Unknown) {
				t.Errorf("exit %d: %s", r.code, r.stdout)
			}
			m.root = host
			m.want(m.tell(Unknown, "no hands"), Problem, "broken")
		})
	}
}

// A host that never says which boot it is has a memory all the same.
func TestHostWithoutBootID(t *testing.T) {
	m := newMachine(t)
	m.root = t.TempDir()
	m.tell(Problem, "broken")
	m.want(m.tell(Unknown, "no hands"), Problem, "broken")
}

// A host whose files hang.
func TestBootIDHangs(t *testing.T) {
	m := newMachine(t)
	path := filepath.Join(m.root, "proc/sys/kernel/random/boot_id")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	m.args = []string{"--timeout=200ms"}
	m.want(m.tell(OK, "well"), Unknown, "no verdict within --timeout 200ms: the node is short of CPU, or a call hangs")
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0) // and let go of the reader
	if err == nil {
		f.Close()
	}
}
