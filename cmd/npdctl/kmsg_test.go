package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/npd"
)

const kernelRules = `{"plugin": "kmsg", "logPath": "/dev/kmsg", "source": "kernel-rules", "bufferSize": 1,
	"rules": [{"type": "temporary", "reason": "KernelSighs", "pattern": "it sighs.*"}, {"type": "temporary", "reason": "DiskSighs", "pattern": "sda sighs\\n SUB.*\\n DEV.*"}]}`

func parseRules(t *testing.T, rules string) *npd.LogMonitor {
	t.Helper()
	m, err := npd.ParseLogMonitor([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestReadRecords reads what has a record for each read, as kmsg has: a socket for datagrams.
func TestReadRecords(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	boot := time.Now().Add(-2 * time.Hour)
	at := func(before time.Duration) int64 { return (2*time.Hour - before).Microseconds() }
	for _, record := range []string{
		fmt.Sprintf("6,1,%d,-;long ago it sighs\n", at(61*time.Minute)),
		fmt.Sprintf("6,2,%d,-;it sighs and sighs\n", at(time.Minute)),
		fmt.Sprintf("4,3,%d,c,caller=T12;it sighs again\n", at(time.Second)),
		fmt.Sprintf("3,4,%d,-;sda sighs\n SUBSYSTEM=block\n DEVICE=b8:0\n", at(time.Second)),
		fmt.Sprintf("6,5,%d,-;\n", at(time.Second)),
		"no record", "6,x;it sighs", ";",
		"6,6," + strings.Repeat("9", 30) + ",-;it sighs\n",
	} {
		if err := unix.Send(ends[0], []byte(record), 0); err != nil {
			t.Fatal(err)
		}
	}
	h, err := readRecords(context.Background(), ends[1], parseRules(t, kernelRules), boot)
	if err != nil {
		t.Fatal(err)
	}
	if h.lines != 3 || h.events["KernelSighs"].count != 2 || h.events["DiskSighs"].count != 1 {
		t.Errorf("%+v", h)
	}
	if last := h.events["KernelSighs"].last; last.Message != "it sighs again" || time.Since(last.Time).Round(time.Second) != time.Second {
		t.Errorf("%+v", last)
	}
}

// TestReadKmsg reads the kernel's own log twice: nothing is consumed, and the times are of the last hour.
func TestReadKmsg(t *testing.T) {
	f, err := os.Open(kmsgDevice)
	if err != nil {
		t.Skipf("the kernel's log may not be read here: %v", err)
	}
	f.Close()
	all := parseRules(t, `{"plugin": "kmsg", "bufferSize": 1, "rules": [{"type": "temporary", "reason": "Any", "pattern": "(?s).*"}]}`)
	var before hour
	for range 2 {
		h, err := readKmsgHour(context.Background(), all, kmsgDevice)
		if err != nil {
			t.Fatal(err)
		}
		if h.lines < before.lines {
			t.Errorf("%d lines after %d", h.lines, before.lines)
		}
		if last := h.events["Any"].last.Time; h.lines > 0 && (time.Since(last) > time.Hour || time.Until(last) > time.Minute) {
			t.Errorf("last line at %v", last)
		}
		before = h
	}
	t.Logf("%d lines", before.lines)
}

// TestKmsgNotReadable: without the right to read it the journal is read, and that is said.
func TestKmsgNotReadable(t *testing.T) {
	m := parseRules(t, kernelRules)
	none := filepath.Join(t.TempDir(), "kmsg")
	h, err := readHour(context.Background(), m, none)
	switch {
	case err == nil && !strings.Contains(h.note, "read in the journal instead of kmsg: open "+none+": no such file or directory (node-problem-detector reads it as root in a privileged container)"):
		t.Errorf("note %q", h.note)
	case err != nil && (!errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "the journal instead: ")): // no journal here
		t.Error(err)
	}
}

func FuzzParseKmsg(f *testing.F) {
	f.Add("6,1,12,-;text\n SUBSYSTEM=block\n")
	f.Add(",,;")
	f.Fuzz(func(t *testing.T, record string) {
		message, _, ok := parseKmsg(record)
		if ok && (message == "" || !strings.Contains(record, message)) {
			t.Errorf("%q is made of %q", message, record)
		}
	})
}

// TestRunLogFile: a filelog file's lines of the last hour.
func TestRunLogFile(t *testing.T) {
	s := newSite(t)
	s.check("Good", "echo fine")
	line := func(before time.Duration, text string) string {
		return time.Now().Add(-before).Format(`E0102 15:04:05.000000`) + "    12 kubelet.go:1] " + text + "\n"
	}
	s.write("kubelet.log", line(90*time.Minute, "it sighs")+line(time.Minute, "it sighs twice")+"goroutine 1 [running]:\n"+line(0, "it is well"))
	s.write("rules/kubelet.json", fmt.Sprintf(`{"plugin": "filelog", "source": "kubelet-rules", "logPath": %q, "pluginConfig": {"timestamp": "^[IWEF](\\d{4} \\d\\d:\\d\\d:\\d\\d\\.\\d{6}) ",
		"timestampFormat": "0102 15:04:05.000000", "message": "^(.*\\S)"}, "rules": [{"type": "temporary", "reason": "KubeletSighs", "pattern": "it sighs.*"}]}`, s.dir+"/kubelet.log"))
	code, out, errs := s.run("--rules", filepath.Join(s.dir, "rules"))
	if code != 0 || errs != "" {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	s.has(out, "KubeletSighs", "it sighs twice", "lines read: "+s.dir+"/kubelet.log 2\n")
}

// TestInstalledWorksAnywhere runs an installed npdctl from another directory.
func TestInstalledWorksAnywhere(t *testing.T) {
	s := release(t)
	if out, err := exec.Command("go", "build", "-o", filepath.Join(s.dir, "bin/npdctl"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.write("log", "Nov 21 02:27:05 node-1 kubelet[123]: PLEG is not healthy: pleg was last seen active 3m5s ago; threshold is 3m0s\n")
	link := filepath.Join(t.TempDir(), "npdctl")
	if err := os.Symlink(filepath.Join(s.dir, "bin/npdctl"), link); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run", "--state-dir", t.TempDir()}, {"replay", filepath.Join(s.dir, "log")}} {
		cmd := exec.Command(link, args...)
		cmd.Dir = t.TempDir()
		out, _ := cmd.CombinedOutput()
		if args[0] == "run" {
			s.has(string(out), "PLEGStalled", "Events of the journal rules in the last hour:")
		} else {
			s.has(string(out), "KubeletPLEGUnhealthy")
		}
	}
}
