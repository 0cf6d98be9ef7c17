package procfs

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func FuzzParseStat(f *testing.F) {
	for _, seed := range []string{
		"4711 (nginx) S 1 " + tail + " 5 0 12345 " + rest,
		"4711 (a) Z 9 9 (b) S 1 " + tail + " 1 0 7 " + rest,
		"4711 (a\nb\x1b[31m\xff) D 1 " + tail + " 1 0 7",
		"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 16 0 0 20 0 1 0 3 0 0",
		"4711 (nginx) S 1 4711", "1 () ", "()", ")(", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStat(b)
		if err != nil {
			if s != (Stat{}) {
				t.Errorf("%+v beside the error %v", s, err)
			}
			return
		}
		if s.PID < 0 || s.PPID < 0 || s.Threads < 0 {
			t.Errorf("negative: %+v", s)
		}
		if !bytes.Contains(b, []byte("("+s.Comm+")")) || bytes.LastIndexByte(b, ')') != bytes.IndexByte(b, '(')+1+len(s.Comm) {
			t.Errorf("comm %q of %q", s.Comm, b)
		}
		// What was read, written as the kernel does, reads the same.
		middle := tail
		if s.Exiting {
			middle = strings.Replace(tail, "4194560", "4194564", 1)
		}
		line := fmt.Sprintf("%d (%s) %c %d %s %d 0 %d %s", s.PID, s.Comm, s.State, s.PPID, middle, s.Threads, s.Start, rest)
		again, err := ParseStat([]byte(line))
		if s.State < 0x80 && (err != nil || again != s) {
			t.Errorf("%+v, %v; want %+v", again, err, s)
		}
	})
}

func FuzzTasks(f *testing.F) {
	for _, seed := range []string{
		"0.20 0.38 0.41 2/744 32012\n", "0 0 0 0/0 0", "1 2 3 4", "1 2 3 /5", "1 2 3 4/99999999999999999999", "", "\x00\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseTasks(b)
		if err != nil {
			if n != 0 {
				t.Errorf("%d tasks beside the error %v", n, err)
			}
			return
		}
		fields := bytes.Fields(b)
		_, total, _ := strings.Cut(string(fields[3]), "/")
		if n < 1 || strings.TrimLeft(total, "0") != fmt.Sprint(n) {
			t.Errorf("%d tasks in %q", n, b)
		}
	})
}
