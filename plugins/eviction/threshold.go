package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"npd-plugins/internal/plugin"
)

// threshold is what kubelet evicts pods at: when less than that is left of
// what the signal measures.
type threshold struct {
	Signal   string
	Quantity uint64        `json:",omitempty"` // bytes, inodes or tasks; 0 for a share
	Share    float32       `json:",omitempty"` // of the capacity, above 0 and below 1
	Soft     bool          `json:",omitempty"`
	Grace    time.Duration `json:",omitempty"` // for which a soft one must hold before pods are evicted
}

// of is the threshold for that capacity, rounded as kubelet rounds
// (GetThresholdQuantity in pkg/kubelet/eviction/api/types.go).
func (t threshold) of(capacity uint64) uint64 {
	if t.Quantity > 0 {
		return t.Quantity
	}
	return uint64(float64(capacity) * float64(t.Share))
}

// parseThreshold reads a value of evictionHard or evictionSoft as kubelet
// v1.37.2 does (parseThresholdStatement in pkg/kubelet/eviction/helpers.go).
// ok is false for those that switch the threshold off: 0% and 100%.
func parseThreshold(signal, value string) (t threshold, ok bool, err error) {
	t = threshold{Signal: signal}
	if !strings.HasSuffix(value, "%") {
		t.Quantity, err = parseQuantity(value)
		return t, err == nil, err
	}
	if value == "0%" || value == "100%" {
		return t, false, nil
	}
	percent, err := strconv.ParseFloat(strings.TrimRight(value, "%"), 32)
	if err != nil || !(percent >= 0 && percent <= 100) {
		return t, false, fmt.Errorf("%.20q is no percentage", value)
	}
	t.Share = float32(percent) / 100
	return t, t.Share > 0, nil
}

// Suffixes of a quantity: powers of 1024, and decimal exponents.
var (
	binary  = map[string]float64{"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
	decimal = map[string]string{"": "", "n": "e-9", "u": "e-6", "m": "e-3", "k": "e3", "M": "e6", "G": "e9", "T": "e12", "P": "e15", "E": "e18"}
)

// parseQuantity reads a quantity of Kubernetes above zero ("100Mi", "1.5G",
// "1e9") and rounds it up to a whole number below 2^63.
//
// It stands in for resource.ParseQuantity of k8s.io/apimachinery, which brings
// five modules and 1.3 MB of binary for it, and is exact beyond a petabyte.
func parseQuantity(s string) (uint64, error) {
	broken := fmt.Errorf("%.20q is no quantity above zero", s)
	suffix := strings.TrimLeft(strings.TrimPrefix(s, "+"), "0123456789.")
	number := strings.TrimSuffix(s, suffix)
	factor, isBinary := binary[suffix]
	exponent, isDecimal := decimal[suffix]
	switch {
	case isBinary:
	case isDecimal:
		factor, number = 1, number+exponent
	case suffix[0] == 'e' || suffix[0] == 'E':
		if _, err := strconv.ParseInt(suffix[1:], 10, 32); err != nil {
			return 0, broken
		}
		factor, number = 1, s
	default:
		return 0, broken
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || !(n > 0) {
		return 0, broken
	}
	return uint64(min(math.Ceil(n*factor), 1<<62)), nil
}

// reading is the state of one signal.
type reading struct {
	signal              string
	available, capacity uint64
	what                string // the file system's directory, or the cgroup, for a message; "" for the node
	activeFile          uint64 // bytes of active page cache in what is used, of a signal of memory
	huge                uint64 // bytes of huge pages that are not in the capacity
	unsure              uint64 // bytes of huge pages that kubelet takes off available, or does not
	err                 error  // why there is none
}

// finding is a signal beside one of its thresholds.
type finding struct {
	reading
	threshold
	limit uint64 // the threshold in the unit of the signal
}

// findings compares a signal with all its thresholds.
func findings(r reading, thresholds []threshold) (found []finding) {
	for _, t := range thresholds {
		if t.Signal == thresholdSignal(r.signal) && !(t.Soft && r.signal == allocatable) {
			found = append(found, finding{r, t, t.of(r.capacity)})
		}
	}
	return found
}

// near says whether the signal is less than the share above its threshold, or
// below. Both are 0 on a file system that does not count its inodes.
func (f finding) near(percent int) bool {
	return float64(f.available) < float64(f.limit)*(1+float64(percent)/100)
}

func (f finding) past() bool { return f.available < f.limit }

// nearest sorts by how near a signal is to its threshold.
func nearest(a, b finding) int {
	return cmp.Compare(a.distance(), b.distance())
}

func (f finding) distance() float64 {
	if f.limit == 0 {
		return math.Inf(1)
	}
	return float64(f.available) / float64(f.limit)
}

// text is the fact: what is left, and when kubelet evicts.
func (f finding) text() string {
	bound := fmt.Sprintf("below %s of %s", f.amount(f.limit), f.amount(f.capacity))
	if f.what != "" {
		bound += fmt.Sprintf(" (%s)", plugin.Safe(f.what, 60))
	}
	text := fmt.Sprintf("%s %s, kubelet evicts pods", f.signal, f.amount(f.available))
	switch {
	case f.Soft:
		return fmt.Sprintf("%s when it is for %s %s", text, shortDuration(f.Grace), bound)
	case f.past():
		return text + ": it is " + bound
	}
	return text + " " + bound
}

// amount writes a number in the unit of the signal.
func (r reading) amount(n uint64) string {
	if isBytes(r.signal) {
		return plugin.FormatBytes(float64(n))
	}
	return strconv.FormatUint(n, 10)
}

// isBytes says whether a signal is in bytes; the others count.
func isBytes(signal string) bool { return !isInodes(signal) && signal != "pid.available" }

func isInodes(signal string) bool { return strings.HasSuffix(signal, ".inodesFree") }

// shortDuration writes 5m for Go's 5m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// measurement is what is used of a signal's capacity. The limit is where the
// first of its thresholds is met.
func measurement(r reading, found []finding) plugin.Measurement {
	m := plugin.Measurement{Name: names[r.signal], Value: float64(r.capacity - min(r.available, r.capacity)), Forecast: true}
	switch {
	case isBytes(r.signal):
		m.Unit = "bytes"
	case isInodes(r.signal):
		m.Unit = "inodes"
	default:
		m.Unit = "tasks"
	}
	var limit uint64
	for _, f := range found {
		limit = max(limit, f.limit)
	}
	m.Limit = float64(r.capacity - min(limit, r.capacity))
	return m
}

// names are the measurements of the signals.
var names = map[string]string{
	"memory.available":       "memory_used",
	allocatable:              "allocatable_memory_used",
	"nodefs.available":       "nodefs_used",
	"nodefs.inodesFree":      "nodefs_inodes_used",
	"imagefs.available":      "imagefs_used",
	"imagefs.inodesFree":     "imagefs_inodes_used",
	"containerfs.available":  "containerfs_used",
	"containerfs.inodesFree": "containerfs_inodes_used",
	"pid.available":          "pids_used",
}

// allocatable is the signal of the memory that all pods together may use.
const allocatable = "allocatableMemory.available"

// thresholdSignal is the signal in whose name the threshold stands. kubelet
// derives the others (pkg/kubelet/eviction/helpers.go): that of the pods' memory
// from the hard one of memory.available (addAllocatableThresholds), and that of
// a file system that holds only the containers' own layers from nodefs
// (UpdateContainerFsThresholds).
func thresholdSignal(signal string) string {
	switch signal {
	case allocatable:
		return "memory.available"
	case "containerfs.available":
		return "nodefs.available"
	case "containerfs.inodesFree":
		return "nodefs.inodesFree"
	}
	return signal
}
