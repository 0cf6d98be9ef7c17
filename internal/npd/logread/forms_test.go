package logread

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// journalctlEntries are what each form of journalctl's output can show.
var journalctlEntries = []string{
	"SYSLOG_IDENTIFIER=kubelet\n_PID=123\n_SYSTEMD_UNIT=kubelet.service\nPRIORITY=3\nMESSAGE=E0102 15:04:05.123456     123 a.go:1] plain",
	"SYSLOG_IDENTIFIER=kernel\n_TRANSPORT=kernel\nPRIORITY=4\nMESSAGE=usb 1-1: it hangs",
	"SYSLOG_IDENTIFIER=kubelet\n_PID=123\n_SYSTEMD_UNIT=kubelet.service\n" + binaryField("MESSAGE", "first\n  second\n\nfourth"),
	"SYSLOG_IDENTIFIER=k3s\n_PID=9\n_SYSTEMD_UNIT=user@0.service\n_SYSTEMD_USER_UNIT=k3s.service\nMESSAGE=of a user",
	"SYSLOG_IDENTIFIER=kubelet\n_PID=123\n_SYSTEMD_UNIT=kubelet.service\nMESSAGE=long " + strings.Repeat("word ", 300) + "end",
	"SYSLOG_IDENTIFIER=kubelet\nMESSAGE=  blanks  ",
}

// journalctl returns what journalctl prints of journalctlEntries in a form.
func journalctl(t *testing.T, args ...string) []byte {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/lib/systemd:/lib/systemd")
	for _, name := range []string{"systemd-journal-remote", "journalctl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s here, it is what this is compared with", name)
		}
	}
	path := filepath.Join(t.TempDir(), "a.journal")
	var export strings.Builder
	for i, fields := range journalctlEntries {
		fmt.Fprintf(&export, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=11111111222233334444555566667777\n_HOSTNAME=node-1\n%s\n\n", 1767366245123456+i, 1000+i, strings.TrimSuffix(fields, "\n"))
	}
	cmd := exec.Command("systemd-journal-remote", "--output="+path, "-")
	cmd.Stdin = strings.NewReader(export.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	show := exec.Command("journalctl", append([]string{"--file=" + path}, args...)...)
	show.Env = append(os.Environ(), "TZ=local-1") // as in TestMain
	out, err := show.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// In each form that the journalctl here can print, the lines have the same identifiers, messages and, as exactly as it tells, times.
func TestFormsOfJournalctl(t *testing.T) {
	names := func(data []byte, form string) (all []string) {
		r, err := New(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		var e Entry
		for r.Next(&e) == nil {
			all = append(all, fmt.Sprintf("%s %q", bytes.Join(e.Identifiers, []byte(",")), e.Message))
			if at := e.Time(); !strings.HasPrefix(form, "short-monotonic") && !strings.HasPrefix(form, "short-delta") && at.Unix() != 1767366245 {
				t.Errorf("%s: %v", form, at.In(time.UTC))
			}
		}
		if r.Skipped != 0 || r.Blobs != 0 || (r.Units > 0) != strings.HasPrefix(form, "with-unit") {
			t.Errorf("%s: %d skipped, %d blobs, %d units", form, r.Skipped, r.Blobs, r.Units)
		}
		return all
	}
	want := names(journalctl(t, "-o", "export"), "export")
	for _, form := range []string{
		"short", "short-full", "short-iso", "short-iso-precise", "short-precise", "short-unix", "short-monotonic", "short-delta", "with-unit", "verbose",
		"json", "json-seq", "json-sse", "short-full --no-hostname", "short-unix --no-hostname", "with-unit --no-hostname", "short-full --utc", "verbose --utc",
	} {
		args := append(strings.Fields("-o "+form), "--all")
		if diff := cmp.Diff(want, names(journalctl(t, args...), form)); diff != "" {
			t.Errorf("%s: %s", form, diff)
		}
	}
}

// What dmesg prints is the kernel's, and journalctl's short-monotonic is not.
func TestFormsOfDmesg(t *testing.T) {
	for data, want := range map[string][]string{
		"[    1.5] usb 1-1: new\n[    2.5] EXT4-fs (sda): a\n":              {`kernel "usb 1-1: new"`, `kernel "EXT4-fs (sda): a"`},
		"[    1.5] usb 1-1: new\n":                                          {`kernel "usb 1-1: new"`},
		"[    1.5] node kernel: new\n[    2.5] node kubelet[1]: a\n":        {`kernel "new"`, `kubelet "a"`},
		"[    1.5] node a b: c[5]: d\n[    1.5] node kubelet[1]: a\n":       {` "[    1.5] node a b: c[5]: d"`, `kubelet "a"`},
		"[    1.5] systemd[1]: foo[2]: a\n":                                 {`kernel "systemd[1]: foo[2]: a"`},
		"[  +0.389973] a\n[ +21.401830] b\n":                                {`kernel "a"`, `kernel "b"`},
		"[Nov27 11:51] a\n[  +0.1] b\n":                                     {`kernel "a"`, `kernel "b"`},
		"[<    0.389973>] a\n":                                              {`kernel "a"`},
		"<6>[    1.5] usb 1-1: new\n":                                       {`kernel "usb 1-1: new"`},
		"kern  :info  : [    1.5] usb 1-1: new\nuser  :notice: [    2.5] b": {`kernel "usb 1-1: new"`, `kernel "b"`},
		"[Fri Nov 27 12:30:25 2026] a\n[Fri Nov 27 12:30:25 2026] b":        {`kernel "a"`, `kernel "b"`},
		"[    1.5][    T1] usb 1-1: new\n":                                  {`kernel "usb 1-1: new"`},
		"6,1,2,-;a\n SUBSYSTEM=usb\n":                                       {`kernel "a"`, ` " SUBSYSTEM=usb"`},
		"[  OK  ] Started a.\n":                                             {` "[  OK  ] Started a."`},
	} {
		r, err := New(strings.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for e := (Entry{}); r.Next(&e) == nil; {
			got = append(got, fmt.Sprintf("%s %q", bytes.Join(e.Identifiers, nil), e.Message))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", data, diff)
		}
	}
}

// A message is joined with its further lines also where they lie at the end of what is read ahead.
func TestFurtherLines(t *testing.T) {
	entry := "Jan  2 15:04:05 node kubelet[1]: first\n" + strings.Repeat(" ", 33) + "second\n"
	r, err := New(strings.NewReader(strings.Repeat(entry, 20_000)))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for e := (Entry{}); r.Next(&e) == nil; count++ {
		if string(e.Message) != "first\nsecond" || string(e.Identifiers[0]) != "kubelet" || e.Time().Second() != 5 || !bytes.HasPrefix(e.Line, []byte("Jan")) {
			t.Fatalf("%d: %s %q %v %q", count, e.Identifiers, e.Message, e.Time(), e.Line)
		}
	}
	if count != 20_000 {
		t.Errorf("%d entries", count)
	}
}

// A message of many lines is cut where one of one line is.
func TestManyFurtherLines(t *testing.T) {
	indent := strings.Repeat(" ", 33)
	for form, data := range map[string]string{
		"short":   "Jan  2 15:04:05 node kubelet[1]: first\n" + strings.Repeat(indent+strings.Repeat("x", 1000)+"\n", 2000) + "Jan  2 15:04:05 node kubelet[1]: next\n",
		"verbose": "Fri 2026-01-02 15:04:05.1 UTC [s=1]\n    MESSAGE=first\n" + strings.Repeat("            "+strings.Repeat("x", 1000)+"\n", 2000) + "Fri 2026-01-02 15:04:05.1 UTC [s=1]\n    MESSAGE=next\n",
	} {
		r, err := New(strings.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		var lengths []int
		for e := (Entry{}); r.Next(&e) == nil; {
			lengths = append(lengths, len(e.Message))
		}
		if diff := cmp.Diff([]int{MaxMessage, 4}, lengths); diff != "" || r.Cut != 1 {
			t.Errorf("%s: %d cut, %s", form, r.Cut, diff)
		}
	}
}

func TestBinary(t *testing.T) {
	if _, err := New(strings.NewReader("\x7fELF\x02\x01\x01\x00")); err != ErrBinary {
		t.Error(err)
	}
}
