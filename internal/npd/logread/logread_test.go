package logread

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) {
	time.Local = time.FixedZone("local", 3600)
	os.Exit(m.Run())
}

// line is an entry as text: identifiers, priority, message.
func line(e *Entry) string {
	return fmt.Sprintf("%s %d %q", bytes.Join(e.Identifiers, []byte(",")), e.Priority, e.Message)
}

// read reads to the end. A nil error stands for io.EOF.
func read(t testing.TB, r *Reader) (lines []string, err error) {
	t.Helper()
	var e Entry
	for {
		err := r.Next(&e)
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		if len(e.Message) > MaxMessage {
			t.Fatalf("message of %d bytes", len(e.Message))
		}
		lines = append(lines, line(&e))
	}
}

func binaryField(name, value string) string {
	return name + "\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(value)))) + value + "\n"
}

func TestExport(t *testing.T) {
	const head = "__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1700000000123456\n"
	huge := strings.Repeat("x", 3<<20)
	for name, c := range map[string]struct {
		data string
		want []string
		err  error
		cut  int
	}{
		"plain":              {head + "PRIORITY=3\nSYSLOG_IDENTIFIER=kubelet\nMESSAGE=a=b \n\n", []string{`kubelet 3 "a=b "`}, nil, 0},
		"two, blank lines":   {"\n" + head + "MESSAGE=a\n\n\n\n" + head + "MESSAGE=b\n\n", []string{` -1 "a"`, ` -1 "b"`}, nil, 0},
		"no message":         {head + "SYSLOG_IDENTIFIER=x\n\n", []string{`x -1 ""`}, nil, 0},
		"binary":             {head + binaryField("MESSAGE", "a\nMESSAGE=no\n\n") + binaryField("COREDUMP", "\n\n\x00") + "SYSLOG_IDENTIFIER=x\n\n", []string{`x -1 "a\nMESSAGE=no\n\n"`}, nil, 0},
		"last message":       {head + "MESSAGE=a\nMESSAGE=b\n\n", []string{` -1 "b"`}, nil, 0},
		"two identifiers":    {head + "SYSLOG_IDENTIFIER=a\nMESSAGE=m\nSYSLOG_IDENTIFIER=b\n\n", []string{`a,b -1 "m"`}, nil, 0},
		"nothing left over":  {head + "SYSLOG_IDENTIFIER=a\nPRIORITY=2\nMESSAGE=m\n\n" + head + "\n", []string{`a 2 "m"`, ` -1 ""`}, nil, 0},
		"no blank line":      {head + "MESSAGE=a\n", []string{` -1 "a"`}, nil, 0},
		"other fields":       {head + "MESSAGE_ID=1\n_PID=2\nMESSAG=3\nP=9\nPRIORITY=99\nMESSAGE=a\n\n", []string{` -1 "a"`}, nil, 0},
		"huge text":          {head + "MESSAGE=" + huge + "\nPRIORITY=1\n\n", []string{fmt.Sprintf(` 1 "%s"`, huge[:MaxMessage])}, nil, 1},
		"long text":          {head + "MESSAGE=" + huge[:MaxMessage+1] + "\n\n", []string{fmt.Sprintf(` -1 "%s"`, huge[:MaxMessage])}, nil, 1},
		"huge binary":        {head + binaryField("MESSAGE", huge) + "PRIORITY=1\n\n", []string{fmt.Sprintf(` 1 "%s"`, huge[:MaxMessage])}, nil, 1},
		"huge other":         {head + binaryField("OTHER", huge) + "OTHER=" + huge + "\nMESSAGE=a\n\n", []string{` -1 "a"`}, nil, 0},
		"empty":              {"", nil, nil, 0},
		"in a line":          {head + "MESS", nil, io.ErrUnexpectedEOF, 0},
		"in a length":        {head + "MESSAGE\n\x01\x00", nil, io.ErrUnexpectedEOF, 0},
		"in a value":         {head + binaryField("MESSAGE", "abc")[:18], nil, io.ErrUnexpectedEOF, 0},
		"before the newline": {head + strings.TrimSuffix(binaryField("MESSAGE", "abc"), "\n"), nil, io.ErrUnexpectedEOF, 0},
		"length of a lie":    {head + "MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xffabc", nil, io.ErrUnexpectedEOF, 0},
		"no newline":         {head + binaryField("MESSAGE", "abc")[:19] + "defg\n\n", nil, errAny, 0},
		"no export":          {"Jan  2 15:04:05 host\n", nil, errAny, 0},
		"no name":            {"=1\n\n", nil, errAny, 0},
		"after an entry":     {head + "MESSAGE=a\n\nnonsense\n", []string{` -1 "a"`}, errAny, 0},
	} {
		r := NewFormat(strings.NewReader(c.data), Export)
		got, err := read(t, r)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %.300s", name, diff)
		}
		if c.err == errAny && (err == nil || err == io.ErrUnexpectedEOF) || c.err != errAny && !errors.Is(err, c.err) {
			t.Errorf("%s: error %v, want %v", name, err, c.err)
		}
		if r.Cut != c.cut {
			t.Errorf("%s: %d cut", name, r.Cut)
		}
	}
}

var errAny = errors.New("any")

func TestJSON(t *testing.T) {
	for data, want := range map[string][]string{
		`{"MESSAGE":"a","PRIORITY":"4","SYSLOG_IDENTIFIER":"x"}`:  {`x 4 "a"`},
		` { "MESSAGE" : "a" , "N" : null , "L":[1,{"a":"]"}] } `:  {` -1 "a"`},
		`{"MESSAGE":[97,256,-1,10]}`:                              {` -1 "a\x00\xff\n"`},
		`{"MESSAGE":["a",[98,99]],"SYSLOG_IDENTIFIER":["x","y"]}`: {`x,y -1 "bc"`},
		`{"MESSAGE":[[97],"b"]}`:                                  {` -1 "b"`},
		`{"MESSAGE":null}`:                                        {` -1 ""`},
		`{"MESSAGE":"a","MESSAGE":null}`:                          {` -1 ""`},
		`{}`:                                                      {` -1 ""`},
		`{"MESSAGE":"\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00\ud83dx\"err=\\\"y\\\"\""}`: {` -1 "\"\\/\b\f\n\r\tä😀�x\"err=\\\"y\\\"\""`},
		"{\"MESSAGE\":\"a\"}\n\n{\"MESSAGE\":\"b\"}\r\n":                           {` -1 "a"`, ` -1 "b"`},
		`{"MESSAGE":{"a":1}}`: {` -1 ""`},
	} {
		r := NewFormat(strings.NewReader(data), JSON)
		got, err := read(t, r)
		if diff := cmp.Diff(want, got); diff != "" || err != nil || r.Skipped != 0 {
			t.Errorf("%s: %v, %d skipped: %s", data, err, r.Skipped, diff)
		}
	}
	broken := []string{`x`, `{`, `{"a"`, `{"a":`, `{"a":}`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a":"`, `{"a":[1}`, `{"a":1} {}`, `[]`, `{"MESSAGE":"\x"}`, `{"MESSAGE":"\u12"}`,
		`{"MESSAGE":"\u12g4"}`, `{"MESSAGE":[1,}`, `{"MESSAGE":"` + strings.Repeat("x", 6<<20) + `"}`}
	r := NewFormat(strings.NewReader(strings.Join(broken, "\n")+"\n"+`{"MESSAGE":"fine"}`), JSON)
	got, err := read(t, r)
	if len(got) != 1 || err != nil || r.Skipped != len(broken) {
		t.Errorf("%v, %v, %d of %d skipped", got, err, r.Skipped, len(broken))
	}
	r = NewFormat(strings.NewReader(`{"MESSAGE":"`+strings.Repeat("x", MaxMessage+1)+`"}`), JSON)
	if _, err := read(t, r); err != nil || r.Cut != 1 {
		t.Errorf("%v, %d cut", err, r.Cut)
	}
}

func TestText(t *testing.T) {
	for data, want := range map[string]string{
		"Jan  2 15:04:05 node-1 kubelet[123]: a: b":                                 `kubelet -1 "a: b"`,
		"Jan 02 15:04:05.123456 node-1 kubelet[123]: a":                             `kubelet -1 "a"`,
		"2026-01-02T15:04:05.123456+00:00 node-1 containerd[9]: time=\"x\"":         `containerd -1 "time=\"x\""`,
		"2026-01-02T15:04:05Z node-1 systemd-udevd[9]: a":                           `systemd-udevd -1 "a"`,
		"2026-01-02T15:04:05+0100 node-1 CRON[9]: (root) CMD":                       `CRON -1 "(root) CMD"`,
		"Jan  2 15:04:05 node-1 kernel: [   12.345678] oom: a":                      `kernel -1 "oom: a"`,
		"Jan  2 15:04:05 node-1 kernel: [   12.345678][   T19] oom: a":              `kernel -1 "oom: a"`,
		"Jan  2 15:04:05 node-1 kernel: oom: a":                                     `kernel -1 "oom: a"`,
		"Jan  2 15:04:05 node-1 kernel: [drm] a":                                    `kernel -1 "[drm] a"`,
		"Jan  2 15:04:05 node-1 kernel: [12.5]":                                     `kernel -1 ""`,
		"Jan  2 15:04:05 node-1 postfix/smtpd[1]: a":                                `postfix/smtpd -1 "a"`,
		"Jan  2 15:04:05 node-1 a:b[1]: c":                                          `a:b -1 "c"`,
		"Jan  2 15:04:05 node-1 kubelet[123]:":                                      `kubelet -1 ""`,
		"Jan  2 15:04:05 node-1 kubelet: E0102 15:04:05.123456     1 a.go:1] b\r\n": `kubelet -1 "E0102 15:04:05.123456     1 a.go:1] b"`,
		"Jan  2 15:04:05 node-1 last message repeated 2 times":                      ` -1 "Jan  2 15:04:05 node-1 last message repeated 2 times"`,
		"Jan  2 15:04:05 node-1 a[b c]: d":                                          ` -1 "Jan  2 15:04:05 node-1 a[b c]: d"`,
		"2026-01-02T15:04:05Z stderr F E0102 a":                                     ` -1 "2026-01-02T15:04:05Z stderr F E0102 a"`,
		"E0102 15:04:05.123456     1 a.go:1] b":                                     ` -1 "E0102 15:04:05.123456     1 a.go:1] b"`,
		`{"MESSAGE":"a"}`:                                                           ` -1 "{\"MESSAGE\":\"a\"}"`,
		"Jan  2 15:04:05":                                                           ` -1 "Jan  2 15:04:05"`,
		"Jan  2 15:04:05 ":                                                          ` -1 "Jan  2 15:04:05 "`,
		"Jan  2 15:04:05. ":                                                         ` -1 "Jan  2 15:04:05. "`,
		"-- Boot 0123456789abcdef --":                                               ` -1 "-- Boot 0123456789abcdef --"`,
		"\xff\x00":                                                                  ` -1 "\xff\x00"`,
		"Fri 2026-01-02 15:04:05 CET node-1 kubelet[1]: a":                          `kubelet -1 "a"`,
		"Fri 2026-01-02 15:04:05.123456 UTC kubelet[1]: a":                          `kubelet -1 "a"`,
		"Fri 2026-01-02 15:04:05 UTC node-1 k.service[1]: a":                        `k -1 "a"`,
		"Fri 2026-01-02 15:04:05 UTC node-1 user@0.service/k3s.service[9]: a":       `k3s -1 "a"`,
		"Fri 2026-01-02 15:04:05 UTC":                                               ` -1 "Fri 2026-01-02 15:04:05 UTC"`,
		"1767366245.123456 node-1 kernel: a":                                        `kernel -1 "a"`,
		"Jan  2 15:04:05 kubelet[123]: a: b":                                        `kubelet -1 "a: b"`,
		"2026-11-27T12:30:25,289667+00:00 EXT4-fs (loop1): a":                       `kernel -1 "EXT4-fs (loop1): a"`,
		"[Fri Nov 27 12:30:25 2026] EXT4-fs (loop1): a":                             `kernel -1 "EXT4-fs (loop1): a"`,
		"kern  :info  : [Fri Nov 27 12:30:25 2026] a":                               `kernel -1 "a"`,
		"6,1234,12345678,-,caller=T1;it; hangs":                                     `kernel -1 "it; hangs"`,
		"6,x,12345678,-;a":                                                          ` -1 "6,x,12345678,-;a"`,
		"Jan  2 15:04:05 h kubelet[12] x":                                           ` -1 "Jan  2 15:04:05 h kubelet[12] x"`,
	} {
		got, err := read(t, NewFormat(strings.NewReader(data), Text))
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q: got %s, want %s", data, got, want)
		}
	}
	r := NewFormat(strings.NewReader(strings.Repeat("x", MaxMessage+1)+"\n"+strings.Repeat("y", 2<<20)+"\nz"), Text)
	if got, err := read(t, r); err != nil || len(got) != 3 || r.Cut != 2 || got[2] != ` -1 "z"` {
		t.Errorf("%d lines, %v, %d cut", len(got), err, r.Cut)
	}
}

func TestTextWithIdentifier(t *testing.T) {
	data := "[   12.5] a\n[Fri Jan  2 15:04:05 2026] b\nJan  2 15:04:05 h sshd[1]: c\n[    0.5][    C1] d\n[x] e\n"
	r := NewFormat(strings.NewReader(data), Text)
	r.Identifier = "kernel"
	got, err := read(t, r)
	want := []string{`kernel -1 "a"`, `kernel -1 "b"`, `sshd -1 "c"`, `kernel -1 "d"`, `kernel -1 "[x] e"`}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	for data, want := range map[string]string{
		"Jan  2 15:04:05 h a: b":                    "2026-01-02T15:04:05+01:00",
		"Jan 22 15:04:05.5 h a: b":                  "2026-01-22T15:04:05+01:00",
		"Mar  2 11:00:00 h a: b":                    "2026-03-02T11:00:00+01:00",
		"Mar  2 13:00:00 h a: b":                    "2025-03-02T13:00:00+01:00",
		"Dec 31 15:04:05 h a: b":                    "2025-12-31T15:04:05+01:00",
		"2026-01-02T15:04:05Z h a: b":               "2026-01-02T16:04:05+01:00",
		"2026-01-02T15:04:05+0200 h a: b":           "2026-01-02T14:04:05+01:00",
		"E0102 15:04:05.123456     1 a.go:1] b":     "2026-01-02T15:04:05+01:00",
		`time="2026-01-02T15:04:05Z" level=info`:    "2026-01-02T16:04:05+01:00",
		`time="2026-01-02`:                          "0001-01-01T00:00:00Z",
		"Fri 2026-01-02 15:04:05 UTC h a: b":        "2026-01-02T16:04:05+01:00",
		"Fri 2026-01-02 15:04:05.25 -03 h a: b":     "2026-01-02T19:04:05+01:00",
		"Fri 2026-01-02 15:04:05 CET h a: b":        "2026-01-02T15:04:05+01:00",
		"Fri 2026-01-42 15:04:05 CET h a: b":        "0001-01-01T00:00:00Z",
		"1767366245.123456 h a: b":                  "2026-01-02T16:04:05+01:00",
		"2026-01-02T15:04:05,123456+00:00 a":        "2026-01-02T16:04:05+01:00",
		"nothing":                                   "0001-01-01T00:00:00Z",
		"Jxn  2 15:04:05 h a: b":                    "0001-01-01T00:00:00Z",
		"2026-99-02T15:04:05Z h a: b":               "0001-01-01T00:00:00Z",
		"[Fri Jan  2 15:04:05 2026] b":              "2026-01-02T15:04:05+01:00",
		"Feb 29 15:04:05 h a: no such day in 2026b": "2026-03-01T15:04:05+01:00",
	} {
		r := NewFormat(strings.NewReader(data), Text)
		r.Identifier = "kernel"
		var e Entry
		if err := r.Next(&e); err != nil {
			t.Fatal(err)
		}
		if got := e.stamp.time(now).Format(time.RFC3339); got != want {
			t.Errorf("%q: %s, want %s", data, got, want)
		}
	}
	for data, want := range map[string]int64{"1700000000123456": 1700000000123456, "x": -62135596800000000, "99999999999999999999999": -62135596800000000} {
		var e Entry
		if err := NewFormat(strings.NewReader("__REALTIME_TIMESTAMP="+data+"\n\n"), Export).Next(&e); err != nil {
			t.Fatal(err)
		}
		if got := e.Time().UnixMicro(); got != want {
			t.Errorf("%s: %d", data, got)
		}
	}
}

func TestNew(t *testing.T) {
	for data, want := range map[string]string{
		"":                                      "text",
		"Jan  2 15:04:05 h a: b":                "text",
		"{\"ts\":1,\"msg\":\"a\"}\n":            "text",
		"{\"__CURSOR\":\"a\"}\n":                "journal JSON",
		"{ \"x\":1,\"__REALTIME_TIMESTAMP\":\"": "journal JSON",
		"{\n\t\"__CURSOR\" : \"a\"":             "json-pretty",
		"__CURSOR=s\n":                          "journal export",
		"__REALTIME_TIMESTAMP=1\n":              "journal export",
		"\x1f\x8b\x08":                          "compressed",
		"\x28\xb5\x2f\xfd":                      "compressed",
	} {
		r, err := New(strings.NewReader(data))
		got := fmt.Sprint(err)
		if err == nil {
			got = r.Format.String()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", data, got, want)
		}
	}
	if _, err := New(failing{}); err != errAny {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errAny }

func FuzzExport(f *testing.F) {
	f.Add([]byte("__CURSOR=a\nMESSAGE=a\n\n"))
	f.Add([]byte("__CURSOR=a\n" + binaryField("MESSAGE", "a\n\nb") + "SYSLOG_IDENTIFIER=x\n\nPRIORITY=3\n\n"))
	f.Add([]byte("MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = read(t, NewFormat(bytes.NewReader(data), Export))
	})
}

// What is written as a binary field comes back as it was.
func FuzzExportRoundTrip(f *testing.F) {
	f.Add("a\nb", "kubelet")
	f.Fuzz(func(t *testing.T, message, identifier string) {
		if len(identifier) > maxIdentifier || len(message) > MaxMessage {
			return
		}
		data := binaryField("MESSAGE", message) + binaryField("SYSLOG_IDENTIFIER", identifier) + "\nMESSAGE=end\n\n"
		got, err := read(t, NewFormat(strings.NewReader(data), Export))
		want := []string{fmt.Sprintf("%s -1 %q", identifier, message), ` -1 "end"`}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

// What encoding/json takes for an object with a text is read the same.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"MESSAGE":"a\u00e4\ud83d\n"}`, `{"a":[1,{"b":"]"}],"MESSAGE":"x"}`, `{"MESSAGE":["a",[98]]}`, `{"MESSAGE":[[[["a"]]]]}`, `{"MESSAGE":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.ContainsAny(data, "\n") || len(data) > 1000 {
			return
		}
		got, err := read(t, NewFormat(bytes.NewReader(data), JSON))
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]json.RawMessage
		if json.Unmarshal(data, &fields) != nil || fields == nil {
			return
		}
		var text string
		if raw, ok := fields["MESSAGE"]; !ok || raw[0] != '"' || json.Unmarshal(raw, &text) != nil || strings.ContainsRune(text, '\ufffd') {
			return
		}
		if bytes.Count(data, []byte("MESSAGE")) > 1 || bytes.Contains(data, []byte(`\u`)) || bytes.Contains(data, []byte("SYSLOG")) || bytes.Contains(data, []byte("PRIO")) {
			return // more than one of a name, or a name in another spelling
		}
		if want := fmt.Sprintf(" -1 %q", text); len(got) != 1 || got[0] != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"Jan  2 15:04:05 h kubelet[1]: a\n                             b", "Fri 2026-01-02 15:04:05.5 UTC h x/k.service[1]: a", "1767366245.123456 h k: a", "6,1,2,-;a",
		"kern  :info  : [ 1.5] a", "<6>[Nov27 11:51] a", "[1.5 <2.5>] h k[1]: a", "2026-11-27T12:30:25,289667+00:00 a", "2026-01-02T15:04:05Z h kernel: [ 1.5][ T1] a", "[Fri Jan  2 15:04:05 2026] a", `time="x`, "E0102 15:04:05.123456 1 a"} {
		f.Add([]byte(s), "kernel")
	}
	f.Fuzz(func(t *testing.T, data []byte, identifier string) {
		r, err := New(bytes.NewReader(data))
		if err != nil || r.Format != Text {
			return
		}
		r.Identifier = identifier
		var e Entry
		for r.Next(&e) == nil {
			e.Time()
			if first, _, _ := bytes.Cut(e.Message, []byte{'\n'}); !bytes.HasSuffix(e.Line, first) {
				t.Errorf("message %q is no end of %q", e.Message, e.Line)
			}
		}
	})
}

func FuzzVerbose(f *testing.F) {
	f.Add([]byte("Fri 2026-01-02 15:04:05.123456 UTC [s=6;i=1]\n    SYSLOG_IDENTIFIER=kubelet\n    MESSAGE=first\n              second\n    PRIORITY=3\n-- Boot 1 --\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewFormat(bytes.NewReader(data), Verbose)
		lines, err := read(t, r)
		if err != nil || len(lines)+r.Skipped > 1+bytes.Count(data, []byte{'\n'}) {
			t.Errorf("%d entries, %d lines skipped, %v", len(lines), r.Skipped, err)
		}
	})
}

// BenchmarkRead compares the formats; encoding/json is what reading JSON would cost with it.
func BenchmarkRead(b *testing.B) {
	const message = `I1021 10:11:12.131415    1234 reconciler_common.go:245] "operationExecutor.VerifyControllerAttachedVolume started for volume \"kube-api-access-abcde\"" pod="web/web-7d4b9c"`
	fields := [][2]string{{"__CURSOR", "s=0123456789abcdef0123456789abcdef;i=1;b=0123456789abcdef;m=1;t=2;x=3"}, {"__REALTIME_TIMESTAMP", "1700000000123456"}}
	for i := range 20 {
		fields = append(fields, [2]string{fmt.Sprintf("_FIELD_%d", i), "some value of some length"})
	}
	fields = append(fields, [2]string{"PRIORITY", "6"}, [2]string{"SYSLOG_IDENTIFIER", "kubelet"}, [2]string{"MESSAGE", message})
	var export strings.Builder
	object := map[string]string{}
	for _, f := range fields {
		export.WriteString(f[0] + "=" + f[1] + "\n")
		object[f[0]] = f[1]
	}
	one, _ := json.Marshal(object)
	lines := func(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s") }
	for format, data := range map[Format]string{Export: export.String() + "\n", JSON: string(one) + "\n", Text: "Jan  2 15:04:05 node kubelet[1]: " + message + "\n"} {
		b.Run(format.String(), func(b *testing.B) {
			r := NewFormat(&repeat{data: data}, format)
			var e Entry
			for b.Loop() {
				if err := r.Next(&e); err != nil {
					b.Fatal(err)
				}
			}
			lines(b)
		})
	}
	b.Run("encoding/json", func(b *testing.B) {
		var e struct {
			Message    string `json:"MESSAGE"`
			Identifier string `json:"SYSLOG_IDENTIFIER"`
			Priority   string `json:"PRIORITY"`
			Time       string `json:"__REALTIME_TIMESTAMP"`
		}
		for b.Loop() {
			if err := json.Unmarshal(one, &e); err != nil {
				b.Fatal(err)
			}
		}
		lines(b)
	})
}

// repeat is a text without end.
type repeat struct {
	data string
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c := copy(p[n:], r.data[r.at:])
		n += c
		r.at = (r.at + c) % len(r.data)
	}
	return n, nil
}
