package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"npd-plugins/internal/npd"
)

const (
	journalTime = 10 * time.Second // for all rule files together
	journalLine = 1 << 20          // bytes of one entry as JSON; longer ones are left out
)

// hour is what a monitor made of an hour of the journal.
type hour struct {
	lines  int
	events map[string]told // by reason
}

// told is how often a rule wrote an event, and the last one.
type told struct {
	count int
	last  npd.Event
}

// journal lists the events that the journal rules would have written in the last hour.
func (r *runner) journal(ctx context.Context) {
	if r.options.rules == "" {
		return
	}
	files, err := jsonFiles([]string{r.options.rules})
	if err != nil {
		r.complain("%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, journalTime)
	defer cancel()
	fmt.Fprintln(r.stdout, "Events of the journal rules in the last hour:")
	t := r.table("Last seen", "Count", "Reason", "From", "Message")
	var notes, read []string
	found := false
	for _, file := range files {
		monitor, err := npd.LoadLogMonitor(file)
		if err != nil {
			r.complain("%v: NPD does not come up with this file", err)
			continue
		}
		h, err := readHour(ctx, monitor)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s: %v", filepath.Base(file), err))
		}
		if h.lines > 0 || err == nil {
			read = append(read, fmt.Sprintf("%s %d", monitor.Config.PluginConfig["source"], h.lines))
		}
		for _, reason := range slices.Sorted(maps.Keys(h.events)) {
			e := h.events[reason]
			found = true
			t.row(e.last.Time.Format(time.TimeOnly), strconv.Itoa(e.count), reason, e.last.Source, e.last.Message)
		}
	}
	if found {
		t.Flush()
	} else {
		fmt.Fprintln(r.stdout, "  none")
	}
	if len(read) > 0 {
		fmt.Fprintf(r.stdout, "  lines read: %s\n", printable(strings.Join(read, ", ")))
	}
	for _, note := range notes {
		fmt.Fprintf(r.stdout, "  not read: %s\n", printable(note))
	}
}

// readHour puts the last hour of the journal through a monitor. What was read before an error counts.
func readHour(ctx context.Context, m *npd.LogMonitor) (hour, error) {
	c := m.Config
	switch {
	case c.Plugin != "journald":
		return hour{}, fmt.Errorf("plugin %s", c.Plugin)
	case c.PluginConfig["source"] == "":
		return hour{}, errors.New("no source in pluginConfig, NPD would not start this monitor")
	case c.LogPath != "" && !isDir(c.LogPath):
		return hour{}, fmt.Errorf("no directory %s, NPD would not start this monitor", c.LogPath)
	}
	args := []string{"--output=json", "--output-fields=MESSAGE", "--all", "--quiet", "--no-pager", "--since=-1h", "--identifier=" + c.PluginConfig["source"]}
	if c.LogPath != "" {
		args = append(args, "--directory="+c.LogPath)
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	cmd.WaitDelay = time.Second
	var complaint firstLine
	cmd.Stderr = &complaint
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return hour{}, err
	}
	if err := cmd.Start(); err != nil {
		return hour{}, err
	}
	h := readEntries(stdout, m)
	err = cmd.Wait()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return h, fmt.Errorf("more than can be read in %v, the rest", journalTime)
	case len(complaint) > 0:
		return h, fmt.Errorf("journalctl: %s", complaint)
	}
	return h, err
}

// firstLine keeps the first line written to it, up to 200 bytes.
type firstLine []byte

func (l *firstLine) Write(p []byte) (int, error) {
	if len(*l) == 0 {
		line, _, _ := bytes.Cut(bytes.TrimSpace(p), []byte{'\n'})
		*l = append(*l, line[:min(len(line), 200)]...)
	}
	return len(p), nil
}

// readEntries reads journalctl's JSON lines.
func readEntries(from io.Reader, m *npd.LogMonitor) hour {
	h := hour{events: map[string]told{}}
	lines := bufio.NewReaderSize(from, journalLine)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			skipLine(lines)
			continue
		}
		var entry struct {
			Message json.RawMessage `json:"MESSAGE"`
			Time    string          `json:"__REALTIME_TIMESTAMP"` // microseconds
		}
		if json.Unmarshal(line, &entry) == nil {
			h.lines++
			clock := func() time.Time {
				micros, _ := strconv.ParseInt(entry.Time, 10, 64)
				return time.UnixMicro(micros)
			}
			for _, match := range m.MatchAt(journalText(entry.Message), clock) {
				if match.Event != nil {
					h.events[match.Rule.Reason] = told{h.events[match.Rule.Reason].count + 1, *match.Event}
				}
			}
		}
		if err != nil {
			return h
		}
	}
}

func skipLine(lines *bufio.Reader) {
	for {
		if _, err := lines.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// journalText is a MESSAGE: a string, or an array of its bytes where it is no UTF-8 or has control characters, or an array
// of several messages, of which NPD sees the last.
func journalText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var octets []int
	if json.Unmarshal(raw, &octets) == nil {
		var b strings.Builder
		for _, o := range octets {
			b.WriteByte(byte(o))
		}
		return b.String()
	}
	var several []json.RawMessage
	if json.Unmarshal(raw, &several) == nil && len(several) > 0 {
		return journalText(several[len(several)-1])
	}
	return ""
}
