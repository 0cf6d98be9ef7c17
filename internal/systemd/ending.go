package systemd

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Ending tells how the last run of a service ended: "oom-kill, SIGKILL". It is
// "" while it runs.
func (s Service) Ending() string {
	var how []string
	switch s.Result {
	case "", "success", "exit-code", "signal", "core-dump": // told by the status
	default:
		how = append(how, s.Result) // oom-kill, start-limit-hit, watchdog, timeout, ...
	}
	const exited, killed, dumped = 1, 2, 3 // CLD_* of include/uapi/asm-generic/siginfo.h
	switch s.Code {
	case exited:
		how = append(how, fmt.Sprintf("exit status %d", s.Status))
	case killed:
		how = append(how, signal(s.Status))
	case dumped:
		how = append(how, signal(s.Status)+" with a core dump")
	}
	return strings.Join(how, ", ")
}

func signal(number int32) string {
	if name := unix.SignalName(unix.Signal(number)); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", number)
}
