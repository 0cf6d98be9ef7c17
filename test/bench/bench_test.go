// Package bench measures what the checks cost beside what people use instead, and prints ratios of one run. A figure
// that is missed fails.
//
//	go test -run '^$' -bench . -benchtime 1x ./test/bench
package bench

import (
	"bytes"
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

var (
	binaries string // directory with the checks and the programs of this directory
	names    []string
	figures  []figure
)

// figure is a row of the printed table.
type figure struct {
	what, value, limit string
	missed             bool
}

func TestMain(m *testing.M) {
	lab.RunCulprit()
	serveLists()
	flag.Parse()
	if f := flag.Lookup("test.bench"); f.Value.String() == "" {
		fmt.Println("nothing is measured without -bench")
		return
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	var err error
	if binaries, err = os.MkdirTemp("", "npd-bench-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binaries)
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nFIGURE\tMEASURED\tLIMIT\t")
	for _, f := range figures {
		word := ""
		if f.missed {
			word = "MISSED"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.what, f.value, f.limit, word)
	}
	table.Flush()
	return code
}

func build() error {
	if err := lab.BuildBinaries(binaries); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binaries+"/", "./scan", "./decode", "./version", "./empty", "./nothing")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	folders, err := filepath.Glob("../../plugins/*/main.go")
	for _, folder := range folders {
		names = append(names, filepath.Base(filepath.Dir(folder)))
	}
	return err
}

// tell adds a row, for which nothing was asked.
func tell(what, format string, args ...any) {
	figures = append(figures, figure{what: what, value: fmt.Sprintf(format, args...), limit: "-"})
}

// hold adds a row and fails when the value is above the limit. The format is that of both.
func hold(b *testing.B, what, format string, value, limit float64) {
	f := figure{what: what, value: fmt.Sprintf(format, value), limit: fmt.Sprintf(format, limit), missed: value > limit}
	figures = append(figures, f)
	if f.missed {
		b.Errorf("%s: %s, want at most %s", f.what, f.value, f.limit)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkCRIListSize has 5,000 sandboxes with an exited container each.
func BenchmarkCRIListSize(b *testing.B) {
	endpoint := startLists(b, 5000)
	check := look(b, "cri-list-size", endpoint)
	own, decoding := cpu(b, 0, check...), cpu(b, 0, filepath.Join(binaries, "decode"), endpoint)
	tell("cri-list-size, 5,000 + 5,000 items: CPU", "%.1f ms", milliseconds(own))
	tell("  CPU beside a decoding client", "%.2f (of %.1f ms)", ratio(own, decoding), milliseconds(decoding))
	if _, err := exec.LookPath("crictl"); err != nil {
		tell("  CPU beside crictl pods --latest and crictl ps -a", "no crictl on PATH")
	} else {
		crictl := cpu(b, 0, "crictl", "--runtime-endpoint", endpoint, "pods", "--latest") +
			cpu(b, 0, "crictl", "--runtime-endpoint", endpoint, "ps", "-a")
		tell("  crictl pods --latest and crictl ps -a: CPU", "%.1f ms", milliseconds(crictl))
		hold(b, "  CPU beside crictl", "%.2f", ratio(own, crictl), 0.25)
	}
	hold(b, "  RSS", "%.1f MiB", rss(b, check), 40)
}

// BenchmarkZombies has 3,000 processes that sleep.
func BenchmarkZombies(b *testing.B) {
	lab.StartCulprit(b).Tasks(b, 3000)
	check := look(b, "zombies", "")
	own, bare := cpu(b, 1, check...), cpu(b, 0, filepath.Join(binaries, "scan")) // this machine may have zombies
	tell("zombies, 3,000 processes: CPU", "%.1f ms", milliseconds(own))
	if _, err := exec.LookPath("ps"); err != nil {
		tell("  CPU beside ps aux", "no ps on PATH")
	} else {
		hold(b, "  CPU beside ps aux", "%.2f", ratio(own, cpu(b, 0, "ps", "aux")), 0.25)
	}
	hold(b, "  CPU beside a bare loop of open, read, close", "%.2f", ratio(own, bare), 1.3)
	hold(b, "  RSS", "%.1f MiB", rss(b, check), 12)
}

// BenchmarkEachCheck has a runtime with 100 pods and looks at this machine.
func BenchmarkEachCheck(b *testing.B) {
	endpoint := startLists(b, 100)
	for _, name := range names {
		check := look(b, name, endpoint)
		info, err := os.Stat(check[0])
		if err != nil {
			b.Fatal(err)
		}
		size, memory := 3.0, 12.0
		if speaks(b, check[0], "google.golang.org/grpc", "github.com/godbus/dbus/v5") {
			size, memory = 12, 20
		} else if speaksHTTPS(b, check[0]) {
			size = 7
		} else if speaks(b, check[0], "github.com/klauspost/compress") { // what the journal is packed with
			size = 4
		}
		hold(b, name+": binary", "%.1f MiB", float64(info.Size())/(1<<20), size)
		hold(b, "  RSS", "%.1f MiB", rss(b, check), memory)
		tell("  CPU", "%.1f ms", milliseconds(cpu(b, 2, check...)))
	}
}

// BenchmarkQuota gives each check 1 ms of CPU in 100 ms, which is what node-problem-detector's DaemonSet has.
func BenchmarkQuota(b *testing.B) {
	endpoint := startLists(b, 100)
	join := quotaGroup(b)
	for _, name := range names {
		check := look(b, name, endpoint)
		config := configOf(b, name)
		check = append(check, config.Rules[0].Args...)
		var took []time.Duration
		for range 3 {
			r := npd.RunPlugin(b.Context(), join, check, config.RuleTimeout(config.Rules[0]), npd.MaxPluginOutput)
			if r.ExitCode < 0 || strings.Contains(r.Message, "--timeout") {
				b.Errorf("%s under a quota of 10m: %v: %s", name, r.Status, r.Message)
			}
			took = append(took, r.Took)
		}
		limit := ownTimeout(b, config.Rules[0].Args)
		hold(b, name+" under a quota of 10m CPU", "%.2f s", median(took).Seconds(), limit.Seconds())
	}
}

// configOf is the configuration of a check, or one of those of a check that is many conditions.
func configOf(b *testing.B, name string) *npd.CustomConfig {
	b.Helper()
	files, err := filepath.Glob(filepath.Join("../../config", name+".json"))
	if len(files) == 0 && err == nil {
		files, err = filepath.Glob(filepath.Join("../../config", name+"-*.json"))
	}
	if err != nil || len(files) == 0 {
		b.Fatalf("no config of %s: %v", name, err)
	}
	config, err := npd.LoadCustom(files[0])
	if err != nil {
		b.Fatal(err)
	}
	return config
}

// look is the command of a look at this machine with a memory of its own.
func look(b *testing.B, name, endpoint string) []string {
	b.Helper()
	path := filepath.Join(binaries, name)
	args := []string{path, "--host-root=/", "--state-dir=" + stateDir(b)}
	if speaks(b, path, "google.golang.org/grpc") {
		args = append(args, "--cri-endpoint="+endpoint)
	}
	return args
}

// stateDir is a directory in memory, as /run is, where the state is by default.
func stateDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "npd-bench-")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// speaks says whether one of the modules is in the binary.
func speaks(b *testing.B, path string, modules ...string) bool {
	b.Helper()
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, dep := range info.Deps {
		if slices.Contains(modules, dep.Path) {
			return true
		}
	}
	return false
}

// speaksHTTPS says whether the binary has Go's client of HTTP, by the name of a function.
func speaksHTTPS(b *testing.B, path string) bool {
	b.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return bytes.Contains(content, []byte("net/http.(*Transport).RoundTrip"))
}

// ownTimeout is --timeout, which every config gives its check.
func ownTimeout(b *testing.B, args []string) time.Duration {
	b.Helper()
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--timeout="); ok {
			d, err := time.ParseDuration(value)
			if err != nil {
				b.Fatal(err)
			}
			return d
		}
	}
	b.Fatalf("no --timeout among %q", args)
	return 0
}

// BenchmarkCRIGC has 5,000 sandboxes with an exited container each, all of pods that are gone, and in the end four
// times as many.
func BenchmarkCRIGC(b *testing.B) {
	endpoint := startLists(b, 5000)
	check, size := gc(b, endpoint), look(b, "cri-list-size", endpoint)
	own, weighing := cpu(b, 0, check...), cpu(b, 0, size...)
	tell("cri-gc, 5,000 + 5,000 items: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside cri-list-size", "%.2f", ratio(own, weighing), 2)
	hold(b, "  RSS at 20,000 + 20,000 items", "%.1f MiB", rss(b, gc(b, startLists(b, 20000))), 40)
}

// gc is the command of a look at a host that has only the directory of kubelet.
func gc(b *testing.B, endpoint string) []string {
	b.Helper()
	kubelet := b.TempDir()
	if err := os.Mkdir(filepath.Join(kubelet, "pods"), 0o755); err != nil {
		b.Fatal(err)
	}
	return append(look(b, "cri-gc", endpoint), "--kubelet-dir="+kubelet)
}
