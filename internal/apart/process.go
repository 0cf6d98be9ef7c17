package apart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// acquire takes the lock that is held while a process apart is there.
func acquire(ctx context.Context) (*os.File, error) {
	f, err := os.Open(executable)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) && ctx.Err() == nil && time.Now().Before(until) {
			continue
		}
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrStuck
		}
		return nil, fmt.Errorf("lock %s: %w", executable, err)
	}
}

// ask starts the process apart and returns what it has written when it ended or
// ctx did.
func ask(ctx context.Context, lock *os.File, args []string) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	process, err := start(args, w, lock)
	w.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Now()) })
	defer stop()
	said, err := io.ReadAll(r)
	if err == nil {
		return said, reap(process)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, err
	}

	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("kill the process apart: %w", err)
	}
	r.SetReadDeadline(time.Now().Add(killTime))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return said, process.Release() // stuck: to wait for it is to hang with it
	}
	return said, reap(process)
}

// reap waits for a process that has closed its end of the pipe, which happens
// when its last thread ends.
func reap(process *os.Process) error {
	if _, err := process.Wait(); err != nil {
		return fmt.Errorf("wait for the process apart: %w", err)
	}
	return nil
}

// start starts this executable once more. It stays in the process group, which
// node-problem-detector kills with the check.
func start(args []string, answer, lock *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return os.StartProcess(executable, args, &os.ProcAttr{
		Dir:   "/", // not where this process is, which may be what hangs
		Env:   []string{"GOMAXPROCS=1"},
		Files: []*os.File{null, null, null, answer, lock},
	})
}
