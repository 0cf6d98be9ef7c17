package logread

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/journalfile/journaltest"
)

var journalDir = flag.String("journal", "", "`directory` to read beside journalctl, instead of the journals that the test makes")

// openJournal reads all that is in the paths.
func openJournal(t testing.TB, identifiers []string, paths ...string) *Reader {
	t.Helper()
	journal, err := OpenJournal(identifiers, time.Time{}, nil, paths...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(journal.Close)
	return NewJournal(journal)
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.journal")
	huge := strings.Repeat("x", MaxMessage+1)
	journaltest.File{Entries: []journaltest.Entry{
		{Realtime: 1e15, Fields: journaltest.Texts("MESSAGE=a=b ", "PRIORITY=3", "SYSLOG_IDENTIFIER=kubelet", "OTHER=1")},
		{Realtime: 1e15 + 1, Fields: journaltest.Texts("MESSAGE=a", "MESSAGE=b\n\x00", "SYSLOG_IDENTIFIER=x", "SYSLOG_IDENTIFIER=y", "PRIORITY=99")},
		{Realtime: 1e15 + 2, Fields: journaltest.Texts("OTHER=1", "PRIORITY=9")},
		{Realtime: 1e15 + 3, Fields: journaltest.Texts("MESSAGE=" + huge)},
	}}.Write(t, path)
	r := openJournal(t, nil, path)
	got, err := read(t, r)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`kubelet 3 "a=b "`, `x,y -1 "b\n\x00"`, ` -1 ""`, fmt.Sprintf(" -1 %q", huge[:MaxMessage])}
	if diff := cmp.Diff(want, got); diff != "" || r.Cut != 1 {
		t.Errorf("%d cut, %.500s", r.Cut, diff)
	}
	var e Entry
	r = openJournal(t, []string{"y"}, path)
	if err := r.Next(&e); err != nil || line(&e) != want[1] || !e.Time().Equal(time.UnixMicro(1e15+1)) {
		t.Errorf("%v: %s at %v", err, line(&e), e.Time())
	}
	if err := r.Next(&e); err != io.EOF {
		t.Error(err)
	}
}

// varied is an export stream of entries of all kinds.
func varied(random *rand.Rand, begin, count int) string {
	var out strings.Builder
	for i := range count {
		at := 1763700000000000 + (begin+i)*1000
		fmt.Fprintf(&out, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=11111111222233334444555566667777\n", at, at-1763600000000000)
		fmt.Fprintf(&out, "PRIORITY=%d\n_PID=%d\n_CMDLINE=%s\n", random.IntN(8), random.IntN(50), strings.Repeat("--flag=value ", 80))
		for random.IntN(10) > 0 {
			fmt.Fprintf(&out, "SYSLOG_IDENTIFIER=%s\n", []string{"kubelet", "kernel", "sshd"}[random.IntN(3)])
			if random.IntN(10) > 0 {
				break
			}
		}
		switch random.IntN(8) {
		case 0:
			out.WriteString(binaryField("MESSAGE", fmt.Sprintf("\x1b[1mbinary\n\xff\x00 %d", i)))
		case 1, 2:
			out.WriteString("MESSAGE=")
			for range random.IntN(900) {
				fmt.Fprintf(&out, "pod-%d failed, ", random.IntN(100))
			}
			out.WriteString("\n")
		case 3:
		case 4:
			fmt.Fprintf(&out, "MESSAGE=first\nMESSAGE=second %d\n", i)
		default:
			fmt.Fprintf(&out, "MESSAGE=line %d\n", i)
		}
		if random.IntN(count) == 0 {
			fmt.Fprintf(&out, "MESSAGE=%s\n", strings.Repeat("very long ", 200_000))
		}
		out.WriteString("\n")
	}
	return out.String()
}

// asJournalctl reads a directory and what journalctl prints of it, entry by entry, and that again from the middle on.
func asJournalctl(t *testing.T, dir string) (entries int) {
	t.Helper()
	r, times := openJournal(t, nil, dir), []time.Time{}
	for e := (Entry{}); r.Next(&e) == nil; {
		times = append(times, e.Time())
	}
	if len(times) > 0 {
		sinceJournalctl(t, dir, times[len(times)/2])
	}
	return sinceJournalctl(t, dir, time.UnixMicro(1))
}

func sinceJournalctl(t *testing.T, dir string, since time.Time) (entries int) {
	t.Helper()
	cmd := exec.Command("journalctl", "--directory="+dir, "--output=export", "--quiet",
		fmt.Sprintf("--since=@%d.%06d", since.Unix(), since.Nanosecond()/1000))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	journal, err := OpenJournal(nil, since, nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	ours, theirs := NewJournal(journal), NewFormat(stdout, Export)
	var a, b Entry
	for ; ; entries++ {
		errA, errB := ours.Next(&a), theirs.Next(&b)
		if errA != errB {
			t.Fatalf("%s: after %d entries %v, journalctl %v", dir, entries, errA, errB)
		}
		if errA == io.EOF {
			break
		}
		if errA != nil {
			t.Fatal(errA)
		}
		if !bytes.Equal(a.Message, b.Message) || !a.Time().Equal(b.Time()) || line(&a) != line(&b) {
			t.Fatalf("%s: entry %d is %v %.200s, of journalctl %v %.200s", dir, entries, a.Time(), line(&a), b.Time(), line(&b))
		}
	}
	if broken := journal.Broken(); len(broken) > 0 || journal.Damaged() > 0 || ours.Cut != theirs.Cut {
		t.Errorf("%s: %d damaged, %d cut, %v", dir, journal.Damaged(), ours.Cut, broken)
	}
	return entries
}

// Real files of each kind that the systemd here writes are read as journalctl reads them: several of one machine that overlap, with
// copies of the same entries, and of another one.
func TestJournalAsJournalctl(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/lib/systemd:/lib/systemd")
	for _, name := range []string{"systemd-journal-remote", "journalctl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s here, it is what this is compared with", name)
		}
	}
	if *journalDir != "" {
		t.Logf("%d entries", asJournalctl(t, *journalDir))
		return
	}
	for _, setting := range []string{"COMPACT=1", "COMPACT=0", "KEYED_HASH=0", "COMPRESS=LZ4", "COMPRESS=XZ", "COMPRESS=0"} {
		t.Run(setting, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			dir := t.TempDir()
			machine := filepath.Join(dir, strings.Repeat("ab", 16))
			if err := os.Mkdir(machine, 0o755); err != nil {
				t.Fatal(err)
			}
			wanted := 0
			for i, file := range []string{"system", "user-1000", "other"} {
				cmd := exec.Command("systemd-journal-remote", "--output="+filepath.Join(machine, file+".journal"), "-")
				cmd.Stdin = strings.NewReader(varied(random, i*150, 300))
				cmd.Env = append(os.Environ(), "SYSTEMD_JOURNAL_"+setting)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				wanted += 300
			}
			content, err := os.ReadFile(filepath.Join(machine, "system.journal"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "copy.journal~"), content, 0o644); err != nil {
				t.Fatal(err)
			}
			if entries := asJournalctl(t, dir); entries != wanted {
				t.Errorf("%d entries, want %d", entries, wanted)
			}
		})
	}
}

// BenchmarkJournal reads journal files of entries with two dozen fields.
func BenchmarkJournal(b *testing.B) {
	const perRound = 100_000
	file := journaltest.File{Array: 10_000, Compact: true}
	for i := range perRound {
		fields := journaltest.Texts("PRIORITY=6", "SYSLOG_IDENTIFIER=kubelet", fmt.Sprintf("MESSAGE=a line of a log, number %d", i), fmt.Sprintf("_SOURCE_REALTIME_TIMESTAMP=%d", i))
		for j := range 20 {
			fields = append(fields, journaltest.Texts(fmt.Sprintf("_FIELD_%d=value", j))...)
		}
		file.Entries = append(file.Entries, journaltest.Entry{Realtime: uint64(1e15 + i), Fields: fields})
	}
	path := filepath.Join(b.TempDir(), "a.journal")
	file.Write(b, path)
	for b.Loop() {
		r, count := openJournal(b, []string{"kubelet"}, path), 0
		var e Entry
		for r.Next(&e) == nil {
			count++
		}
		if count != perRound {
			b.Fatalf("%d entries", count)
		}
	}
	b.ReportMetric(float64(b.N*perRound)/b.Elapsed().Seconds(), "entries/s")
}
