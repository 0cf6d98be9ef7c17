package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

func FuzzSafe(f *testing.F) {
	for _, seed := range []string{"nginx", "95% used", "\x1b[31mred\x00\n\t\r", "\xff\xfe\u00fc\u2028", strings.Repeat("x", 300), ""} {
		f.Add(seed, 16)
		f.Add(seed, MaxMessage)
	}
	f.Fuzz(func(t *testing.T, s string, max int) {
		if max < 2 || max > 1<<16 {
			return
		}
		got := Safe(s, max)
		if len(got) > max {
			t.Errorf("%d bytes, want at most %d", len(got), max)
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return r < ' ' || r > '~' || r == '%' }); i >= 0 {
			t.Errorf("%q at %d of %q", got[i], i, got)
		}
		if again := Safe(got, max); again != got {
			t.Errorf("%q, made safe again %q", got, again)
		}
	})
}

// testNow is the time of a look.
var testNow = time.Unix(1793534520, 0)

func FuzzState(f *testing.F) {
	for _, seed := range []string{
		"boot boot-1\nbad 1\nfailed 0\nlast 1 3 toys broken\nsample 1793534400 1 toys\nsample 1793534460 2 toys\ncheck [[4711,99]]\n",
		"boot boot-1\nbad -1\n", "boot boot-1\nlast 7 x\n", "boot boot-0\nbad 3\n", "boot \n", "boot boot-1", "boot boot-1\n\n",
		"boot boot-1\nsample 1e308 1e308 toys\nsample -1e308 -1e308 toys\nsample NaN Inf toys\nsample 0 0\n",
		"boot boot-1\nlast 1 \x00%s\r\ncheck {\n", "\xff", "",
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	s := store{path: filepath.Join(dir, "toy.state")}
	log := logrus.New()
	log.SetLevel(logrus.PanicLevel)
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(s.path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := s.load("boot-1", time.Now())
		if st.BootID != "boot-1" || st.Bad < 0 || st.Failed < 0 {
			t.Fatalf("%+v, %v", st, err)
		}
		if err != nil && (st.Last != nil || st.Bad != 0 || st.History != nil || st.Check != nil) {
			t.Errorf("%+v beside the error %v", st, err)
		}
		// Whatever it holds, a run can go on from it and keep what it came to.
		look := &Look{Now: testNow, Log: log, recalled: st.Check}
		var remembered [][2]uint64
		look.Recall(&remembered)
		v := Verdict{Status: Problem, Message: "broken", Measurements: []Measurement{{Name: "toys", Value: 3, Limit: 10, Forecast: true}}}
		r := tell(Check{Name: "toy"}, &st, v, 1, look)
		if r.Status != Problem || !strings.HasPrefix(r.Message, "broken") || Safe(r.Message, MaxMessage) != r.Message {
			t.Errorf("%v %q", r.Status, r.Message)
		}
		if err := s.save(st); err != nil {
			t.Errorf("save %+v: %v", st, err)
		}
		if kept, err := s.load("boot-1", time.Now()); err != nil || kept.Last == nil || kept.Last.Message != r.Message || kept.Bad != st.Bad {
			t.Errorf("kept %+v, %v; want %+v", kept, err, st)
		}
	})
}
