package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	RunCulprit()
	os.Exit(m.Run())
}

func TestFuseAnswers(t *testing.T) {
	f := StartFuse(t)
	var st unix.Statfs_t
	if err := unix.Statfs(f.Dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks != FuseBlocks || st.Bavail != FuseBlocksAvailable || st.Bsize != FuseBlockSize || st.Files != FuseFiles || st.Ffree != FuseFilesFree {
		t.Errorf("statfs: %+v", st)
	}
	b, err := os.ReadFile(f.File)
	if err != nil || len(b) != fuseFileSize {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	if entries, err := os.ReadDir(f.Dir); err != nil || len(entries) != 0 {
		t.Errorf("read the directory: %v, %v", entries, err)
	}
}

// Each call blocks in the state that its doc tells, also after SIGKILL, and ends with the server.
func TestFuseCalls(t *testing.T) {
	tests := []struct {
		call   FuseCall
		state  string // of the process, "" for S or D
		killed string // the state after SIGKILL, "" for gone
	}{
		{call: FuseStatfs, killed: "D"},
		{call: FuseRead, state: "D"},
		{call: FuseOpen, state: "D", killed: "D"},
		{call: FuseMap, state: "D", killed: "D"},
	}
	for _, tt := range tests {
		t.Run(string(tt.call), func(t *testing.T) {
			f := StartFuse(t)
			if tt.call == FuseStatfs {
				f.Silence(t)
			} else {
				f.HoldReads(t)
			}
			if tt.call == FuseOpen || tt.call == FuseMap {
				f.Call(t, FuseRead, "reader")
			}
			pid := f.Call(t, tt.call, "stuck caller")
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || !strings.HasPrefix(string(stat), fmt.Sprintf("%d (stuck caller) %s", pid, tt.state)) {
				t.Errorf("not in state %s: %q, %v", tt.state, stat, err)
			}
			unix.Kill(pid, unix.SIGKILL)
			if tt.killed == "" {
				WaitGone(t, pid)
			} else {
				time.Sleep(200 * time.Millisecond)
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if err != nil || !strings.Contains(string(stat), ") "+tt.killed+" ") {
					t.Errorf("not in state %s after SIGKILL: %q, %v", tt.killed, stat, err)
				}
			}
			f.Stop(t)
			if err := unix.Kill(pid, 0); err != unix.ESRCH {
				t.Errorf("process %d after the server's end: %v", pid, err)
			}
		})
	}
}

// Who reads the command line of a process that holds its mmap lock hangs as long as it does.
func TestFuseHoldMmapLock(t *testing.T) {
	f := StartFuse(t)
	pid := f.HoldMmapLock(t, "mapper")
	read := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		read <- err
	}()
	select {
	case err := <-read:
		t.Errorf("the command line could be read: %v", err)
	case <-time.After(time.Second):
		f.Stop(t)
		<-read
	}
}
