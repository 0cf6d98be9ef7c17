//go:build !sdjournal

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/journalfile/journaltest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

const (
	onDisk   = "var/log/journal/" + machineID
	inMemory = "run/log/journal/" + machineID
)

// node is a host root with the files of a journal, by path.
type node map[string]journaltest.File

func (n node) write(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	hosttest.Tree{"etc/machine-id": machineID + "\n"}.Write(t, dir)
	for path, file := range n {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		file.Write(t, path)
	}
	return dir
}

func (n node) look(t testing.TB) *plugin.Look {
	t.Helper()
	return plugintest.Look(t, hosttest.Open(t, n.write(t)))
}

// ago is an entry of kubelet so long before the look.
func ago(d time.Duration, message string) journaltest.Entry {
	return by("kubelet", d, message)
}

func by(identifier string, d time.Duration, message string) journaltest.Entry {
	return entry(d, "SYSLOG_IDENTIFIER="+identifier, "PRIORITY=6", "MESSAGE="+message)
}

func entry(d time.Duration, texts ...string) journaltest.Entry {
	return journaltest.Entry{Realtime: uint64(plugintest.Now.Add(-d).UnixMicro()), Fields: journaltest.Texts(texts...)}
}

func file(entries ...journaltest.Entry) journaltest.File {
	return journaltest.File{SeqnumID: 1, Entries: entries}
}

func single(entries ...journaltest.Entry) node {
	return node{onDisk + "/system.journal": file(entries...)}
}

func TestProblem(t *testing.T) {
	v := newCheck(t).look(t.Context(), single(
		ago(9*time.Minute, "I1101 toy: broken wheel"),
		ago(5*time.Minute, "all is well"),
		by("k3s", 4*time.Minute, "broken wing"),
		ago(61*time.Second, "E1101 broken nose: no glue\n"),
	).look(t))
	plugintest.Want(t, v, plugin.Problem, "toys break: 3 lines in 10m (limit 3), 11:51:00 to 11:58:59 UTC, last kubelet: broken nose: no glue")
	details := []string{"2026-11-01T11:51:00Z kubelet: broken wheel", "2026-11-01T11:56:00Z k3s: broken wing", "2026-11-01T11:58:59Z kubelet: broken nose: no glue"}
	if got := strings.Join(v.Details, "\n"); got != strings.Join(details, "\n") {
		t.Errorf("details:\n%s", got)
	}
	if m := v.Measurements[0]; m.Value != 3 || m.Limit != 3 {
		t.Errorf("%+v", m)
	}
}

func TestLongWindowTellsTheDay(t *testing.T) {
	v := newCheck(t, "--window=48h", "--count=1").look(t.Context(), single(ago(47*time.Hour, "broken"+" wheel"), ago(0, "ok")).look(t))
	plugintest.Want(t, v, plugin.Problem, "1 line in 48h (limit 1), 10-30 13:00:00 to 10-30 13:00:00 UTC")
}

// What counts, and what does not.
func TestCount(t *testing.T) {
	const window = 10 * time.Minute
	lastWord := func(n int, entries ...journaltest.Entry) (int, node) {
		return n, single(append(entries, ago(0, "ok"))...)
	}
	for name, make := range map[string]func() (int, node){
		"edges of the window": func() (int, node) {
			return lastWord(3, ago(window+time.Microsecond, "broken a"), ago(window, "broken b"), ago(window-time.Microsecond, "broken c"), ago(0, "broken d"))
		},
		"logged while the look began": func() (int, node) { return lastWord(1, ago(-time.Second, "broken a")) },
		"logged by a wrong clock":     func() (int, node) { return lastWord(0, ago(-time.Hour, "broken a")) },
		"the clock was set back": func() (int, node) {
			return lastWord(1, ago(window/2, "ok"), ago(2*window, "broken a"), ago(window/3, "broken b"))
		},
		"other identifiers": func() (int, node) {
			return lastWord(0, by("node-problem-detector", time.Minute, "broken a"), by("kubele", time.Minute, "broken b"), by("kubelet2", time.Minute, "broken c"))
		},
		"no identifier":  func() (int, node) { return lastWord(0, entry(time.Minute, "MESSAGE=broken a")) },
		"no message":     func() (int, node) { return lastWord(0, entry(time.Minute, "SYSLOG_IDENTIFIER=kubelet"), ago(0, "")) },
		"binary message": func() (int, node) { return lastWord(1, ago(time.Minute, "\x00\xff\x1b[31m broken \xf0\x00\x01")) },
		"the last message": func() (int, node) {
			return lastWord(1, entry(time.Minute, "SYSLOG_IDENTIFIER=kubelet", "MESSAGE=ok", "MESSAGE=broken a"),
				entry(time.Minute, "SYSLOG_IDENTIFIER=kubelet", "MESSAGE=broken a", "MESSAGE=ok"))
		},
		"to the end of a message": func() (int, node) {
			return lastWord(1, ago(time.Minute, "broken a\nok"), ago(time.Minute, "ok\nbroken a"))
		},
		"1 MiB": func() (int, node) {
			return lastWord(1, ago(time.Minute, "broken "+strings.Repeat("a", 1<<20)), ago(time.Minute, strings.Repeat("a", 1<<20)+"broken a"))
		},
		"rotated": func() (int, node) {
			return 5, node{
				onDisk + "/system@00000000000000000000000000000001-0000000000000001-0006000000000000.journal": file(ago(20*time.Minute, "broken a"), ago(9*time.Minute, "broken b"), ago(8*time.Minute, "broken c")),
				onDisk + "/system.journal": {SeqnumID: 1, Compact: true, Entries: []journaltest.Entry{
					{Seqnum: 4, Realtime: ago(5*time.Minute, "").Realtime, Fields: ago(0, "broken d").Fields}, {Seqnum: 5, Realtime: ago(0, "").Realtime, Fields: ago(0, "broken e").Fields}}},
				inMemory + "/system.journal": {SeqnumID: 2, Entries: []journaltest.Entry{ago(7*time.Minute, "broken f")}},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			want, n := make()
			v := newCheck(t, "--count=100").look(t.Context(), n.look(t))
			plugintest.Want(t, v, plugin.OK, plugin.Count(want, "line")+" in 10m (limit 100)")
		})
	}
}

// What comes and goes between two looks is told for as long as the window: ten lines in 45 s, and the node is ready again.
func TestFlap(t *testing.T) {
	var entries []journaltest.Entry
	for i := range 10 {
		entries = append(entries, ago(9*time.Minute-time.Duration(i)*5*time.Second, "broken a"))
	}
	entries = append(entries, ago(8*time.Minute, "mended"))
	l := single(entries...).look(t)
	plugintest.Want(t, newCheck(t).look(t.Context(), l), plugin.Problem, "10 lines in 10m (limit 3), 11:51:00 to 11:51:45 UTC")
	l.Now = l.Now.Add(90 * time.Second)
	plugintest.Want(t, newCheck(t).look(t.Context(), l), plugin.Problem, "4 lines in 10m")
	l.Now = l.Now.Add(15 * time.Second)
	plugintest.Want(t, newCheck(t).look(t.Context(), l), plugin.OK, "1 line in 10m")
}

// The condition clears by itself when the lines are older than the window.
func TestWindowPasses(t *testing.T) {
	c, l := newCheck(t), single(ago(3*time.Minute, "broken a"), ago(2*time.Minute, "broken b"), ago(time.Minute, "broken c")).look(t)
	plugintest.Want(t, c.look(t.Context(), l), plugin.Problem)
	l.Now = l.Now.Add(7 * time.Minute)
	plugintest.Want(t, c.look(t.Context(), l), plugin.Problem)
	l.Now = l.Now.Add(time.Second)
	plugintest.Want(t, c.look(t.Context(), l), plugin.OK, "2 lines")
}

// Of more entries than may be read the newest are.
func TestBound(t *testing.T) {
	many := func(brokenFrom, brokenTo int, more ...journaltest.Entry) *plugin.Look {
		var entries []journaltest.Entry
		for minute := 10; minute > 0; minute-- {
			for range 10 {
				message := "ok"
				if minute <= brokenFrom && minute >= brokenTo {
					message = "broken a"
				}
				entries = append(entries, ago(time.Duration(minute)*time.Minute, message))
			}
		}
		return single(append(entries, more...)...).look(t)
	}
	c := newCheck(t, "--max-entries=60", "--count=20")
	plugintest.Want(t, c.look(t.Context(), many(5, 4)), plugin.Problem, "20 lines in 10m", "11:55:00 to 11:56:00")
	plugintest.Want(t, c.look(t.Context(), many(10, 6)), plugin.Unknown, "0 lines in 10m (limit 20), but only those since 11:55:00 UTC were looked at: the window has more than --max-entries")
	plugintest.Want(t, newCheck(t, "--count=20").look(t.Context(), many(10, 9)), plugin.Problem)
}

// All at once, so that no shorter window is short enough.
func TestBoundOfAMoment(t *testing.T) {
	var entries []journaltest.Entry
	for range 20_000 {
		entries = append(entries, ago(0, "broken a"))
	}
	look := journaltestNode(entries, 1000)
	v := newCheck(t, "--max-entries=5000").look(t.Context(), look.look(t))
	plugintest.Want(t, v, plugin.Problem)
	if read := v.Measurements[1].Value; read > 5000+2*4096 {
		t.Errorf("%v entries read", read)
	}
}

func journaltestNode(entries []journaltest.Entry, array int) node {
	return node{onDisk + "/system.journal": {SeqnumID: 1, Array: array, Entries: entries}}
}

func TestNoTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := newCheck(t).look(ctx, single(ago(time.Minute, "ok")).look(t))
	plugintest.Want(t, v, plugin.Unknown, "0 lines in 10m (limit 3), but the journal could not be read to its end in time", "raise --timeout")
}

// A file that cannot be read matters while it may hold lines of the window.
func TestDamagedFile(t *testing.T) {
	damage := map[string]func(b []byte) []byte{
		"header":    func(b []byte) []byte { return append([]byte("LPKSHHRH"), make([]byte, len(b)-8)...) },
		"no header": func(b []byte) []byte { return []byte(strings.Repeat("x", len(b))) },
		"empty":     func([]byte) []byte { return nil },
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"list":      func(b []byte) []byte { copy(b[176:], "\xff\xff\xff\xff"); return b },
	}
	for name, damaged := range damage {
		t.Run(name, func(t *testing.T) {
			dir := single(ago(3*time.Minute, "broken a"), ago(2*time.Minute, "broken b"), ago(time.Minute, "broken c")).write(t)
			broken := filepath.Join(dir, onDisk, "system@1.journal")
			content := file(ago(9*time.Minute, "broken x"), ago(8*time.Minute, "broken y"), ago(7*time.Minute, "ok"), ago(7*time.Minute, "ok"), ago(7*time.Minute, "ok")).Bytes()
			if err := os.WriteFile(broken, damaged(content), 0o644); err != nil {
				t.Fatal(err)
			}
			setTime(t, broken, plugintest.Now.Add(-5*time.Minute))
			l := plugintest.Look(t, hosttest.Open(t, dir))
			plugintest.Want(t, newCheck(t).look(t.Context(), l), plugin.Problem, "lines in 10m")
			plugintest.Want(t, newCheck(t, "--count=50").look(t.Context(), l), plugin.Unknown, "a part of the journal cannot be read (journalctl --verify)", "system@1.journal")
			setTime(t, broken, plugintest.Now.Add(-time.Hour))
			plugintest.Want(t, newCheck(t, "--count=50").look(t.Context(), l), plugin.OK, "lines in 10m (limit 50)")
		})
	}
}

func TestUnknown(t *testing.T) {
	for name, tt := range map[string]struct {
		tree hosttest.Tree
		want string
	}{
		"nothing":      {hosttest.Tree{}, "/run/log/journal and no "},
		"no file":      {hosttest.Tree{"var/log/journal/" + machineID + "/": ""}, "no *.journal in "},
		"a file there": {hosttest.Tree{"var/log/journal": "x"}, "mount the one that journald writes to, or set --journal"},
		"link out":     {hosttest.Tree{"var/log/journal": "-> /tmp"}, "/run/log/journal and no "},
	} {
		v := newCheck(t).look(t.Context(), plugintest.Look(t, tt.tree.Open(t)))
		t.Logf("%s: %s", name, v.Message)
		plugintest.Want(t, v, plugin.Unknown, "cannot read the journal: ", tt.want)
	}
	plugintest.Want(t, new(check).look(t.Context(), single().look(t)), plugin.Unknown, "give --identifier and --pattern")
	plugintest.Want(t, newCheck(t).look(t.Context(), single(ago(2*time.Hour, "ok")).look(t)), plugin.Unknown,
		"journald does not write to ", "where the last entry is of 2026-11-01 10:00:00 UTC: mount")
	plugintest.Want(t, newCheck(t).look(t.Context(), single().look(t)), plugin.Unknown, "where is no entry: mount")
}

// A file of the journal that is a link out of the host root is not followed.
func TestLinkOutOfHost(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.journal")
	file(ago(3*time.Minute, "broken a"), ago(2*time.Minute, "broken b"), ago(time.Minute, "broken c")).Write(t, outside)
	dir := single(ago(time.Minute, "ok")).write(t)
	if err := os.Symlink(outside, filepath.Join(dir, onDisk, "user-1000.journal")); err != nil {
		t.Fatal(err)
	}
	plugintest.Want(t, newCheck(t).look(t.Context(), plugintest.Look(t, hosttest.Open(t, dir))), plugin.OK, "0 lines")
}

// Journals of others are read only where it is not known which is the node's own.
func TestMachine(t *testing.T) {
	other := "var/log/journal/ffffffffffffffffffffffffffffffff/system.journal"
	n := single(ago(0, "ok"))
	n[other] = file(ago(3*time.Minute, "broken a"), ago(2*time.Minute, "broken b"), ago(time.Minute, "broken c"))
	dir := n.write(t)
	c, l := newCheck(t), plugintest.Look(t, hosttest.Open(t, dir))
	plugintest.Want(t, c.look(t.Context(), l), plugin.OK)
	plugintest.Want(t, newCheck(t, "--journal=/"+filepath.Dir(other)).look(t.Context(), l), plugin.Problem)
	for _, id := range []string{"", "uninitialized\n", "../../../etc", "0123"} {
		hosttest.Tree{"etc/machine-id": id}.Write(t, dir)
		if v := c.look(t.Context(), l); v.Status == plugin.Unknown {
			t.Errorf("machine-id %q: %s", id, v.Message)
		}
	}
	if err := os.Remove(filepath.Join(dir, "etc/machine-id")); err != nil {
		t.Fatal(err)
	}
	plugintest.Want(t, c.look(t.Context(), l), plugin.Problem)
}

// Of a line no more is told than what is safe and short.
func TestExcerpt(t *testing.T) {
	const id = "9c1185a5c5e9fc54612808977ee8f548b2258d31c8b5b7a1e0f7a3d6e4c2b1a0"
	for text, want := range map[string]string{
		`level=error msg="StopPodSandbox for \"` + id + `\" is broken by 100%"`: `broken by 100?"`,
		"Tbroken in " + id + ": no":                          "Tbroken in 9c1185a5c5e9f..: no",
		`broken \"wheel\" of \\\"toy\\\"`:                    `broken "wheel" of "toy"`,
		"broken by 3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13":     "broken by 3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13",
		"broken \x1b[31m\x00\xff\u202e\r\nbroken it is":      "broken it is",
		"broken Bearer " + strings.Repeat("eyJhbGciOi", 9):   "broken Bearer eyJhbGciOieyJ..",
		strings.Repeat("a", 100) + "broken " + "x":           "broken x",
		"broken " + strings.Repeat("it ", 200):               "broken " + strings.Repeat("it ", 200)[:shownExcerpt-9] + "..",
		"broken " + strings.Repeat("\xf0\x9f\x92\xa9%", 500): "broken " + strings.Repeat("?", shownExcerpt-9) + "..",
	} {
		v := newCheck(t, "--count=1").look(t.Context(), single(ago(time.Minute, text)).look(t))
		plugintest.Want(t, v, plugin.Problem)
		if !strings.HasSuffix(v.Message, "last kubelet: "+want) {
			t.Errorf("%q: %s, want %s", text, v.Message, want)
		}
	}
}

// A FIFO among the files is nothing to wait for.
func TestFIFO(t *testing.T) {
	dir := single(ago(time.Minute, "ok")).write(t)
	if err := syscall.Mkfifo(filepath.Join(dir, onDisk, "user-1000.journal"), 0o600); err != nil {
		t.Fatal(err)
	}
	plugintest.Want(t, newCheck(t).look(t.Context(), plugintest.Look(t, hosttest.Open(t, dir))), plugin.Unknown, "user-1000.journal: no regular file")
}
