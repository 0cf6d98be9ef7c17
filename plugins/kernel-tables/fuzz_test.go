package main

import (
	"fmt"
	"strings"
	"testing"

	"npd-plugins/internal/procfs"
)

func FuzzKeyUser(f *testing.F) {
	for _, seed := range []string{"    0:     9 8/8 3/1000000 40/25000000\n", "100000: 201 200/200 200/200 16000/20000", "1:2 3/4", ":", "0: 1 2/3 4/5 6/18446744073709551616", "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		u, err := parseKeyUser(line)
		if err != nil {
			if u != (keyUser{}) {
				t.Errorf("%+v beside the error %v", u, err)
			}
			return
		}
		again, err := parseKeyUser(fmt.Appendf(nil, "%5d: %5d 1/1 %d/%d %d/%d\n", u.uid, 1, u.keys, u.maxKeys, u.bytes, u.maxBytes))
		if err != nil || again != u {
			t.Errorf("%+v, written as the kernel does %+v, %v", u, again, err)
		}
	})
}

func FuzzNetStat(f *testing.F) {
	for _, kernel := range kernels(f) {
		tree := captured(f, kernel)
		f.Add([]byte(tree[conntrack]), "drop")
		f.Add([]byte(tree[arp]), "forced_gc_runs")
	}
	f.Add([]byte("entries\n1\n"), "entries")
	f.Add([]byte("entries x\n\nffffffff"), "x")
	f.Fuzz(func(t *testing.T, file []byte, column string) {
		entries, sum, err := parseNetStat(file, column)
		if err != nil {
			if entries != 0 || sum != 0 {
				t.Errorf("%d and %d beside the error %v", entries, sum, err)
			}
			return
		}
		if entries > 1<<32-1 || column == "entries" && sum < entries {
			t.Errorf("%d entries, %d in all rows", entries, sum)
		}
	})
}

func FuzzMountDir(f *testing.F) {
	for _, seed := range []string{"/", "", "/proc", "/a/b/c/d/e", "/var/lib/kubelet/pods/" + uid + "/volumes", "/pods/", "x/y", "//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, point string) {
		if dir := mountDir(point); strings.HasPrefix(point, "/") && !strings.HasPrefix(dir, "/") {
			t.Errorf("%q of %q", dir, point)
		}
	})
}

// BenchmarkCountLines reads 10,000 mounts as the check does, beside taking
// every line apart.
func BenchmarkCountLines(b *testing.B) {
	tree := with(captured(b, "6.18"), mountinfo, mountLines(10000, "/run/netns"))
	h := tree.Open(b)
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			f, err := h.Open("/" + mountinfo)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := countLines(b.Context(), f); n != 10000 || err != nil {
				b.Fatal(n, err)
			}
			f.Close()
		}
	})
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			n := 0
			if err := procfs.EachMount(h, func(procfs.Mount) bool { n++; return true }); n != 10000 || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}
