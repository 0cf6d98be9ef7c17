package procfs

import (
	"errors"
	"fmt"
	"testing"

	"npd-plugins/internal/host/hosttest"
)

const pressure = "some avg10=12.30 avg60=4.56 avg300=0.78 total=123456789\nfull avg10=10.00 avg60=3.21 avg300=0.50 total=98765432\n"

func TestReadPressure(t *testing.T) {
	h := hosttest.Tree{
		"memory":   pressure,
		"cpu-5.10": "some avg10=1.00 avg60=2.00 avg300=3.00 total=4\n",
		"empty":    "",
		"half":     "some avg10=1.00 avg60=2.00\n",
		"over":     "some avg10=1.00 avg60=200.00 avg300=3.00 total=4\n",
		"nan":      "some avg10=NaN avg60=2.00 avg300=3.00 total=4\n",
		"twice":    "some avg10=1.00 avg10=2.00 avg60=2.00 total=4\n",
		"loadavg":  "0.20 0.38 0.41 2/744 32012\n",
	}.Open(t)
	want := Pressure{Some: Stall{12.3, 4.56, 0.78}, Full: Stall{10, 3.21, 0.5}}
	if got, err := ReadPressure(h, "/memory"); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	want = Pressure{Some: Stall{1, 2, 3}}
	if got, err := ReadPressure(h, "/cpu-5.10"); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, file := range []string{"/empty", "/half", "/over", "/nan", "/twice", "/loadavg"} {
		if got, err := ReadPressure(h, file); got != (Pressure{}) || err == nil || errors.Is(err, ErrNoPressure) {
			t.Errorf("%s: %+v, %v", file, got, err)
		}
	}
	if _, err := ReadPressure(h, "/proc/pressure/memory"); !errors.Is(err, ErrNoPressure) {
		t.Errorf("%v", err)
	}
}

func TestCounter(t *testing.T) {
	file := []byte("MemTotal:       24684392 kB\nMemFree:        0 kB\nworkingset_refault 17\nworkingset_refault_file 23\nbroken x\nhuge 99999999999999999999\nlast\n")
	for key, want := range map[string]uint64{"MemTotal:": 24684392, "MemFree:": 0, "workingset_refault": 17, "workingset_refault_file": 23} {
		if got, ok := Counter(file, key); got != want || !ok {
			t.Errorf("%s: %d, %v", key, got, ok)
		}
	}
	for _, key := range []string{"MemTotal", "Mem", "workingset", "broken", "huge", "last", "nothing"} {
		if got, ok := Counter(file, key); got != 0 || ok {
			t.Errorf("%s: %d, %v", key, got, ok)
		}
	}
}

func FuzzPressure(f *testing.F) {
	f.Add([]byte(pressure))
	f.Add([]byte("some avg10=1.00 avg60=2.00 avg300=3.00 total=4\n"))
	f.Add([]byte("some avg10=1e400 avg60=-1 avg300=NaN\nfull"))
	f.Add([]byte("\x00\xff\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePressure(b)
		if err != nil {
			if p != (Pressure{}) {
				t.Errorf("%+v beside the error %v", p, err)
			}
			return
		}
		for _, v := range []float64{p.Some.Avg10, p.Some.Avg60, p.Some.Avg300, p.Full.Avg10, p.Full.Avg60, p.Full.Avg300} {
			if !(v >= 0 && v <= 100) {
				t.Errorf("%+v", p)
			}
		}
		line := func(kind string, s Stall) string {
			return fmt.Sprintf("%s avg10=%v avg60=%v avg300=%v total=1\n", kind, s.Avg10, s.Avg60, s.Avg300)
		}
		if again, err := parsePressure([]byte(line("some", p.Some) + line("full", p.Full))); again != p || err != nil {
			t.Errorf("%+v, written as the kernel does %+v, %v", p, again, err)
		}
	})
}

func FuzzCounter(f *testing.F) {
	f.Add([]byte("workingset_refault 17\nworkingset_refault_file 23\n"), "workingset_refault")
	f.Add([]byte("MemTotal:       24684392 kB"), "MemTotal:")
	f.Add([]byte("a\na \n a 1\n"), "a")
	f.Fuzz(func(t *testing.T, b []byte, key string) {
		n, ok := Counter(b, key)
		if !ok && n != 0 {
			t.Errorf("%d beside not found", n)
		}
		if again, _ := Counter(append([]byte("other 5\n"), b...), key); ok && key != "other" && again != n {
			t.Errorf("%d, behind another line %d", n, again)
		}
	})
}
