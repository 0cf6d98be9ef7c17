package journalfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"npd-plugins/internal/journalfile/journaltest"
)

// query asks for what npdctl does.
func query() Query {
	return Query{Fields: []string{"ID", "MESSAGE"}, MaxValue: 1 << 20}
}

// all reads the entries as "realtime NAME=value ...".
func all(t testing.TB, q Query, paths ...string) (lines []string, j *Journal) {
	t.Helper()
	j, err := Open(q, paths...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	var e Entry
	for {
		err := j.Next(&e)
		if err == io.EOF {
			return lines, j
		}
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprint(e.Realtime)
		for _, f := range e.Fields {
			line += fmt.Sprintf(" %s=%s", q.Fields[f.Name], f.Value)
		}
		lines = append(lines, line)
	}
}

func (j *Journal) trouble() string {
	text := ""
	for _, err := range j.Broken() {
		text += err.Error() + "\n"
	}
	return text
}

func equal(t testing.TB, name string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %.500s", name, diff)
	}
}

// numbered has entries with the times and messages from, from+step, ...
func numbered(from, step, count int) (entries []journaltest.Entry) {
	for i := range count {
		n := from + i*step
		entries = append(entries, journaltest.Entry{
			Seqnum: uint64(n), Monotonic: uint64(n), Realtime: uint64(n),
			Fields: journaltest.Texts("ID=a", "_PID=1", fmt.Sprintf("MESSAGE=%d", n), fmt.Sprintf("OTHER=%d", n)),
		})
	}
	return entries
}

func lines(from, step, count int) (lines []string) {
	for i := range count {
		lines = append(lines, fmt.Sprintf("%[1]d ID=a MESSAGE=%[1]d", from+i*step))
	}
	return lines
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.journal")
	for _, compact := range []bool{false, true} {
		for count := range 20 {
			for array := 1; array < 6; array++ {
				journaltest.File{Compact: compact, Array: array, Entries: numbered(1, 1, count)}.Write(t, path)
				got, j := all(t, query(), path)
				equal(t, fmt.Sprint(compact, count, array), lines(1, 1, count), got)
				if j.Damaged() != 0 || j.trouble() != "" || count > 0 && j.End() != time.UnixMicro(int64(count)) {
					t.Errorf("%d damaged, end %v, %s", j.Damaged(), j.End(), j.trouble())
				}
			}
		}
	}
}

func TestFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.journal")
	journaltest.File{Entries: []journaltest.Entry{
		{Realtime: 1, Fields: journaltest.Texts("MESSAGE=", "MESSAGE=a=b", "ID=x", "ID=y", "XMESSAGE=no", "MESSAG=no", "MESSAGES=no", "M")},
		{Realtime: 2, Fields: journaltest.Texts("OTHER=1")},
		{Realtime: 3, Fields: journaltest.Texts("ID=z", "MESSAGE=\x00\n\xff"+strings.Repeat("x", 99))},
	}}.Write(t, path)
	q := query()
	q.MaxValue = 5
	got, _ := all(t, q, path)
	equal(t, "all", []string{"1 MESSAGE= MESSAGE=a=b ID=x ID=y", "2", "3 ID=z MESSAGE=\x00\n\xffxx"}, got)
	q.Match = []string{"y", "q"}
	got, _ = all(t, q, path)
	equal(t, "matched", []string{"1 MESSAGE= MESSAGE=a=b ID=x ID=y"}, got)
	if _, err := Open(Query{Fields: make([]string, MaxFields+1)}, path); err == nil {
		t.Error("too many fields")
	}
}

func TestSince(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.journal")
	for _, array := range []int{1, 3, 4, 100} {
		file := journaltest.File{Array: array, Entries: numbered(10, 2, 20)}
		file.Write(t, path)
		for since := 5; since < 55; since++ {
			q := query()
			q.Since = time.UnixMicro(int64(since))
			first := max(0, (since-10+1)/2)
			got, _ := all(t, q, path)
			equal(t, fmt.Sprint(array, since), lines(10+2*first, 2, max(0, 20-first)), got)
		}
	}
}

// Entries of several files come as one: interleaved, with copies once, by the clock where the numbers have different origins.
func TestMerge(t *testing.T) {
	dir := t.TempDir()
	machine := filepath.Join(dir, "0123456789abcdef0123456789abcdef")
	for _, d := range []string{machine, filepath.Join(dir, "remote"), machine + ".name"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	journaltest.File{Entries: numbered(21, 2, 5)}.Write(t, filepath.Join(dir, "system.journal"))
	journaltest.File{Entries: numbered(1, 1, 20)}.Write(t, filepath.Join(machine, "system@1.journal"))
	journaltest.File{Entries: numbered(22, 2, 5)}.Write(t, filepath.Join(machine, "user-1000.journal"))
	journaltest.File{Entries: numbered(15, 1, 10)}.Write(t, filepath.Join(dir, "copies.journal~"))
	journaltest.File{Entries: numbered(1, 1, 1)}.Write(t, filepath.Join(dir, "remote/other.journal"))
	journaltest.File{Entries: numbered(1, 1, 1)}.Write(t, filepath.Join(machine+".name", "other.journal"))
	journaltest.File{Entries: numbered(1, 1, 1)}.Write(t, filepath.Join(dir, "journal"))
	got, j := all(t, query(), dir)
	equal(t, "one origin", lines(1, 1, 30), got)
	if j.Files() != 4 || j.trouble() != "" {
		t.Errorf("%d files, %s", j.Files(), j.trouble())
	}

	// Numbers of two origins, the second one of another boot.
	dir = t.TempDir()
	second := numbered(100, 10, 3)
	for i := range second {
		second[i].Seqnum, second[i].Monotonic, second[i].Boot = uint64(i+1), uint64(i+1), 1
	}
	journaltest.File{SeqnumID: 1, Entries: second}.Write(t, filepath.Join(dir, "a.journal"))
	journaltest.File{SeqnumID: 2, Entries: numbered(95, 10, 3)}.Write(t, filepath.Join(dir, "b.journal"))
	got, _ = all(t, query(), dir)
	equal(t, "two origins", lines(95, 5, 6), got)
	got, _ = all(t, query(), filepath.Join(dir, "a.journal"), filepath.Join(dir, "b.journal"))
	equal(t, "two files", lines(95, 5, 6), got)
}

func TestPacked(t *testing.T) {
	text := "MESSAGE=" + strings.Repeat("it sighs and moans, ", 100_000)
	zw, _ := zstd.NewWriter(nil)
	var xzText bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 1 << 20, CheckSum: xz.CRC32}.NewWriter(&xzText)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	zText := string(zw.EncodeAll([]byte(text), nil))
	// A block of literals, a match that overlaps itself, and the rest as literals.
	short := "MESSAGE=" + strings.Repeat("ab", 150) + "end"
	lz4 := string([]byte{byte(len(short)), byte(len(short) >> 8), 0, 0, 0, 0, 0, 0, 10<<4 | 15}) + "MESSAGE=ab" + "\x02\x00\xff\x18\x30end"
	path := filepath.Join(t.TempDir(), "a.journal")
	for name, c := range map[string]struct {
		field journaltest.Field
		want  string
	}{
		"ZSTD": {journaltest.Field{Flags: 4, Text: zText}, text},
		"XZ":   {journaltest.Field{Flags: 1, Text: xzText.String()}, text},
		"LZ4":  {journaltest.Field{Flags: 2, Text: lz4}, short},
	} {
		for _, compact := range []bool{false, true} {
			other := journaltest.Field{Flags: c.field.Flags, Text: strings.Repeat("broken", 9)}
			entry := journaltest.Entry{Realtime: 1, Fields: []journaltest.Field{{Text: "ID=a"}, c.field, other}}
			journaltest.File{Compact: compact, Entries: []journaltest.Entry{entry}}.Write(t, path)
			for _, limit := range []int{1 << 20, 1 << 22, 300, 10, 1} {
				q := query()
				q.MaxValue = limit
				got, j := all(t, q, path)
				equal(t, name, []string{"1 ID=a MESSAGE=" + c.want[8:min(len(c.want), 8+limit)]}, got)
				if j.Damaged() != 1 {
					t.Errorf("%s: %d damaged", name, j.Damaged())
				}
			}
		}
	}
}

// What asks for much memory is not unpacked.
func TestUnpackLimits(t *testing.T) {
	for name, packed := range map[string]string{
		"sizes and 1 MiB": "\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x05\xc0\x80\x01\x80\x80\x04\x21\x01\x10",
		"1 MiB":           "\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x02\x00\x21\x01\x10",
		"1.5 MiB":         "\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x02\x00\x21\x01\x11",
		"other filter":    "\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x02\x00\x04\x01\x10",
		"two filters":     "\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x02\x01\x21\x01\x10",
		"no size":         "\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x02\x40\xff",
		"short":           "\xfd7zXZ",
	} {
		if got, want := smallXZ([]byte(packed)), strings.HasSuffix(name, "1 MiB"); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	// A ZSTD frame in one piece of 1 GiB.
	var u unpacker
	defer u.close()
	if _, err := u.appendZSTD(nil, []byte("\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x40\x01\x00\x00"), 100); err == nil {
		t.Error("a window of 1 GiB")
	}
	for _, block := range []string{"", "12345678", "\xff\x00\x00\x00\x00\x00\x00\x00\x10", "\xff\x00\x00\x00\x00\x00\x00\x00\xf0\xff\xff",
		"\xff\x00\x00\x00\x00\x00\x00\x00\x10a\x00\x00", "\xff\x00\x00\x00\x00\x00\x00\x00\x10a\x02\x00", "\xff\x00\x00\x00\x00\x00\x00\x00\x1fa\x01\x00\xff",
		"\xff\x00\x00\x00\x00\x00\x00\x00\x10a\x01"} {
		if got, err := appendLZ4(nil, []byte(block), 100); err == nil {
			t.Errorf("%q is %q", block, got)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	good := journaltest.File{Entries: numbered(1, 1, 10)}.Bytes()
	change := func(at int, b ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[at:], b)
		return bad
	}
	for want, content := range map[string][]byte{
		"too short":                   nil,
		"no journal file":             change(0, 'X'),
		"incompatible flags 0x20":     change(12, 0x2c),
		"header makes no sense":       change(88, 1),
		"bytes at its end are":        good[:len(good)-8],
		"10 entries are not found":    change(176, 1),
		"list of entries is damaged,": change(152, 0xff),
	} {
		if err := os.WriteFile(filepath.Join(dir, "bad.journal"), content, 0o644); err != nil {
			t.Fatal(err)
		}
		journaltest.File{Entries: numbered(100, 1, 3)}.Write(t, filepath.Join(dir, "good.journal"))
		got, j := all(t, query(), dir)
		if text := j.trouble(); !strings.Contains(text, want) || !strings.Contains(text, "bad.journal") || len(j.Broken()) != 1 {
			t.Errorf("%s: %s", want, text)
		}
		if len(got) < 3 {
			t.Fatalf("%s: %q", want, got)
		}
		equal(t, want, lines(100, 1, 3), got[len(got)-3:])
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.journal"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, j := all(t, query(), dir); len(j.Broken()) != 1 {
		t.Error(j.trouble())
	}
	if _, err := Open(query(), filepath.Join(dir, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Each byte of a file is changed: what comes is made of other entries of it, and it ends.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.journal")
	for _, compact := range []bool{false, true} {
		good := journaltest.File{Compact: compact, Entries: numbered(1, 1, 10)}.Bytes()
		for at := range good {
			bad := bytes.Clone(good)
			bad[at] ^= 0x10
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if got, j := all(t, query(), path); len(got) > 10 || len(got)+j.Damaged() < 10 && j.trouble() == "" && at != 152 {
				t.Errorf("byte %d: %d entries, %d damaged, %s", at, len(got), j.Damaged(), j.trouble())
			}
		}
	}
}

// A file that ends while it is read makes the kernel send SIGBUS.
func TestCutWhileRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.journal")
	journaltest.File{Entries: numbered(1, 1, 2000)}.Write(t, path)
	journaltest.File{Entries: numbered(3000, 1, 2)}.Write(t, filepath.Join(dir, "b.journal"))
	j, err := Open(query(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var e Entry
	if err := j.Next(&e); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = j.Next(&e)
	}
	if err != io.EOF || e.Realtime != 3001 || !strings.Contains(j.trouble(), "a.journal: a part of it cannot be read") {
		t.Errorf("%v, last %d, %s", err, e.Realtime, j.trouble())
	}
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.journal")
	journaltest.File{Array: 1000, Entries: numbered(1, 1, 3*WatchEvery)}.Write(t, path)
	q := query()
	q.Match = []string{"none"}
	stop, seen := errors.New("stop"), 0
	q.Watch = func(at time.Time) error {
		if seen++; seen == 2 {
			return stop
		}
		return nil
	}
	j, err := Open(q, path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.Next(new(Entry)); err != stop {
		t.Error(err)
	}
}

// FuzzJournal changes numbers in a file: most of it are offsets and sizes.
func FuzzJournal(f *testing.F) {
	packed := numbered(1, 1, 9)
	packed[3].Fields = append(packed[3].Fields,
		journaltest.Field{Flags: 2, Text: "\x08\x00\x00\x00\x00\x00\x00\x00\x80MESSAGE="},
		journaltest.Field{Flags: 4, Text: "\x28\xb5\x2f\xfd\x04\x00\x41\x00\x00MESSAGE="},
		journaltest.Field{Flags: 1, Text: "\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x02\x00\x21\x01\x10"})
	dir := f.TempDir()
	other, path := filepath.Join(dir, "other.journal"), filepath.Join(dir, "a.journal")
	journaltest.File{Entries: numbered(3, 2, 3)}.Write(f, other)
	f.Add(false, uint16(176/8), uint64(0), uint16(152/8), uint64(1<<63), uint16(100), uint64(272), uint16(999), uint64(4))
	f.Add(true, uint16(96/8), uint64(1<<62), uint16(88/8), uint64(1<<63), uint16(300), uint64(1), uint16(301), uint64(0))
	f.Fuzz(func(t *testing.T, compact bool, at1 uint16, to1 uint64, at2 uint16, to2 uint64, at3 uint16, to3 uint64, at4 uint16, to4 uint64) {
		data := journaltest.File{Compact: compact, Entries: packed}.Bytes()
		for _, change := range []struct {
			at uint16
			to uint64
		}{{at1, to1}, {at2, to2}, {at3, to3}, {at4, to4}} {
			if at := int(change.at) * 8; at < len(data) {
				binary.LittleEndian.PutUint64(data[at:], change.to)
			}
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		q := query()
		q.MaxValue = 100
		for _, q.Since = range []time.Time{{}, time.UnixMicro(int64(to4 % 16))} {
			got, j := all(t, q, path, other)
			if len(got) > len(data)/8+3 || len(j.Broken()) > 2 {
				t.Fatalf("%d entries of %d bytes, %s", len(got), len(data), j.trouble())
			}
			j.Close()
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(byte(packedLZ4), []byte("\x08\x00\x00\x00\x00\x00\x00\x00\x10a\x01\x00\x00"), 5)
	f.Add(byte(packedZSTDObject), []byte("\x28\xb5\x2f\xfd\x04\x00\x41\x00\x00MESSAGE="), 5)
	f.Add(byte(packedXZ), []byte("\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00\x02\x00\x21\x01\x10"), 5)
	var u unpacker
	f.Cleanup(u.close)
	f.Fuzz(func(t *testing.T, packing byte, packed []byte, limit int) {
		limit = min(max(limit, 0), 1<<16)
		u.file = nil
		if text, _ := u.text(new(file), 8, packing, packed, limit); len(text) > limit {
			t.Fatalf("%d bytes of at most %d", len(text), limit)
		}
	})
}
