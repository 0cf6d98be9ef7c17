package kubelet

import (
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func read(page io.Reader, names ...string) (found []Sample, err error) {
	err = Read(page, names, func(s Sample) error {
		found = append(found, s)
		return nil
	})
	return found, err
}

func TestRead(t *testing.T) {
	const page = `# HELP a [ALPHA] Text with a{b="c"} 1
# TYPE a histogram
a_bucket{le="0.005"} 1
a{le="+Inf"} 2
a 3.5e+06
a	-4 1793534460000

  a 5
ab 6
a{ x = "1" , y="\\ \" \n é}" , } 7
a{} 8
b{junk 9
a 10`
	got, err := read(strings.NewReader(page), "a")
	want := []Sample{
		{"a", map[string]string{"le": "+Inf"}, 2}, {"a", nil, 3.5e6}, {"a", nil, -4},
		{"a", map[string]string{"x": "1", "y": "\\ \" \n é}"}, 7}, {"a", map[string]string{}, 8}, {"a", nil, 10},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if got, err := read(iotest.OneByteReader(strings.NewReader(page)), "a"); err != nil || len(got) != len(want) {
		t.Errorf("byte for byte: %v, %v", got, err)
	}
}

func TestReadBroken(t *testing.T) {
	for _, page := range []string{
		"a", "a ", "a{", `a{b`, `a{b="`, `a{b="\`, `a{b="c`, `a{b="c"`, `a{b=c} 1`, `a{"b"} 1`, "a x", "a 1 2 3", "a NaN", "a +Inf", "a 1e999", `a{b="c"}`,
		`a{b="` + strings.Repeat("x", 2*maxLine) + `"} 1`,
	} {
		if got, err := read(strings.NewReader(page), "a"); err == nil {
			t.Errorf("%.40q: %v", page, got)
		}
	}
	if _, err := read(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("a 1\na 2\n"))), "a"); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a page that breaks off: %v", err)
	}
	refused := errors.New("refused")
	if err := Read(strings.NewReader("a 1\n"), []string{"a"}, func(Sample) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("an error of each: %v", err)
	}
}

// Lines that nobody wants may be as long as the page.
func TestReadLongLine(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine+7)
	got, err := read(strings.NewReader(long+"\na 1\n# "+long+"\nb{c=\""+long+"\"} 1\na 2\n"), "a")
	if err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	for _, line := range []string{"x", strings.Repeat("x", 63) + "\n"} {
		endless := io.LimitReader(&repeater{line}, maxPage+1)
		if _, err := read(endless, "a"); err == nil || !strings.Contains(err.Error(), "longer than 64 MiB") {
			t.Errorf("%q without end: %v", line, err)
		}
	}
}

type repeater struct{ text string }

func (r *repeater) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], r.text)
	}
	return n, nil
}

func FuzzRead(f *testing.F) {
	f.Add("a{b=\"c\",d=\"\\\"\\n\"} 1 2\n# a\na 3\n")
	f.Add("a{b=\"")
	f.Add(strings.Repeat("x", maxLine) + "a 1\n")
	f.Fuzz(func(t *testing.T, page string) {
		got, err := read(strings.NewReader(page), "a")
		slow, slowErr := read(iotest.OneByteReader(strings.NewReader(page)), "a")
		if (err == nil) != (slowErr == nil) || !cmp.Equal(got, slow) {
			t.Errorf("%v, %v; byte for byte %v, %v", got, err, slow, slowErr)
		}
		lines := strings.Count(page, "\n") + 1
		if len(got) > lines {
			t.Errorf("%d samples of %d lines", len(got), lines)
		}
		for _, s := range got {
			if s.Name != "a" || math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
				t.Errorf("%+v", s)
			}
		}
	})
}
