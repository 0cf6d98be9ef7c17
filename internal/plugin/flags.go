package plugin

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PercentVar defines a flag that takes a whole number of 1 to 100.
func PercentVar(fs *flag.FlagSet, p *int, name string, value int, usage string) {
	*p = value
	fs.Var(&number{p, 1, 100}, name, usage)
}

// CountVar defines a flag that takes a whole number of at least 1.
func CountVar(fs *flag.FlagSet, p *int, name string, value int, usage string) {
	*p = value
	fs.Var(&number{p, 1, 1 << 30}, name, usage)
}

// OptionalCountVar is CountVar without a default: *p is 0 when it is not given.
func OptionalCountVar(fs *flag.FlagSet, p *int, name, usage string) {
	fs.Var(&number{p, 1, 1 << 30}, name, usage)
}

type number struct {
	p        *int
	min, max int
}

func (n *number) String() string {
	if n.p == nil || *n.p == 0 {
		return ""
	}
	return strconv.Itoa(*n.p)
}

func (n *number) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < n.min || v > n.max {
		return fmt.Errorf("want a whole number from %d to %d", n.min, n.max)
	}
	*n.p = v
	return nil
}

// DurationVar defines a flag that takes a duration above zero, such as 2m.
func DurationVar(fs *flag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	fs.Var((*duration)(p), name, usage)
}

type duration time.Duration

func (d *duration) String() string { return shortDuration(time.Duration(*d)) }

func (d *duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v <= 0 {
		return errors.New("want a duration above zero, such as 30s or 2m")
	}
	*d = duration(v)
	return nil
}

// shortDuration writes 2m for Go's 2m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// BytesVar defines a flag that takes a size in bytes: 4194304, 4MiB, 16M.
// K, M and G mean powers of 1024, with or without "i" and "B".
func BytesVar(fs *flag.FlagSet, p *uint64, name string, value uint64, usage string) {
	*p = value
	fs.Var((*bytesValue)(p), name, usage)
}

type bytesValue uint64

func (b *bytesValue) String() string { return FormatBytes(float64(*b)) }

func (b *bytesValue) Set(s string) error {
	digits := strings.TrimRight(s, "KMGiB")
	shift, ok := map[string]uint{"": 0, "B": 0, "K": 10, "KiB": 10, "Ki": 10, "M": 20, "MiB": 20, "Mi": 20, "G": 30, "GiB": 30, "Gi": 30}[s[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || n == 0 {
		return errors.New("want a size above zero, such as 16MiB")
	}
	*b = bytesValue(n << shift)
	return nil
}

// FormatBytes writes a size with one decimal: 7.3MiB; whole numbers without: 16MiB.
func FormatBytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if n == float64(int64(n)) {
		return strconv.FormatInt(int64(n), 10) + units[i]
	}
	return strconv.FormatFloat(n, 'f', 1, 64) + units[i]
}
