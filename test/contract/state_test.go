package contract

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"npd-plugins/internal/kubelet/kubelettest"
	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// TestStateDir has directories that cannot hold the state. The verdict is that of a first run, with a word on stderr.
func TestStateDir(t *testing.T) {
	root := healthyRoot(t, "v2")
	serveHealthy(t, root)
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	dirs := map[string]string{
		"cannot be made":  "/proc/npd-plugins",
		"not writable":    "/proc/self",
		"is a file":       file,
		"is below a file": file + "/state",
		"is empty":        "",
	}
	if os.Geteuid() != 0 { // whom no mode keeps out
		locked := t.TempDir()
		if err := os.Chmod(locked, 0o500); err != nil {
			t.Fatal(err)
		}
		dirs["mode 0500"] = locked
	}
	eachCheck(t, nil, func(t *testing.T, c check) {
		want := c.run(t, c.on(root)...)
		for name, dir := range dirs {
			r := c.run(t, c.on(root, "--state-dir="+dir)...)
			if r.Status != want.Status {
				want = c.run(t, c.on(root)...) // what it reads of this machine may be another by now
			}
			if r.Status != want.Status || r.Stderr == "" {
				t.Errorf("%s: %v, want %v and a word on stderr: %s\n%s", name, r.Status, want.Status, r.Message, r.Stderr)
			}
		}
	})
}

func TestStateDirIsMadePrivate(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		dir := filepath.Join(t.TempDir(), "new/dir")
		c.run(t, "--state-dir="+dir)
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("mode %v, want 0700", info.Mode())
		}
	})
}

// TestStateFile has state files that are broken, foreign or no files. The verdict is that of a first run.
func TestStateFile(t *testing.T) {
	t.Parallel()
	root := healthyRoot(t, "v2")
	serveHealthy(t, root)
	told := func(text string) func(*testing.T, string) {
		return func(t *testing.T, path string) { write(t, path, text) }
	}
	ofThisBoot := func(lines string) func(*testing.T, string) {
		return told("boot " + bootID + "\n" + lines)
	}
	files := map[string]struct {
		make   func(t *testing.T, path string)
		silent bool // no word on stderr is needed
	}{
		"garbage":           {make: told("garbage \x00\xff %s\n")},
		"empty":             {make: told("")},
		"cut":               {make: ofThisBoot("bad 1\nlast 1 brok")},
		"no value":          {make: ofThisBoot("bad\n")},
		"unknown key":       {make: ofThisBoot("size 1\n")},
		"no number":         {make: ofThisBoot("bad many\n")},
		"negative count":    {make: ofThisBoot("bad -1\n")},
		"count too large":   {make: ofThisBoot("bad 99999999999999999999\n")},
		"status 7":          {make: ofThisBoot("last 7 x\n")},
		"memory is cut":     {make: ofThisBoot(`check {"a":` + "\n"), silent: true},
		"memory is nested":  {make: ofThisBoot("check " + strings.Repeat("[", 1<<20) + "\n"), silent: true},
		"memory of another": {make: ofThisBoot(`check {"a":["%s","\u001b[2J\n"]}` + "\n"), silent: true},
		"history of others": {make: ofThisBoot("sample 1e300 1e300 tasks\nsample -1e300 0 tasks\nsample NaN Inf zombies\nsample 0 0 x\n"), silent: true},
		"another boot":      {make: told("boot another\nbad 9\nlast 1 old\n"), silent: true},
		"huge": {make: func(t *testing.T, path string) {
			write(t, path, "{")
			if err := os.Truncate(path, 1<<30); err != nil {
				t.Fatal(err)
			}
		}},
		"symlink": {make: func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "target")
			write(t, target, "precious")
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if b, err := os.ReadFile(target); err != nil || string(b) != "precious" {
					t.Errorf("the target of the symlink was changed: %q %v", b, err)
				}
			})
		}},
		"FIFO": {make: func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		"directory": {make: func(t *testing.T, path string) { write(t, filepath.Join(path, "file"), "") }},
		"another user's": {make: func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			write(t, path, "boot "+bootID+"\nlast 1 forged\n")
			if err := os.Chown(path, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			eachCheck(t, nil, func(t *testing.T, c check) {
				want := c.run(t, c.on(root)...)
				dir := t.TempDir()
				file.make(t, filepath.Join(dir, c.name+".state"))
				r := c.run(t, c.on(root, "--state-dir="+dir)...)
				if r.Status != want.Status {
					want = c.run(t, c.on(root)...) // what it reads of this machine may be another by now
				}
				if r.Status != want.Status {
					t.Errorf("%v, want %v as without a state: %s", r.Status, want.Status, r.Message)
				}
				if r.Stderr == "" && !file.silent {
					t.Error("no word on stderr")
				}
				if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
					t.Errorf("left behind: %v %v", left, err)
				}
			})
		})
	}
}

// TestPreviousBoot keeps nothing of what was told before the node was booted.
func TestPreviousBoot(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, c.name+".state"), "boot another\nbad 9\nlast 1 of the boot before\n")
		if r := c.run(t, "--host-root=/no/such/host", "--state-dir="+dir); r.Status != npd.Unknown {
			t.Errorf("%v, want Unknown: %s", r.Status, r.Message)
		}
	})
}

// TestFailedLook keeps the verdict of the last look that saw something for four looks of the same boot. A look at
// what is no host in between is Unknown, and the memory outlives it.
func TestFailedLook(t *testing.T) {
	notHosts := map[string]string{
		"nothing":                       "",
		"a host root that is not there": "/no/such/host",
		"an empty host root":            t.TempDir(),
	}
	sick, blind := sickHost(t, "web"), t.TempDir()
	write(t, filepath.Join(blind, "proc/sys/kernel/random/boot_id"), bootID+"\n")
	write(t, filepath.Join(blind, socketPath), "") // a runtime that is gone is no failed look
	eachCheck(t, func(c check) bool { return modelled[c.name] }, func(t *testing.T, c check) {
		for name, notHost := range notHosts {
			args := append(slices.Clone(extraArgs[c.name]), "--state-dir="+filepath.Join(t.TempDir(), "kept"))
			for range 2 {
				c.run(t, c.on(sick, args...)...)
			}
			if notHost != "" {
				c.wantUnknown(t, c.on(notHost, args...))
			}
			for look := range 4 {
				if r := c.run(t, c.on(blind, args...)...); r.Status != npd.NonOK {
					t.Errorf("look %d that failed, after %s: %v, want the Problem before it: %s", look+1, name, r.Status, r.Message)
				}
			}
			c.wantUnknown(t, c.on(blind, args...))
		}
	})
}

// needsTwo has the checks with a finding that only a second look confirms, and what makes one look at suspectHost
// suspicious. The others recall something too, and their verdict does not wait for it.
var needsTwo = map[string][]string{
	"cri-gc":           {"--count=1"},
	"image-pull":       nil,
	"io-stall":         nil,
	"kernel-tables":    extraArgs["kernel-tables"],
	"kubelet-throttle": nil,
	"pleg":             nil,
	"runc-init":        nil,
	"service-restarts": nil,
	"stuck-tasks":      extraArgs["stuck-tasks"],
	"zombies":          nil,
}
var recallsOnly = map[string]string{
	"cri-latency":   "the socket at which a runtime answered, which is not OK when it is forgotten",
	"cri-list-size": "the pods of the last list that got through",
	"eviction":      "kubelet's settings",
	"memory-stall":  "what was logged already",
}

// TestNothingKept has state directories in which nothing can be kept: full, without inodes, read-only, gone. No check
// may then say OK of what it would say Problem of in the end.
func TestNothingKept(t *testing.T) {
	root := suspectHost(t)
	page := kubelettest.Page(t, "1.36")
	kubelet := kubelettest.Serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, page) })
	silent := kubelettest.Serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			<-r.Context().Done()
		}
	})
	dirs := lab.StateDirs(t)
	for _, c := range checks {
		args, suspicious := needsTwo[c.name]
		if !suspicious {
			args = extraArgs[c.name]
		}
		if recalls(t, c.name) != (suspicious || recallsOnly[c.name] != "") {
			t.Errorf("%s calls Recall and is neither in needsTwo nor in recallsOnly, or the reverse", c.name)
		}
		if !suspicious && !modelled[c.name] {
			continue // nothing is wrong with that host for this check
		}
		switch {
		case c.name == "pleg":
			args = append(silent.Flags(), args...)
		case c.readsMetrics():
			args = append(kubelet.Flags(), args...)
		}
		args = c.on(root, args...)
		for name, dir := range dirs {
			for range 2 {
				r := c.run(t, append(slices.Clone(args), "--state-dir="+dir)...)
				if r.Status == npd.OK {
					t.Errorf("%s is OK with a state directory that is %s: %s", c.name, name, r.Message)
				}
				if r.Status == npd.Unknown && !strings.Contains(r.Message, "--state-dir") {
					t.Errorf("%s is Unknown with a state directory that is %s, and does not say why: %s", c.name, name, r.Message)
				}
			}
		}
	}
}

// recalls says whether the check's source has a call of Recall.
func recalls(t *testing.T, name string) bool {
	t.Helper()
	files, err := filepath.Glob("../../plugins/" + name + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("the source of %s: %v", name, err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		source, err := os.ReadFile(file)
		return err == nil && !strings.HasSuffix(file, "_test.go") && strings.Contains(string(source), ".Recall(")
	})
}

// suspectHost is the sick host, with what the checks that are not modelled there need to suspect something at one look.
func suspectHost(t *testing.T) string {
	t.Helper()
	root := sickHost(t, "web")
	set := func(file, content string) { write(t, filepath.Join(root, file), content) }
	set("proc/pressure/io", "some avg10=80.00 avg60=80.00 avg300=9.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n")
	set("proc/diskstats", " 8 16 sdb 1000 0 0 0 5000 0 0 0 3 9000 0 0\n")
	set("proc/1/mountinfo", "26 0 8:16 / / rw - ext4 /dev/sdb rw\n27 1 0:45 / /web rw - fuse.x x rw\n28 1 8:16 / /web rw - ext4 /dev/web ro\n")
	makeDir(t, filepath.Join(root, "sys/class/block"))
	if err := os.Symlink("../../devices/pci0/host1/block/sdb", filepath.Join(root, "sys/class/block/sdb")); err != nil {
		t.Fatal(err)
	}
	ingest := "var/lib/containerd/io.containerd.content.v1.content/ingest/0f1e2d3c/"
	set(ingest+"ref", "k8s.io/1/layer-sha256:"+strings.Repeat("a", 64))
	set(ingest+"data", "not whole")
	later := time.Now().Add(time.Hour) // than the clock, which was set back
	if err := os.Chtimes(filepath.Join(root, ingest, "data"), later, later); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestDebounceWithoutState has a state file that can never be written, while the directory can. --failure-threshold is then of no
// use, and a Problem is told at once, as with a directory that cannot be written.
func TestDebounceWithoutState(t *testing.T) {
	root := sickHost(t, "web")
	// Those that compare two looks can tell nothing without.
	canFail := func(c check) bool { return modelled[c.name] && c.name != "stuck-tasks" && c.name != "zombies" }
	eachCheck(t, canFail, func(t *testing.T, c check) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, c.name+".state", "file"), "")
		args := c.on(root, append(slices.Clone(extraArgs[c.name]), "--failure-threshold=3", "--state-dir="+dir)...)
		var r npd.PluginResult
		for range 4 {
			r = c.run(t, args...)
		}
		if r.Status != npd.NonOK {
			t.Errorf("%v after 4 bad looks with --failure-threshold=3, want a Problem: %s", r.Status, r.Message)
		}
	})
}
