// Package apart asks the kernel what it may never answer, in a process of its
// own that can be left behind.
//
// A thread in an uninterruptible system call cannot be killed, and its process
// cannot be reaped: node-problem-detector, which waits for both pipes and the
// process, would hang with a check that made the call itself. The process apart
// is the check's binary executed once more, with /dev/null as stdin, stdout and
// stderr and the answer on descriptor 3. When it does not answer in time it is
// killed, and not waited for.
//
// At most one such process of a check is stuck at a time. Each holds a lock
// (flock) on the check's executable, by a descriptor that it inherited. The kernel
// gives the lock back when the last thread has left the process, neither
// before, as with a pid file that a killed process cannot keep up to date, nor
// after, as with one that it cannot remove. The executable is there to be locked where
// the state directory is not, or cannot be written. Who may read the executable may
// lock it as well, and thereby make a check say that it cannot look, no more.
package apart

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"npd-plugins/internal/host"
)

var (
	// ErrHangs is for a question that got no answer in time.
	ErrHangs = errors.New("the kernel does not answer")

	// ErrStuck is for questions that were not asked, because an earlier one
	// of this check still waits for its answer.
	ErrStuck = errors.New("the kernel has not answered an earlier look yet")
)

const (
	// What the process apart is called, in /proc/PID/comm too, says what it is asked.
	statfsName  = "npd-statfs"
	readdirName = "npd-readdir"
	largestName = "npd-largest"

	executable = "/proc/self/exe"
	answerFile = 3 // descriptor; the lock comes after it

	// patience is how long to wait for the lock. Who asks something that is
	// answered holds it for milliseconds, on a node that is short of CPU for
	// a good part of a second.
	patience = time.Second

	// killTime is how long a killed process that can end may take to do so.
	killTime = 100 * time.Millisecond
)

// Serve is the process apart: it answers and exits. In every other process it
// returns at once. It comes first in main.
func Serve() {
	if len(os.Args) < 2 {
		return
	}
	serve := map[string]func(w io.Writer, hostRoot string, args []string){statfsName: serveStatfs, readdirName: serveNames, largestName: serveLargest}[os.Args[0]]
	if serve == nil {
		return
	}
	// Otherwise "exe". It is for who finds the process stuck.
	_ = os.WriteFile("/proc/self/comm", []byte(os.Args[0]), 0)
	serve(os.NewFile(answerFile, "answer"), os.Args[1], os.Args[2:])
	os.Exit(0)
}

// FileSystem is what statfs(2) tells of the file system at a path.
type FileSystem struct {
	// Err is ErrHangs, or why the path cannot be asked for; the rest is 0 then.
	Err error

	Device                uint64 // st_dev of stat(2), to know whose file system it is
	Size, Free, Available uint64 // bytes; available to users other than root
	Inodes, InodesFree    uint64
}

// answer is what the process apart writes for one path.
type answer struct {
	Path                  uint32 // its place in the question
	Errno                 uint32
	Device                uint64
	Size, Free, Available uint64
	Inodes, InodesFree    uint64
}

// Statfs opens the paths of the node and asks for their file systems, all at the
// same time, until ctx ends. There is one result for each path, unless nothing
// could be asked.
func Statfs(ctx context.Context, h *host.Root, paths []string) ([]FileSystem, error) {
	said, err := question(ctx, h, statfsName, paths...)
	if err != nil {
		return nil, err
	}
	result := make([]FileSystem, len(paths))
	for i := range result {
		result[i].Err = ErrHangs
	}
	var a answer
	for r := bytes.NewReader(said); binary.Read(r, binary.NativeEndian, &a) == nil; {
		if a.Path >= uint32(len(paths)) {
			return nil, fmt.Errorf("statfs: an answer for path %d of %d", a.Path, len(paths))
		}
		fs := FileSystem{Device: a.Device, Size: a.Size, Free: a.Free, Available: a.Available, Inodes: a.Inodes, InodesFree: a.InodesFree}
		if a.Errno != 0 {
			fs.Err = &os.PathError{Op: "statfs", Path: h.Path(paths[a.Path]), Err: syscall.Errno(a.Errno)}
		}
		result[a.Path] = fs
	}
	return result, nil
}

// ReadNames is host.Root.ReadNames of a directory that may be on a disk or a
// server that hangs. ErrHangs says that the names did not come before ctx ended.
func ReadNames(ctx context.Context, h *host.Root, path string, limit int) ([]string, error) {
	said, err := question(ctx, h, readdirName, path, strconv.Itoa(limit))
	if err != nil {
		return nil, err
	}
	if len(said) < errnoSize {
		return nil, &os.PathError{Op: "readdir", Path: h.Path(path), Err: ErrHangs}
	}
	if n := binary.NativeEndian.Uint32(said); n != 0 {
		return nil, &os.PathError{Op: "readdir", Path: h.Path(path), Err: syscall.Errno(n)}
	}
	names := strings.Split(string(said[errnoSize:]), "\x00")
	return names[:len(names)-1], nil // each is followed by a zero
}

// question asks the process apart something about the node, until ctx ends.
func question(ctx context.Context, h *host.Root, name string, args ...string) (said []byte, err error) {
	root, err := filepath.Abs(h.Path("/"))
	if err != nil {
		return nil, err
	}
	lock, err := acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the process apart has it too
	return ask(ctx, lock, append([]string{name, root}, args...))
}
