package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"npd-plugins/internal/npd"
)

// row is a condition, and what the check behind it said.
type row struct {
	Type    string  `json:"type"`
	Status  string  `json:"status"`
	Reason  string  `json:"reason"`
	Message string  `json:"message"`
	Seconds float64 `json:"seconds"` // that the last run of the check took
	Check   string  `json:"check"`   // the last words of the check, which NPD shows only at the onset
}

// rows returns a monitor's conditions in the order of its file.
func (m *monitor) rows() []row {
	var all []row
	for _, c := range m.Conditions() {
		r := row{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message}
		for _, rule := range m.config.Rules {
			if result, ok := m.results[rule]; ok && rule.Condition == c.Type && rule.Type != npd.Temporary {
				r.Seconds = float64(result.Took.Milliseconds()) / 1000
				r.Check = result.Message
			}
		}
		all = append(all, r)
	}
	return all
}

func (r row) text() string {
	if r.Check == "" || r.Check == r.Message {
		return r.Message
	}
	return fmt.Sprintf("%s [check: %s]", r.Message, r.Check)
}

func (r *runner) print(monitors []*monitor) {
	var rows []row
	for _, m := range monitors {
		rows = append(rows, m.rows()...)
	}
	if r.options.output == "json" {
		lines := json.NewEncoder(r.stdout)
		lines.SetEscapeHTML(false)
		for _, one := range rows {
			_ = lines.Encode(one)
		}
		return
	}
	fmt.Fprintln(r.stdout, "Conditions:")
	t := r.table("Type", "Status", "Seconds", "Reason", "Message")
	for _, one := range rows {
		t.row(one.Type, one.Status, fmt.Sprintf("%.3f", one.Seconds), one.Reason, one.text())
	}
	t.Flush()
	if len(r.events) == 0 {
		return
	}
	fmt.Fprintln(r.stdout, "Events of temporary rules:")
	t = r.table("Type", "Reason", "From", "Message")
	for _, e := range r.events {
		t.row(e.Type, e.Reason, e.Source, e.Message)
	}
	t.Flush()
	r.events = nil
}

// table is a table in the form of kubectl describe.
type table struct{ *tabwriter.Writer }

func (r *runner) table(columns ...string) table { return newTable(r.stdout, columns...) }

func newTable(to io.Writer, columns ...string) table {
	t := table{tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)}
	t.row(columns...)
	for i, c := range columns {
		columns[i] = strings.Repeat("-", len(c))
	}
	t.row(columns...)
	return t
}

func (t table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintf(t, "  %s\n", strings.Join(cells, "\t"))
}

// printable keeps what others wrote from moving the cursor: a newline becomes a blank, all else that does not print a "?".
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return ' '
		case !unicode.IsPrint(c):
			return '?'
		}
		return c
	}, s)
}
