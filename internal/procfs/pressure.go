package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"syscall"

	"npd-plugins/internal/host"
)

// Pressure is a file of pressure stall information, of the whole kernel
// (/proc/pressure) or of a cgroup (Documentation/accounting/psi.rst).
type Pressure struct {
	Some Stall // at least one task was stalled
	Full Stall // all tasks that were not idle were; zero for cpu before Linux 5.13
}

// Stall is the share of the time, in percent, over the last seconds.
type Stall struct {
	Avg10, Avg60, Avg300 float64
}

// ErrNoPressure says that the kernel has no pressure stall information: Linux
// before 4.20, built without CONFIG_PSI, or booted with psi=0 (or without
// psi=1 where CONFIG_PSI_DEFAULT_DISABLED is set).
var ErrNoPressure = errors.New("the kernel has no pressure stall information")

// ReadPressure reads a file of /proc/pressure, or a *.pressure file of a
// cgroup.
func ReadPressure(h *host.Root, path string) (Pressure, error) {
	b, err := h.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EOPNOTSUPP) {
		return Pressure{}, fmt.Errorf("%w (%w)", ErrNoPressure, err)
	}
	if err != nil {
		return Pressure{}, err
	}
	p, err := parsePressure(b)
	if err != nil {
		return Pressure{}, fmt.Errorf("read %s: %w", h.Path(path), err)
	}
	return p, nil
}

func parsePressure(b []byte) (Pressure, error) {
	var p Pressure
	some := false
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		var into *Stall
		switch string(f[0]) {
		case "some":
			into, some = &p.Some, true
		case "full":
			into = &p.Full
		default:
			return Pressure{}, errors.New("not a pressure file")
		}
		var err error
		if *into, err = parseStall(f[1:]); err != nil {
			return Pressure{}, err
		}
	}
	if !some {
		return Pressure{}, errors.New("not a pressure file")
	}
	return p, nil
}

func parseStall(fields [][]byte) (Stall, error) {
	var s Stall
	averages := map[string]*float64{"avg10": &s.Avg10, "avg60": &s.Avg60, "avg300": &s.Avg300}
	for _, field := range fields {
		key, value, _ := bytes.Cut(field, []byte("="))
		average := averages[string(key)]
		if average == nil {
			continue // total
		}
		percent, err := strconv.ParseFloat(string(value), 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			return Stall{}, fmt.Errorf("%.20q is no share", field)
		}
		*average = percent
		delete(averages, string(key))
	}
	if len(averages) > 0 {
		return Stall{}, errors.New("an average is missing")
	}
	return s, nil
}
