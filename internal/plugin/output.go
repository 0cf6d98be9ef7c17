package plugin

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// report is a verdict as it is told, after debounce and forecast.
type report struct {
	Check        string        `json:"check"`
	Condition    string        `json:"condition"`
	Status       Status        `json:"-"`
	StatusWord   string        `json:"status"`
	Message      string        `json:"message"`
	Measurements []Measurement `json:"measurements"`
	now          time.Time
}

// outputs are the values of --output. Each writes the report and returns the
// exit code.
var outputs = map[string]func(io.Writer, report) (int, error){
	"npd":      writeNPD,
	"table":    writeTable,
	"json":     writeJSON,
	"nagios":   writeNagios,
	"textfile": writeTextfile,
}

const outputNames = "npd, table, json, nagios or textfile"

func writeNPD(w io.Writer, r report) (int, error) {
	_, err := fmt.Fprintln(w, r.Message)
	return int(r.Status), err
}

func writeTable(w io.Writer, r report) (int, error) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s\t%s\t%s\n", r.Condition, r.Status, r.Message)
	if len(r.Measurements) > 0 {
		fmt.Fprintf(tw, "\nMEASUREMENT\tVALUE\tLIMIT\tUNIT\n")
	}
	for _, m := range r.Measurements {
		limit := "-"
		if m.Limit > 0 {
			limit = formatNumber(m.Limit)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", m.Name, formatNumber(m.Value), limit, m.Unit)
	}
	return int(r.Status), tw.Flush()
}

func writeJSON(w io.Writer, r report) (int, error) {
	r.StatusWord = r.Status.String()
	if r.Measurements == nil {
		r.Measurements = []Measurement{}
	}
	return int(r.Status), json.NewEncoder(w).Encode(r)
}

// nagiosUnknown is the exit code UNKNOWN of the Nagios guidelines.
const nagiosUnknown = 3

// writeNagios follows the Nagios plugin development guidelines: one line, "|",
// performance data 'label'=value[UOM];warn;crit;min;max, and exit codes 0, 2, 3.
func writeNagios(w io.Writer, r report) (int, error) {
	word, code := "UNKNOWN", nagiosUnknown
	switch r.Status {
	case OK:
		word, code = "OK", 0
	case Problem:
		word, code = "CRITICAL", 2
	}
	line := strings.ToUpper(r.Check) + " " + word + " - " + strings.ReplaceAll(r.Message, "|", "/")
	if len(r.Measurements) > 0 {
		line += " |"
	}
	for _, m := range r.Measurements {
		unit := map[string]string{"bytes": "B", "seconds": "s"}[m.Unit]
		limit := ""
		if m.Limit > 0 {
			limit = formatNumber(m.Limit)
		}
		line += fmt.Sprintf(" %s=%s%s;;;0;%s", m.Name, formatNumber(m.Value), unit, limit)
	}
	_, err := fmt.Fprintln(w, line)
	return code, err
}

// writeTextfile writes the text format of node_exporter's textfile collector.
func writeTextfile(w io.Writer, r report) (int, error) {
	var b strings.Builder
	family := func(name, help string) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
	}
	family("npd_plugins_status", "Verdict of the check: 1 for the status that holds.")
	for _, s := range []Status{OK, Problem, Unknown} {
		holds := 0
		if s == r.Status {
			holds = 1
		}
		fmt.Fprintf(&b, "npd_plugins_status{check=%q,condition=%q,status=%q} %d\n", r.Check, r.Condition, strings.ToLower(s.String()), holds)
	}
	family("npd_plugins_last_run_timestamp_seconds", "When the check ran.")
	fmt.Fprintf(&b, "npd_plugins_last_run_timestamp_seconds{check=%q} %d\n", r.Check, r.now.Unix())
	limited := slices.DeleteFunc(slices.Clone(r.Measurements), func(m Measurement) bool { return m.Limit <= 0 })
	if len(r.Measurements) > 0 {
		family("npd_plugins_measurement", "Number behind the verdict, in the unit of its label.")
	}
	for _, m := range r.Measurements {
		fmt.Fprintf(&b, "npd_plugins_measurement{check=%q,name=%q,unit=%q} %s\n", r.Check, m.Name, m.Unit, formatNumber(m.Value))
	}
	if len(limited) > 0 {
		family("npd_plugins_measurement_limit", "Value of the measurement at which the node fails.")
	}
	for _, m := range limited {
		fmt.Fprintf(&b, "npd_plugins_measurement_limit{check=%q,name=%q,unit=%q} %s\n", r.Check, m.Name, m.Unit, formatNumber(m.Limit))
	}
	_, err := io.WriteString(w, b.String())
	return int(r.Status), err
}

// formatNumber writes without an exponent, which Nagios does not read.
func formatNumber(v float64) string {
	return strconv.FormatFloat(v, 'f', -1, 64)
}
