package contract

import (
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"npd-plugins/internal/journalfile/journaltest"
	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// mends is in each message of a look that failed: the flag, the mount or the file to look at.
const mends = `--[a-z]|mount |/[a-z]`

func TestNoHostRoot(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		c.wantUnknown(t, []string{"--host-root=/no/such/host"}, "/no/such/host", "--host-root", "mount ")
		c.wantUnknown(t, []string{"--host-root="}, "--host-root")
		file := filepath.Join(t.TempDir(), "file")
		write(t, file, "")
		c.wantUnknown(t, []string{"--host-root=" + file}, "--host-root")
	})
}

func TestEmptyHost(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		c.wantNothingSeen(t, t.TempDir(), "--[a-z]|mount ")
	})
}

// garbage is what may stand in a file instead of what belongs there.
func garbage() map[string]string {
	random := make([]byte, 8192)
	rand.New(rand.NewSource(1)).Read(random)
	lines := func(s string) string { return strings.Repeat(s, 50) }
	return map[string]string{
		"empty":     "",
		"newline":   "\n",
		"spaces":    strings.Repeat(" ", 5000),
		"NUL":       strings.Repeat("\x00", 5000),
		"random":    string(random),
		"huge":      lines("99999999999999999999999999999999 18446744073709551616 1e400\n"),
		"negative":  lines("-1 -9223372036854775808 -0.5 -1/-1\n"),
		"words":     lines("max nan inf %s%n \x1b[2J (((( )))) ::: {\"a\":[\n"),
		"long line": strings.Repeat("7", 1<<20),
		"too long":  strings.Repeat("1 ", 3<<20),
	}
}

func TestGarbageInEveryFile(t *testing.T) {
	t.Parallel()
	for kind, content := range garbage() {
		for _, version := range []string{"v1", "v2"} {
			t.Run(kind+"/"+version, func(t *testing.T) {
				t.Parallel()
				source := filepath.Join(t.TempDir(), "garbage")
				write(t, source, content)
				root := t.TempDir()
				for _, file := range nodeFiles(t, version) {
					path := filepath.Join(root, file)
					makeDir(t, filepath.Dir(path))
					if err := os.Link(source, path); err != nil {
						t.Fatal(err)
					}
				}
				for _, c := range checks {
					t.Run(c.name, func(t *testing.T) {
						c.wantNothingSeen(t, root, mends)
					})
				}
			})
		}
	}
}

// TestGarbageInOneFile leaves the rest healthy. What that one is for may then be OK, when it does not matter, and is
// else Unknown; it is never a Problem of the node.
func TestGarbageInOneFile(t *testing.T) {
	t.Parallel()
	kinds := garbage()
	for _, version := range []string{"v1", "v2"} {
		for _, file := range slices.Sorted(maps.Keys(healthyHost(version))) {
			t.Run(version+"/"+file, func(t *testing.T) {
				t.Parallel()
				root := healthyRoot(t, version)
				serveHealthy(t, root)
				for _, kind := range []string{"empty", "random", "huge", "negative", "words"} {
					write(t, filepath.Join(root, file), kinds[kind])
					for _, c := range checks {
						r := c.run(t, c.on(root, "--failure-threshold=1")...)
						if r.Status == npd.NonOK && readsNothing[c.name] == "" {
							t.Errorf("%s in %s: %s says Problem: %s", kind, file, c.name, r.Message)
						}
					}
				}
			})
		}
	}
}

// TestNoProcessIsReadable has garbage in every stat file. A check that looks at all of them has then seen nothing.
func TestNoProcessIsReadable(t *testing.T) {
	root := healthyRoot(t, "v2")
	serveHealthy(t, root)
	for file := range healthyHost("v2") {
		if filepath.Base(file) == "stat" {
			write(t, filepath.Join(root, file), garbage()["words"])
		}
	}
	looksAtAll := func(c check) bool { return strings.Contains(c.help, "\n  /proc/*/stat\n") }
	eachCheck(t, looksAtAll, func(t *testing.T, c check) {
		c.wantUnknown(t, c.on(root), mends)
	})
}

// TestHangingFiles has a FIFO without a writer for every file, which blocks whoever opens it.
func TestHangingFiles(t *testing.T) {
	root := t.TempDir()
	for _, file := range nodeFiles(t, "v2") {
		path := filepath.Join(root, file)
		makeDir(t, filepath.Dir(path))
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eachCheck(t, nil, func(t *testing.T, c check) {
		c.wantNothingSeen(t, root, "--timeout|--cri-endpoint")
	})
}

// TestSymlinkOutOfHost has links to this machine's /proc and /sys, which are not the host's.
func TestSymlinkOutOfHost(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"proc", "sys", "run", "var"} {
		if err := os.Symlink("/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	eachCheck(t, nil, func(t *testing.T, c check) {
		c.wantNothingSeen(t, root, mends)
	})
}

// TestThisMachine only wants the contract: nobody knows what state this machine is in.
func TestThisMachine(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) { c.run(t) })
}

func TestHealthyHost(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			root := healthyRoot(t, version)
			serveHealthy(t, root)
			eachCheck(t, nil, func(t *testing.T, c check) {
				if r := c.run(t, c.on(root)...); modelled[c.name] && r.Status != npd.OK {
					t.Errorf("%v, want OK: %s", r.Status, r.Message)
				}
			})
		})
	}
}

// wantNothingSeen wants Unknown of a host on which nothing can be read, never OK.
func (c check) wantNothingSeen(t *testing.T, root string, patterns ...string) {
	t.Helper()
	args := c.on(root)
	if readsNothing[c.name] != "" {
		c.run(t, args...)
		return
	}
	c.wantUnknown(t, args, patterns...)
}

// on returns the arguments for a look at that host.
func (c check) on(root string, more ...string) []string {
	return append(slices.Concat(asks[c.name], more), "--host-root="+root)
}

// healthyHost is a small node with the runtime's socket left out, file by file.
func healthyHost(version string) map[string]string {
	files := map[string]string{
		"proc/loadavg":                     "0.10 0.20 0.30 1/200 4711\n",
		"proc/uptime":                      "90000.00 170000.00\n",
		"proc/cgroups":                     "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t140\t1\n",
		"proc/meminfo":                     "MemTotal: 16384000 kB\nMemAvailable: 9000000 kB\nActive(file): 1000000 kB\n",
		"proc/pressure/memory":             "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"proc/self/status":                 "Name:\tcheck\nUid:\t0\t0\t0\t0\nNSpid:\t4711\n",
		"proc/sys/kernel/osrelease":        "6.12.1\n",
		"proc/sys/kernel/pid_max":          "32768\n",
		"proc/sys/kernel/threads-max":      "192730\n",
		"proc/sys/kernel/random/boot_id":   bootID + "\n",
		"proc/sys/fs/file-nr":              "1312\t0\t97832\n",
		"proc/sys/fs/pipe-user-pages-soft": "16384\n",
		"proc/1/stat":                      stat(1, "systemd", 'S', 0, 3),
		"proc/1/cgroup":                    "0::/init.scope\n",
		"proc/1/mountinfo":                 "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n",
		"proc/1/status":                    "Name:\tsystemd\nUid:\t0\t0\t0\t0\n",
		"proc/2/stat":                      stat(2, "kthreadd", 'S', 0, 3),
		"proc/77/stat":                     stat(77, "a (b) c", 'Z', 1, 4000),
		"var/lib/kubelet/config.yaml":      "kind: KubeletConfiguration\nevictionHard: {memory.available: 100Mi}\n",
		systemJournal:                      journal("kubelet", "Started kubelet"),
	}
	base := "sys/fs/cgroup"
	if version == "v1" {
		files[base+"/memory/cgroup.procs"] = "1\n"
		files[base+"/memory/release_agent"] = "\n"
		files[base+"/memory/memory.stat"] = "cache 4096\ntotal_cache 4096\n"
		files[base+"/memory/memory.usage_in_bytes"] = "4096\n"
		base += "/pids"
	} else {
		files[base+"/cgroup.stat"] = "nr_descendants 140\nnr_dying_descendants 12\n"
		files[base+"/cgroup.controllers"] = "cpuset cpu io memory pids\n"
		files[base+"/memory.stat"] = "anon 4096\nfile 4096\n"
	}
	files[base+"/cgroup.procs"] = "1\n"
	for _, group := range []string{"kubepods", "system.slice/containerd.service"} {
		files[base+"/"+group+"/pids.current"] = "20\n"
		files[base+"/"+group+"/pids.max"] = "1000\n"
	}
	return files
}

// systemJournal is the file that journald writes to.
const systemJournal = "run/log/journal/0f1e2d3c4b5a69788796a5b4c3d2e1f0/system.journal"

// journal is a file of the journal with messages of a minute ago.
func journal(identifier string, messages ...string) string {
	var file journaltest.File
	for _, message := range messages {
		file.Entries = append(file.Entries, journaltest.Entry{Realtime: uint64(time.Now().Add(-time.Minute).UnixMicro()),
			Fields: journaltest.Texts("SYSLOG_IDENTIFIER="+identifier, "MESSAGE="+message)})
	}
	return string(file.Bytes())
}

const bootID = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"

func healthyRoot(t *testing.T, version string) string {
	t.Helper()
	root := lab.ShortDir(t) // it will hold a socket
	for file, content := range healthyHost(version) {
		write(t, filepath.Join(root, file), content)
	}
	return root
}

// nodeFiles returns the paths of testdata.
func nodeFiles(t *testing.T, version string) []string {
	t.Helper()
	var files []string
	for _, list := range []string{"node-files.txt", "cgroup-" + version + "-files.txt"} {
		b, err := os.ReadFile(filepath.Join("testdata", list))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, "#") {
				files = append(files, expand(strings.TrimSpace(line))...)
			}
		}
	}
	return files
}

var braces = regexp.MustCompile(`^(.*?)\{(.*?)\}(.*)$`)

// expand returns the paths that braces stand for, as a shell does.
func expand(path string) []string {
	m := braces.FindStringSubmatch(path)
	if m == nil {
		return []string{path}
	}
	var paths []string
	for choice := range strings.SplitSeq(m[2], ",") {
		paths = append(paths, expand(m[1]+choice+m[3])...)
	}
	return paths
}

func write(t *testing.T, path, content string) {
	t.Helper()
	makeDir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func makeDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}
