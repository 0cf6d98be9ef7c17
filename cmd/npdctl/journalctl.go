package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// journalctl is a running child that prints a part of the journal in the export format.
type journalctl struct {
	io.Reader
	cmd       *exec.Cmd
	complaint firstLine
}

// exportFields are the fields that are looked at. journalctl adds those of the address, the time among them. Older than
// systemd 236 it does not know the option and prints all fields.
const exportFields = "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,PRIORITY"

var errNoJournalctl = errors.New("journalctl is not installed here; where it is: journalctl -D DIR -o export | npdctl replay -")

func startJournalctl(ctx context.Context, args ...string) (*journalctl, error) {
	j := &journalctl{cmd: exec.CommandContext(ctx, "journalctl", append([]string{"--output=export", "--quiet", "--no-pager"}, args...)...)}
	j.cmd.WaitDelay = time.Second
	j.cmd.Stderr = &j.complaint
	stdout, err := j.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	j.Reader = stdout
	err = j.cmd.Start()
	if errors.Is(err, exec.ErrNotFound) {
		err = errNoJournalctl
	}
	return j, err
}

// wait is for when all is read. What journalctl complains of is the error.
func (j *journalctl) wait() error {
	err := j.cmd.Wait()
	if len(j.complaint) > 0 {
		return fmt.Errorf("journalctl: %s", j.complaint)
	}
	if err != nil {
		return fmt.Errorf("journalctl: %w", err)
	}
	return nil
}

// stop ends a child that is not read to its end.
func (j *journalctl) stop() {
	_ = j.cmd.Process.Kill()
	_ = j.cmd.Wait()
}

// firstLine keeps the first line written to it, up to 200 bytes.
type firstLine []byte

func (l *firstLine) Write(p []byte) (int, error) {
	if len(*l) == 0 {
		line, _, _ := bytes.Cut(bytes.TrimSpace(p), []byte{'\n'})
		*l = append(*l, line[:min(len(line), 200)]...)
	}
	return len(p), nil
}
