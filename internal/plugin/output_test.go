package plugin

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var measured = []Measurement{
	{Name: "reply", Value: 7654321.5, Limit: 16 << 20, Unit: "bytes", Forecast: true},
	{Name: "wait", Value: 0.25, Unit: "seconds"},
	{Name: "zombies", Value: 1e6, Limit: 32768, Unit: "processes"},
}

func TestOutputs(t *testing.T) {
	tests := []struct {
		output string
		report report
		code   int
		want   string
	}{
		{"npd", report{Status: Problem, Message: "7 toys | broken", Measurements: measured}, 1, "7 toys | broken\n"},
		{"table", report{Status: Problem, Message: "7 toys broken", Measurements: measured}, 1, `ToyBroken  Problem  7 toys broken

MEASUREMENT  VALUE      LIMIT     UNIT
reply        7654321.5  16777216  bytes
wait         0.25       -         seconds
zombies      1000000    32768     processes
`},
		{"table", report{Status: Unknown, Message: "no hands"}, 2, "ToyBroken  Unknown  no hands\n"},
		{"json", report{Status: Problem, Message: "7 toys broken", Measurements: measured}, 1, `{"check":"toy","condition":"ToyBroken","status":"Problem","message":"7 toys broken","measurements":[` +
			`{"name":"reply","value":7654321.5,"limit":16777216,"unit":"bytes"},{"name":"wait","value":0.25,"limit":0,"unit":"seconds"},{"name":"zombies","value":1000000,"limit":32768,"unit":"processes"}]}` + "\n"},
		{"json", report{Status: Unknown, Message: "no hands"}, 2, `{"check":"toy","condition":"ToyBroken","status":"Unknown","message":"no hands","measurements":[]}` + "\n"},
		{"nagios", report{Status: Problem, Message: "7 toys | broken", Measurements: measured}, 2, "TOY CRITICAL - 7 toys / broken | reply=7654321.5B;;;0;16777216 wait=0.25s;;;0; zombies=1000000;;;0;32768\n"},
		{"nagios", report{Status: OK, Message: "well"}, 0, "TOY OK - well\n"},
		{"nagios", report{Status: Unknown, Message: "no hands"}, 3, "TOY UNKNOWN - no hands\n"},
		{"textfile", report{Status: Problem, Message: "7 toys broken", Measurements: measured}, 1, `# HELP npd_plugins_status Verdict of the check: 1 for the status that holds.
# TYPE npd_plugins_status gauge
npd_plugins_status{check="toy",condition="ToyBroken",status="ok"} 0
npd_plugins_status{check="toy",condition="ToyBroken",status="problem"} 1
npd_plugins_status{check="toy",condition="ToyBroken",status="unknown"} 0
# HELP npd_plugins_last_run_timestamp_seconds When the check ran.
# TYPE npd_plugins_last_run_timestamp_seconds gauge
npd_plugins_last_run_timestamp_seconds{check="toy"} 1793534400
# HELP npd_plugins_measurement Number behind the verdict, in the unit of its label.
# TYPE npd_plugins_measurement gauge
npd_plugins_measurement{check="toy",name="reply",unit="bytes"} 7654321.5
npd_plugins_measurement{check="toy",name="wait",unit="seconds"} 0.25
npd_plugins_measurement{check="toy",name="zombies",unit="processes"} 1000000
# HELP npd_plugins_measurement_limit Value of the measurement at which the node fails.
# TYPE npd_plugins_measurement_limit gauge
npd_plugins_measurement_limit{check="toy",name="reply",unit="bytes"} 16777216
npd_plugins_measurement_limit{check="toy",name="zombies",unit="processes"} 32768
`},
		{"textfile", report{Status: Unknown, Message: "no hands"}, 2, `# HELP npd_plugins_status Verdict of the check: 1 for the status that holds.
# TYPE npd_plugins_status gauge
npd_plugins_status{check="toy",condition="ToyBroken",status="ok"} 0
npd_plugins_status{check="toy",condition="ToyBroken",status="problem"} 0
npd_plugins_status{check="toy",condition="ToyBroken",status="unknown"} 1
# HELP npd_plugins_last_run_timestamp_seconds When the check ran.
# TYPE npd_plugins_last_run_timestamp_seconds gauge
npd_plugins_last_run_timestamp_seconds{check="toy"} 1793534400
`},
	}
	for _, tt := range tests {
		t.Run(tt.output+" "+tt.report.Status.String(), func(t *testing.T) {
			r := tt.report
			r.Check, r.Condition, r.now = "toy", "ToyBroken", time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
			var b bytes.Buffer
			code, err := outputs[tt.output](&b, r)
			if err != nil || code != tt.code {
				t.Errorf("exit %d, %v; want %d", code, err, tt.code)
			}
			if diff := cmp.Diff(tt.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOutputFlag(t *testing.T) {
	m := newMachine(t)
	m.args = []string{"--output=nagios"}
	r := m.tell(Problem, "broken")
	if r.code != 2 || r.stdout != "TOY CRITICAL - broken\n" {
		t.Errorf("exit %d, %q", r.code, r.stdout)
	}
}
