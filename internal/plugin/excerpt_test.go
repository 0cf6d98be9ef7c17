package plugin

import (
	"strings"
	"testing"
)

func TestExcerpt(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for line, want := range map[string]string{
		``:                 "",
		`plain 'and' "it"`: `plain 'and' "it"`,
		`pthread_create failed: Resource temporarily unavailable\nSIGABRT: abort\n`: "pthread_create failed: Resource temporarily unavailable SIGABRT: abort ",
		`err="unavailable\\nSIGABRT: abort\\n\\tgoroutine 1"`:                       `err="unavailable SIGABRT: abort  goroutine 1"`,
		`err="rpc error: desc = \"failed: \\\"x\\\"\""`:                             `err="rpc error: desc = "failed: "x"""`,
		`run-containerd\x2dshim.mount: Unit`:                                        "run-containerd-shim.mount: Unit",
		`a \u003cb\u003e \u00e9 \U0001f600 \x1b[31m \x00`:                           "a <b> ? ? ?[31m ?",
		`C:\dir, \d+, \`:             "C:dir, d+, ",
		`\x`:                         "x",
		`\xzz \u12`:                  "xzz ?",
		`sandbox "` + id + `": gone`: `sandbox "0123456789abc..": gone`,
		`sandbox \"` + id + `\"`:     `sandbox "0123456789abc.."`,
		`token ` + strings.Repeat(`0123\x2d`, 12): "token 0123-0123-012..",
		"100%\n\x00\xff": "100? ??",
	} {
		if got := Excerpt([]byte(line), 200); got != want {
			t.Errorf("%s\n is %q\nwant %q", line, got, want)
		}
	}
	if got := Excerpt([]byte(`a\nb c d e`), 6); got != "a b .." {
		t.Errorf("cut: %q", got)
	}
}

func FuzzExcerpt(f *testing.F) {
	f.Add([]byte(`\\\x2d\u00e9\n"`), 10)
	f.Add([]byte(strings.Repeat(`\`, 100)+"n"), 3)
	f.Fuzz(func(t *testing.T, line []byte, most int) {
		if most < 2 || most > 1000 {
			return
		}
		got := Excerpt(line, most)
		if len(got) > most || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' || r == '%' }) {
			t.Errorf("%q", got)
		}
		for word := range strings.FieldsFuncSeq(got, func(r rune) bool { return r > '~' || !isWord(byte(r)) }) {
			if len(word) >= longWord {
				t.Errorf("tells %q", word)
			}
		}
	})
}
