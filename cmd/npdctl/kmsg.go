package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/npd"
)

// kmsgDevice is where NPD reads the kernel's log for a kmsg file. Every reader has a position of its own, so nobody loses a line to
// another.
const kmsgDevice = "/dev/kmsg"

// maxKmsg is the longest record in bytes: CONSOLE_EXT_LOG_MAX in kernel/printk. A buffer that is too small makes read fail.
const maxKmsg = 8192

// readKmsgHour puts the last hour of the kernel's log through a monitor.
func readKmsgHour(ctx context.Context, m *npd.LogMonitor, device string) (hour, error) {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return hour{}, &os.PathError{Op: "open", Path: device, Err: err}
	}
	defer unix.Close(fd)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return hour{}, err
	}
	return readRecords(ctx, fd, m, time.Now().Add(-time.Duration(now.Nano())))
}

// readRecords takes each record that is there, up to the end. Each read returns one.
func readRecords(ctx context.Context, fd int, m *npd.LogMonitor, boot time.Time) (hour, error) {
	h := hour{events: map[string]told{}}
	since := time.Now().Add(-time.Hour)
	buffer := make([]byte, maxKmsg)
	for ctx.Err() == nil {
		n, err := unix.Read(fd, buffer)
		switch {
		case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			return h, nil
		case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR): // overwritten before it was read
			continue
		case err != nil:
			return h, fmt.Errorf("read: %w", err)
		}
		message, after, ok := parseKmsg(string(buffer[:n]))
		if at := boot.Add(after); ok && at.After(since) {
			h.take(m, message, func() time.Time { return at })
		}
	}
	return h, ctx.Err()
}

// parseKmsg reads a record: priority, sequence number and microseconds since the boot, behind a semicolon the message. As in NPD that
// includes the lines behind it that say of which device it is.
func parseKmsg(record string) (message string, at time.Duration, ok bool) {
	head, message, ok := strings.Cut(record, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return "", 0, false
	}
	microseconds, err := strconv.ParseInt(fields[2], 10, 64)
	message = strings.TrimSpace(message)
	return message, time.Duration(microseconds) * time.Microsecond, err == nil && message != ""
}
