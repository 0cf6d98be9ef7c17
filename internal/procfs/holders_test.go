package procfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"npd-plugins/internal/host/hosttest"
)

// holders is a tree of processes with descriptors, by pid, and room for them.
func holders(kernel string, open, room map[int]int) hosttest.Tree {
	tree := hosttest.Tree{"proc/sys/kernel/osrelease": kernel + "\n"}
	for pid, n := range open {
		dir := fmt.Sprintf("proc/%d/", pid)
		tree[dir+"stat"] = statLine(pid, "holder")
		tree[dir+"status"] = fmt.Sprintf("Name:\tholder\nFDSize:\t%d\n", room[pid])
		tree[dir+"fd/"] = ""
		for i := range n {
			tree[fmt.Sprintf("%sfd/%d", dir, i)] = "-> anon_inode:inotify"
		}
		tree[dir+"fd/1000"] = "-> anon_inode:[eventfd]"
	}
	return tree
}

func TestHolders(t *testing.T) {
	open, room := map[int]int{}, map[int]int{}
	for i := range 12 {
		open[100+i], room[100+i] = i, 64
	}
	room[111], room[105] = 128, 256 // the second one had more, and closed them
	h := holders("6.1.0", open, room).Open(t)
	got, err := Holders(t.Context(), h, Process.Inotify)
	if err != nil || len(got) != 10 || got[0] != (Holder{111, 11}) || got[9] != (Holder{102, 2}) {
		t.Errorf("inotify: %v, %v", got, err)
	}
	got, err = DescriptorHolders(t.Context(), h)
	if err != nil || len(got) != 10 || got[0].Held < got[9].Held || got[0] != (Holder{111, 12}) {
		t.Errorf("descriptors: %v, %v", got, err)
	}

	ended, end := context.WithCancel(t.Context())
	end()
	if got, _ := Holders(ended, h, Process.Inotify); len(got) != 0 {
		t.Errorf("after the end: %v", got)
	}
	broken := func(Process) (int, error) { return 5, errors.New("gone") }
	if got, err := Holders(t.Context(), h, broken); err != nil || len(got) != 0 {
		t.Errorf("processes that cannot be counted: %v, %v", got, err)
	}
	if _, err := Holders(t.Context(), hosttest.Tree{"proc/": ""}.Open(t), Process.Inotify); err == nil {
		t.Error("no process, and no error")
	}
}

// The test's own process on the real /proc.
func TestOwnDescriptors(t *testing.T) {
	h := hosttest.Open(t, "/")
	self := Of(h, os.Getpid())
	files, err := self.descriptors()
	if err != nil {
		t.Skipf("no /proc of this process: %v", err)
	}
	instances, err := self.Inotify()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			t.Skip(err)
		}
		defer unix.Close(fd)
	}
	now, err := self.Inotify()
	if diff := cmp.Diff(instances+3, now); diff != "" || err != nil {
		t.Errorf("instances, %v: %s", err, diff)
	}
	now, err = self.descriptors()
	if err != nil || now < files+3 {
		t.Errorf("%d descriptors, %v; before three more %d", now, err, files)
	}
	if room, err := self.descriptorRoom(); err != nil || room < now-1 {
		t.Errorf("room for %d of %d, %v", room, now, err)
	}
}

func TestHostUID(t *testing.T) {
	uid, err := HostUID()
	if err != nil || uid < 0 {
		t.Errorf("%d, %v", uid, err)
	}
}
