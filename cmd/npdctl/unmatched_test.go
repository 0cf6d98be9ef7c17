package main

import (
	"fmt"
	"strings"
	"testing"

	"npd-plugins/internal/npd/logread"
)

func TestLooksBad(t *testing.T) {
	for line, want := range map[string]bool{
		"E0102 15:04:05.123456    1 a.go:1] b":      true,
		"F0102 15:04:05.123456    1 a.go:1] b":      true,
		"I0102 15:04:05.123456    1 a.go:1] b":      false,
		"I0102 15:04:05.123456    1 a.go:1] failed": true,
		`time="x" level=error msg="y"`:              true,
		`time="x" level=warning msg="y"`:            false,
		`{"level":"error","msg":"y"}`:               true,
		`{"level":"fatal","msg":"y"}`:               true,
		"two Errors":                                true,
		"FAILED to":                                 true,
		"panic: x":                                  true,
		"it timed out":                              true,
		"it timed  out":                             false,
		"terror and unfailed":                       false,
		"errno":                                     false,
		"":                                          false,
		"e":                                         false,
		"ends with erro":                            false,
	} {
		if got := looksBad([]byte(line), 6); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
	for priority, want := range map[int]bool{-1: false, 0: true, 3: true, 4: false} {
		if got := looksBad([]byte("quiet"), priority); got != want {
			t.Errorf("priority %d: %v", priority, got)
		}
	}
}

func TestShape(t *testing.T) {
	for line, want := range map[string]string{
		`E0102 15:04:12.123456    1234 kubelet.go:2419] "Skipping 3 pods" err="off for 3m4.5s of \"web-7d4b9c6f5-x2k9z\"" pod="a/b"`:   `E kubelet.go "Skipping N pods" err="off for NmN.Ns of "*"" pod="*"`,
		`E0102 15:04:12.123456    1234 kubelet.go:2419] Skipping pod 0c5f6d7e-8a1b-4c2d-9e3f-a4b5c6d7e8f9`:                             `E kubelet.go Skipping pod ID`,
		`time="2026-01-02T15:04:05Z" level=error msg="RemoveContainer for \"abc\" failed" error="rpc error: code = 5" id=0f1e2d3c4b5a`: `time="*" level=error msg="RemoveContainer for "*" failed" error="rpc error: code = N" id=ID`,
		`{"ts":1717307286350.695,"caller":"a.go:32","msg":"Node 7 failed","err":"rpc \"x\" 5","pod":"a/b"}`:                            `{"ts":N.N,"caller":"*","msg":"Node N failed","err":"rpc "*" N","pod":"*"}`,
		`Connection closed by 192.0.2.7 port 4711`:              `Connection closed by N.N.N.N port N`,
		`eth0: cgroup2 sha256:0123456789abcdef0123456789abcdef`: `ethN: cgroupN shaN:ID`,
		`pod-bcdfg dead beef facade00`:                          `pod-bcdfg dead beef ID`,
		`an open "quote`:                                        `an open "*"`,
		`msg="an open quo`:                                      `msg="an open quo"`,
		`a "" b`:                                                `a "*" b`,
		`x=\"open`:                                              `x=\"*"`,
		`- -5 a- 7-`:                                            `- -N a- N-`,
		``:                                                      ``,
	} {
		if got := string(appendShape(nil, []byte(line))); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", line, got, want)
		}
	}
}

func TestShapesAreBounded(t *testing.T) {
	s := newShapes()
	add := func(text string) {
		s.take(&logread.Entry{Message: []byte(text), Priority: -1, Identifiers: [][]byte{[]byte("x")}})
	}
	word := func(i int) string { // letters only, so that each is a shape of its own
		return strings.Map(func(r rune) rune { return r - '0' + 'g' }, fmt.Sprint(i))
	}
	for i := range 20 * knownShapes {
		add("error " + word(i))
		if i%10 == 0 {
			add("error that comes often")
		}
	}
	add("quiet")
	if len(s.known) != knownShapes || len(s.heap) != knownShapes {
		t.Errorf("%d shapes, %d in the heap", len(s.known), len(s.heap))
	}
	top := s.top(3)
	if len(top) != 3 || top[0].Shape != "error that comes often" || top[0].Count < 2*knownShapes || top[0].Count-top[0].Over > 2*knownShapes {
		t.Errorf("%+v", top)
	}
	for _, one := range s.top(knownShapes) {
		if got := s.known["x\x00"+one.Shape]; got == nil || s.heap[got.place].shape != got {
			t.Fatalf("%+v is lost", one)
		}
	}
}

func FuzzShape(f *testing.F) {
	for _, s := range []string{`E0102 15:04:12.123456    1 a.go:1] "b" err="c \"d\"" e="f"`, `{"a":"b","msg":"\"`, `a-1-b "c`, `0c5f6d7e-8a1b-4c2d-9e3f-a4b5c6d7e8f9`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		looksBad(line, -1)
		if got := appendShape(nil, line); len(got) > 4*len(line)+8 {
			t.Errorf("%q became %q", line, got)
		}
	})
}
