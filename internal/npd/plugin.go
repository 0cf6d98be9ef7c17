package npd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Status is what one run of a custom plugin told.
type Status int

// NPD knows three exit codes and takes every other ending for Unknown.
const (
	OK      Status = iota // exit code 0
	NonOK                 // exit code 1
	Unknown               // any other exit code, a signal, a timeout, or no start at all
)

func (s Status) String() string {
	switch s {
	case OK:
		return "OK"
	case NonOK:
		return "NonOK"
	case Unknown:
		return "Unknown"
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

// MaxPluginOutput is how many bytes NPD keeps of each of stdout and stderr (maxCustomPluginBufferBytes of its
// pkg/custompluginmonitor/plugin). It reads and drops what follows.
const MaxPluginOutput = 4096

// hangGrace is how long after the kill RunPlugin still waits for the pipes and the process to end. NPD waits for ever.
const hangGrace = 2 * time.Second

// PluginResult is the outcome of one run.
type PluginResult struct {
	Status   Status
	Message  string        // stdout, trimmed and cut, or why there is none
	Stderr   string        // the first 4096 bytes
	ExitCode int           // -1 when the plugin did not start, died of a signal, or was not reaped
	Took     time.Duration // from before the start to the verdict
	Hung     bool          // the plugin outlived the kill, or something still holds its pipes: NPD would never have come back
}

// RunPlugin executes a custom plugin the way NPD's custom plugin monitor does: in a process group of its own with
// /dev/null as stdin, both pipes read to EOF, SIGKILL to the group at timeout, 4096 bytes of stdout, trimmed, then cut
// at maxOutput bytes, which may split a character. A plugin that exits in time while a child of its group keeps a pipe
// open still runs into the timeout; as in NPD, an exit code of 0 is then Unknown, and one of 1 remains a problem. The wording of a failed start and
// of a timeout is this package's own.
//
// Unlike NPD it always returns: when the pipes are still open or the process is not reaped two seconds after the kill,
// the result is Unknown with Hung set. Ending ctx kills the group like a timeout.
func RunPlugin(ctx context.Context, path string, args []string, timeout time.Duration, maxOutput int) PluginResult {
	began := time.Now()
	r := runPlugin(ctx, path, args, timeout)
	r.Message = cut(r.Message, maxOutput)
	r.Took = time.Since(began)
	return r
}

func runPlugin(ctx context.Context, path string, args []string, timeout time.Duration) PluginResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return notRun("not started, no time left: %v", err)
	}
	p, err := startPlugin(path, args)
	if err != nil {
		return notRun("cannot be started: %v", err)
	}
	select {
	case ended := <-p.ended:
		return ended.result()
	case <-ctx.Done():
	}
	p.killGroup()
	after := fmt.Sprintf("after %v", timeout)
	if errors.Is(ctx.Err(), context.Canceled) {
		after = "because the caller gave up"
	}
	select {
	case ended := <-p.ended:
		r := ended.result()
		if r.Status == OK {
			r.Status = Unknown
		}
		r.Message = fmt.Sprintf("killed %s, %s; output: %q", after, ended.cmd.ProcessState, r.Message)
		return r
	case <-time.After(hangGrace):
	}
	p.closePipes()
	r := notRun("killed %s, yet it or a child still holds its pipes: NPD would hang for ever here", after)
	r.Hung = true
	return r
}

func notRun(format string, args ...any) PluginResult {
	return PluginResult{Status: Unknown, Message: fmt.Sprintf(format, args...), ExitCode: -1}
}

// process is a started plugin. ended delivers once both pipes reached EOF and the process is reaped.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr io.ReadCloser
	ended          chan ending
}

type ending struct {
	cmd            *exec.Cmd
	stdout, stderr []byte
}

func startPlugin(path string, args []string) (*process, error) {
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stdout: stdout, stderr: stderr, ended: make(chan ending, 1)}
	go p.wait()
	return p, nil
}

// wait reaps the process only after both pipes are at EOF, because that is NPD's order too.
func (p *process) wait() {
	e := ending{cmd: p.cmd}
	var pipes sync.WaitGroup
	pipes.Go(func() { e.stdout = head(p.stdout) })
	pipes.Go(func() { e.stderr = head(p.stderr) })
	pipes.Wait()
	_ = p.cmd.Wait() // the state says all: an error here only repeats a bad exit code
	p.ended <- e
}

func (p *process) killGroup() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// closePipes ends the reads of an abandoned plugin, so that wait can go on to reap it.
func (p *process) closePipes() {
	p.stdout.Close()
	p.stderr.Close()
}

func (e ending) result() PluginResult {
	r := PluginResult{
		Status:   Unknown,
		Message:  strings.TrimSpace(string(e.stdout)),
		Stderr:   string(e.stderr),
		ExitCode: -1,
	}
	if e.cmd.ProcessState == nil {
		return r
	}
	r.ExitCode = e.cmd.ProcessState.ExitCode()
	switch r.ExitCode {
	case 0:
		r.Status = OK
	case 1:
		r.Status = NonOK
	}
	return r
}

// head returns the first MaxPluginOutput bytes of r and reads on to EOF, so that a chatty plugin never blocks on a full pipe.
func head(r io.Reader) []byte {
	data, _ := io.ReadAll(io.LimitReader(r, MaxPluginOutput))
	_, _ = io.Copy(io.Discard, r)
	return data
}

// cut shortens s to max bytes, in the middle of a character if it falls there, as NPD does.
func cut(s string, max int) string {
	if max < 0 {
		max = 0
	}
	if len(s) > max {
		return s[:max]
	}
	return s
}
