// Command clock tells that nothing keeps the node's clock right: certificates
// and leases are judged by it, and logs of different nodes cannot be compared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

type check struct {
	adjtimex func(*unix.Timex) (state int, err error)
	maxError time.Duration
}

func main() {
	c := &check{adjtimex: unix.Adjtimex}
	plugin.Main(plugin.Check{
		Name:      "clock",
		Condition: "ClockUnsynchronized",
		Purpose: "A clock that nothing corrects drifts by seconds a day; then certificates are not valid yet or any more, leases and tokens end early, and logs mislead.\n" +
			"Asks the kernel, to which every time daemon reports (chrony, ntpd, systemd-timesyncd, ptp4l with phc2sys), whether the clock is synchronized and how wrong it may be. Never sets it.",
		Reads:            []string{"adjtimex(2) without a mode, which only reads", "only when it is not synchronized: /proc/*/stat"},
		Needs:            "a seccomp profile that allows adjtimex, as the runtimes' default ones do; no capability, no namespace of the host; to name the time daemon, the host's /proc below --host-root",
		LookAlikes:       "a leap second; a daemon that has just started, or is restarted, for less than three looks; a steady offset that the daemon is working off",
		Example:          "--host-root=/host --max-error=1s",
		FailureThreshold: 3,
		Timeout:          8 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.DurationVar(fs, &c.maxError, "max-error", time.Second, "Problem when the estimated error of the clock is above this `duration`")
		},
		Look: c.look,
	})
}

// Status bits and states of the clock, from include/uapi/linux/timex.h.
const (
	staUnsync   = 0x0040 // nobody has said that it is synchronized, or not lately
	staClockErr = 0x1000 // clock hardware fault
	timeError   = 5      // state: one of these, or a PPS signal that is wanted and fails
)

// phaseLimit is where the kernel takes the clock for unsynchronized: it adds
// 500 us to the maximum error in each second since the daemon's last report
// (NTP_PHASE_LIMIT and MAXFREQ in include/linux/timex.h).
const phaseLimit = 16 * time.Second

func (c *check) look(_ context.Context, l *plugin.Look) plugin.Verdict {
	var t unix.Timex // Modes 0: nothing is set
	state, err := c.adjtimex(&t)
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS):
		return plugin.Unknownf("cannot read the clock's state: adjtimex: %v: allow it in the seccomp profile of the container, see --help", err)
	case err != nil:
		return plugin.Unknownf("cannot read the clock's state, see --help: adjtimex: %v", err)
	}
	estimated, maximum := microseconds(t.Esterror), microseconds(t.Maxerror)
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "estimated_error", Value: estimated.Seconds(), Unit: "seconds"},
		{Name: "maximum_error", Value: maximum.Seconds(), Limit: phaseLimit.Seconds(), Unit: "seconds"},
		{Name: "offset", Value: math.Abs(offset(t).Seconds()), Unit: "seconds"},
	}}
	switch {
	case t.Status&staUnsync != 0:
		v.Message = "the clock is not synchronized"
	case t.Status&staClockErr != 0:
		v.Message = "the clock is not synchronized: the kernel tells of a fault of its hardware"
	case state == timeError:
		v.Message = "the clock is not synchronized: its PPS signal fails"
	case estimated > c.maxError:
		v.Message = fmt.Sprintf("the clock may be wrong by %v, more than %s", seconds(estimated), seconds(c.maxError))
	default:
		v.Message = fmt.Sprintf("the clock is synchronized, its estimated error is %s, at most %s", seconds(estimated), seconds(maximum))
		return v
	}
	v.Status = plugin.Problem
	v.Message += "; " + daemons(l)
	v.Details = []string{fmt.Sprintf("adjtimex: state %d, status 0x%04x, estimated error %s, maximum error %s, offset %s", state, t.Status, seconds(estimated), seconds(maximum), seconds(offset(t)))}
	return v
}

// microseconds is one of the kernel's estimates, which are never negative.
func microseconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), math.MaxInt64/1000)) * time.Microsecond
}

// offset is what the daemon still corrects.
func offset(t unix.Timex) time.Duration {
	const staNano = 0x2000 // the unit is a nanosecond
	if t.Status&staNano != 0 {
		return time.Duration(t.Offset)
	}
	return time.Duration(t.Offset) * time.Microsecond
}

// seconds writes a duration: "0.000731 s", from a second on with one decimal.
func seconds(d time.Duration) string {
	unit := time.Microsecond
	if d.Abs() >= time.Second {
		unit = 100 * time.Millisecond
	}
	return strconv.FormatFloat(d.Round(unit).Seconds(), 'f', -1, 64) + " s"
}

// timeDaemons are the names of processes that correct the clock, of which the
// kernel keeps 15 bytes.
var timeDaemons = []string{"chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys", "timemaster"}

// daemons says which time daemons run.
func daemons(l *plugin.Look) string {
	var running []string
	err := procfs.EachStat(l.Host, func(s procfs.Stat) bool {
		if slices.Contains(timeDaemons, s.Comm) && s.State != 'Z' && len(running) < 3 {
			running = append(running, fmt.Sprintf("%s (pid %d)", s.Comm, s.PID))
		}
		return true
	})
	switch {
	case err != nil:
		l.Log.Infof("whether a time daemon runs is not known: %v", err)
		return "see timedatectl or chronyc tracking"
	case len(running) == 0:
		return "no time daemon runs on the node"
	}
	return strings.Join(running, ", ") + " does not keep it: see its sources"
}
