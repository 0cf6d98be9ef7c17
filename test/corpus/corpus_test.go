// Package corpus runs a healthy node and demands that no journal rule fires on what it writes.
//
// The node is real: systemd as PID 1, journald, etcd, kube-apiserver, containerd and kubelet. It does what nodes do: it
// starts, pulls images, runs pods that come and go, restarts kubelet and containerd with pods running, and shuts down;
// users make their mistakes meanwhile. It needs root, Debian's containerd, containernetworking-plugins, systemd,
// util-linux and iproute2, and etcd, kube-apiserver and kubelet on PATH, and takes 12 minutes on two cores:
//
//	go test -count=1 -v -timeout 1h -run TestHealthyCorpus ./test/corpus -args -summary SUMMARY.md -lines /tmp/lines
//
// The lines stay out of the repository; SUMMARY.md says what they were. After a change of the rules, the lines of an
// earlier run are judged again with -run TestLines and the same arguments.
package corpus

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

var (
	summaryFile = flag.String("summary", "", "write the summary to this file")
	linesDir    = flag.String("lines", "", "directory for the lines, one file for each component and way of logging")
	podCount    = flag.Int("pods", 15, "pods that run at the same time")
	waveCount   = flag.Int("waves", 4, "how often they come and go, for each way of logging")
)

// minLines is how many lines of the components that have rules the corpus must have.
const minLines = 50_000

const rulesDir = "../../journal-rules"

// A way of logging, and when it began.
type logging struct {
	verbosity, kubeletFormat, containerdFormat string
	since                                      time.Time
}

func (l logging) String() string {
	return "-v=" + l.verbosity + ", kubelet " + l.kubeletFormat + ", containerd " + l.containerdFormat
}

func TestHealthyCorpus(t *testing.T) {
	if *summaryFile == "" {
		t.Skip("runs a whole node for eleven minutes: make corpus")
	}
	lab.NeedRoot(t)
	for command, debianPackage := range map[string]string{
		"containerd": "containerd", "runc": "runc", "nsenter": "util-linux", "ip": "iproute2", "journalctl": "systemd", "/usr/lib/cni/ptp": "containernetworking-plugins",
	} {
		lab.NeedCommand(t, command, debianPackage)
	}
	binaries := map[string]string{}
	for _, name := range []string{"etcd", "kube-apiserver", "kubelet"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("needs %s, which is not on PATH: build it from its Go module, or take a release", name)
		}
		if binaries[name], err = filepath.EvalSymlinks(path); err != nil {
			t.Fatal(err)
		}
	}
	n := startNode(t, binaries)
	program := filepath.Join(n.dir, "app")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	registry := &http.Server{Handler: newRegistry(t, program)}
	go registry.Serve(n.listen(t, registryAddress))
	t.Cleanup(func() { registry.Close() })

	ways := n.work(t)
	n.powerOff(t)
	dir := *linesDir
	if dir == "" {
		dir = t.TempDir()
	}
	capture(t, n, dir, ways, versions(t, binaries))
	judge(t, dir)
}

// TestLines judges the lines of an earlier run.
func TestLines(t *testing.T) {
	if *linesDir == "" {
		t.Skip("needs the lines of an earlier run: -args -lines DIR")
	}
	judge(t, *linesDir)
}

// work lets the node do its work, and returns the ways of logging in their order.
func (n *node) work(t *testing.T) []logging {
	ways := []logging{
		{"2", "text", "text", time.Time{}},
		{"4", "text", "text", time.Time{}},
		{"4", "json", "json", time.Time{}},
	}
	n.waitReady(t)
	n.create(t, "/api/v1/namespaces/default/configmaps", object{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": object{"name": "settings"}, "data": object{"log.level": "info"}})
	for i := range ways {
		way := &ways[i]
		t.Logf("%s", way)
		if i > 0 {
			way.since = time.Now()
			n.kubelet(t, way.verbosity, way.kubeletFormat)
			n.containerd(t, way.containerdFormat)
			n.run(t, "systemctl", "restart", "containerd", "kubelet")
			time.Sleep(10 * time.Second) // Ready is what it was before the restart until kubelet says otherwise
			n.waitReady(t)
		}
		n.day(t, fmt.Sprintf("day%d", i))
	}
	return ways
}

// day is one round of everything.
func (n *node) day(t *testing.T, name string) {
	n.staticPod(t, name)
	for i := range *waveCount {
		n.wave(t, fmt.Sprintf("%s-%d", name, i), *podCount, func() {
			time.Sleep(20 * time.Second)
			switch i {
			case 0:
				for _, o := range mistakes(name) {
					n.create(t, pods, o)
				}
				time.Sleep(40 * time.Second)
			case 1:
				n.run(t, "systemctl", "restart", "kubelet")
				time.Sleep(20 * time.Second)
			case 2:
				n.run(t, "systemctl", "restart", "containerd")
				time.Sleep(20 * time.Second)
			}
		})
		n.waitReady(t)
	}
}

// line is a line of the journal or of the kernel.
type line struct {
	identifier, message string
	at                  time.Time
}

// identifiers are those of the components whose lines are kept.
var identifiers = []string{"kubelet", "containerd", "systemd", "kernel", "kube-apiserver", "etcd"}

// part is the lines of one component and one way of logging.
type part struct {
	identifier, version, way string
	lines                    int
	shapes                   map[string]bool
}

// name is the name of the part's file, of which parsePart makes the part again.
func (p part) name() string { return p.identifier + "_" + p.version + "_" + p.way + ".txt" }

func parsePart(name string) *part {
	fields := strings.SplitN(strings.TrimSuffix(name, ".txt"), "_", 3)
	return &part{identifier: fields[0], version: fields[1], way: fields[2], shapes: map[string]bool{}}
}

// capture writes the lines of the node's journal and of the kernel to files. A message of several lines becomes several
// lines.
func capture(t *testing.T, n *node, dir string, ways []logging, versions map[string]string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]*bufio.Writer{}
	keep := func(l line) {
		if !slices.Contains(identifiers, l.identifier) {
			return
		}
		name := part{identifier: l.identifier, version: versions[l.identifier], way: wayOf(l, ways)}.name()
		if files[name] == nil {
			f, err := os.Create(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			files[name] = bufio.NewWriter(f)
		}
		fmt.Fprintln(files[name], l.message)
	}
	err := journal(filepath.Join(n.dir, "journal"), keep)
	if err == nil {
		err = kernelRing(keep)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range files {
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

// wayOf says how the writer of a line logged then, if it has several ways.
func wayOf(l line, ways []logging) (way string) {
	for _, w := range ways {
		switch {
		case l.at.Before(w.since):
		case l.identifier == "kubelet":
			way = "-v=" + w.verbosity + " " + w.kubeletFormat
		case l.identifier == "containerd":
			way = w.containerdFormat
		}
	}
	return way
}

// verdict is what the rules say of the lines.
type verdict struct {
	parts    []*part
	rules    int
	monitors map[string][]*npd.LogMonitor // by identifier
	files    map[*npd.LogMonitor]string
	matches  map[match]int
	samples  map[match]string
}

// match is lines of one shape that fire a rule.
type match struct{ file, reason, identifier, shape string }

func judge(t *testing.T, dir string) {
	v := &verdict{
		monitors: map[string][]*npd.LogMonitor{}, files: map[*npd.LogMonitor]string{},
		matches: map[match]int{}, samples: map[match]string{},
	}
	rules, err := filepath.Glob(filepath.Join(rulesDir, "*.json"))
	if err != nil || len(rules) == 0 {
		t.Fatalf("no rules: %v", err)
	}
	for _, file := range rules {
		v.load(t, file)
	}
	lines, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		v.read(t, file)
	}
	slices.SortStableFunc(v.parts, func(a, b *part) int {
		return slices.Index(identifiers, a.identifier) - slices.Index(identifiers, b.identifier)
	})
	v.report(t)
}

// load makes the monitors of one file: for the identifier it watches and, as distributions with one process for all (k3s,
// microk8s, rke2) write all of it under one identifier, kubelet's for those of its companions too.
func (v *verdict) load(t testing.TB, file string) {
	monitor := func(identifier string) *npd.LogMonitor {
		m, err := npd.LoadLogMonitor(file)
		if err != nil {
			t.Fatal(err)
		}
		if identifier == "" {
			identifier = m.Config.PluginConfig["source"]
		}
		if m.Config.Plugin == "kmsg" {
			identifier = "kernel"
		}
		v.files[m] = filepath.Base(file)
		v.monitors[identifier] = append(v.monitors[identifier], m)
		return m
	}
	m := monitor("")
	v.rules += len(m.Config.Rules)
	if m.Config.PluginConfig["source"] == "kubelet" {
		for _, companion := range []string{"containerd", "kube-apiserver", "etcd"} {
			monitor(companion)
		}
	}
}

func (v *verdict) read(t testing.TB, file string) {
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := parsePart(filepath.Base(file))
	v.parts = append(v.parts, p)
	for message := range strings.Lines(string(content)) {
		message = strings.TrimSuffix(message, "\n")
		shape := shape(message)
		p.lines++
		p.shapes[shape] = true
		for _, m := range v.monitors[p.identifier] {
			for _, fired := range m.Match(message) {
				at := match{v.files[m], fired.Rule.Reason, p.identifier, shape}
				v.matches[at]++
				v.samples[at] = message
			}
		}
	}
}

func (v *verdict) report(t *testing.T) {
	lines := 0
	for _, p := range v.parts {
		if len(v.monitors[p.identifier]) > 0 {
			lines += p.lines
		}
	}
	if lines < minLines {
		t.Errorf("%d lines, want %d or more: raise -waves or -pods", lines, minLines)
	}
	for m, count := range v.matches {
		t.Errorf("%s %s fires on a healthy node, %d times on lines of %s such as:\n%s", m.file, m.reason, count, m.identifier, v.samples[m])
	}
	summary := v.summary()
	t.Logf("\n%s", summary)
	if *summaryFile != "" {
		if err := os.WriteFile(*summaryFile, summary, 0o644); err != nil {
			t.Error(err)
		}
	}
}

func (v *verdict) summary() []byte {
	var b bytes.Buffer
	b.WriteString(`# The healthy corpus

Written by TestHealthyCorpus, whose head says how. A shape is a line without its numbers, names and ids. The lines of kube-apiserver, etcd
and containerd are judged by kubelet's rules too: a distribution with one process for all writes them under kubelet's identifier.

| identifier | version | logs | lines | shapes |
|---|---|---|---|---|
`)
	lines, matches := 0, 0
	for _, p := range v.parts {
		lines += p.lines
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %d |\n", p.identifier, p.version, p.way, p.lines, len(p.shapes))
	}
	for _, count := range v.matches {
		matches += count
	}
	fmt.Fprintf(&b, "\n%d lines, %d rules, %d matches.\n", lines, v.rules, matches)
	return b.Bytes()
}

// journal calls f for each line of a journal directory, oldest first.
func journal(dir string, f func(line)) error {
	command := exec.Command("journalctl", "-D", dir, "-o", "json", "--all", "--output-fields=SYSLOG_IDENTIFIER,MESSAGE", "-q")
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	for in := json.NewDecoder(out); ; {
		var entry struct {
			Identifier string          `json:"SYSLOG_IDENTIFIER"`
			Message    json.RawMessage `json:"MESSAGE"`
			At         string          `json:"__REALTIME_TIMESTAMP"` // microseconds
		}
		if err := in.Decode(&entry); err != nil {
			break // the end; a broken stream makes Wait fail
		}
		micros, _ := strconv.ParseInt(entry.At, 10, 64)
		f(line{entry.Identifier, text(entry.Message), time.UnixMicro(micros)})
	}
	return command.Wait()
}

// text returns a MESSAGE: a string, or an array of bytes if it is not printable.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var numbers []int
	json.Unmarshal(raw, &numbers)
	content := make([]byte, len(numbers))
	for i, number := range numbers {
		content[i] = byte(number)
	}
	return string(content)
}

// kernelRing calls f for each line of the kernel that its ring buffer still holds. It is the machine's, so on a machine that is not well
// something may fire.
func kernelRing(f func(line)) error {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	record := make([]byte, 8192) // CONSOLE_EXT_LOG_MAX of the kernel
	for {
		size, err := unix.Read(fd, record)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EPIPE): // overwritten before it was read
			continue
		case err != nil:
			return err
		}
		head, rest, _ := strings.Cut(string(record[:size]), ";")
		message, _, _ := strings.Cut(rest, "\n")
		priority, _, _ := strings.Cut(head, ",")
		if facility, err := strconv.Atoi(priority); err == nil && facility>>3 == 0 {
			f(line{identifier: "kernel", message: message})
		}
	}
}

var masks = []struct {
	find *regexp.Regexp
	put  string
}{
	{regexp.MustCompile(`^[IWEF]\d{4} [\d:.]+ +\d+ `), ""},
	{regexp.MustCompile(`\\*"(?:[^"\\]|\\[^"])*\\*"`), `""`},
	{regexp.MustCompile(`[0-9a-f]{8}[0-9a-f-]*`), "x"},
	{regexp.MustCompile(`day\d[-\w]*`), "pod"}, // the names that work gives
	{regexp.MustCompile(`/[\w./@:-]+`), "/"},
	{regexp.MustCompile(`\d+`), "0"},
}

// shape returns what two lines that say the same have in common, at most 120 bytes of it.
func shape(message string) string {
	for _, m := range masks {
		message = m.find.ReplaceAllString(message, m.put)
	}
	return message[:min(len(message), 120)]
}

func versions(t testing.TB, binaries map[string]string) map[string]string {
	t.Helper()
	first := func(pattern, command string, args ...string) string {
		out, err := exec.Command(command, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return regexp.MustCompile(pattern).FindString(string(out))
	}
	const dotted = `v?\d+\.\d+\.\d+[^\s]*`
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		t.Fatal(err)
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(kernel.Release[:]), "-")
	return map[string]string{
		"kubelet":        first(dotted, binaries["kubelet"], "--version"),
		"kube-apiserver": first(dotted, binaries["kube-apiserver"], "--version"),
		"etcd":           first(dotted, binaries["etcd"], "--version"),
		"containerd":     first(dotted, "containerd", "--version"),
		"systemd":        first(`\d+`, "systemctl", "--version"),
		"kernel":         release,
	}
}
