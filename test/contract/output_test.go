package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"npd-plugins/internal/npd"
)

// TestOutputs holds each --output against its format and against what --output npd tells of the same host.
func TestOutputs(t *testing.T) {
	healthy, sick := healthyRoot(t, "v2"), sickHost(t, hostileNames["quoted lines"])
	serveHealthy(t, healthy)
	hosts := map[string]string{"healthy": healthy, "sick": sick, "empty": t.TempDir()}
	eachCheck(t, nil, func(t *testing.T, c check) {
		for host, root := range hosts {
			t.Run(host, func(t *testing.T) {
				want := c.lookTwice(t, root)
				for output, parse := range outputs {
					t.Run(output, func(t *testing.T) {
						r := c.rawOutput(t, root, output)
						text := r.Message + "\n" // RunPlugin trims it
						status, err := parse(c, text, r.ExitCode)
						if err != nil {
							t.Errorf("%v in\n%s", err, text)
						} else if status != want.Status {
							t.Errorf("tells %v, want %v as --output npd: %s\n%s", status, want.Status, want.Message, text)
						}
						if i := strings.IndexFunc(text, func(c rune) bool { return c != '\n' && c < ' ' || c > '~' }); i >= 0 {
							t.Errorf("%q at byte %d", text[i], i)
						}
					})
				}
			})
		}
	})
}

// rawOutput is the second look in that format, not held against the contract of --output npd.
func (c check) rawOutput(t *testing.T, root, output string) npd.PluginResult {
	t.Helper()
	args := c.on(root, extraArgs[c.name]...)
	args = append(args, "--timeout="+timeout.String(), "--state-dir="+filepath.Join(t.TempDir(), "raw"), "--output="+output)
	npd.RunPlugin(context.Background(), c.path, args, 2*timeout, npd.MaxPluginOutput)
	return npd.RunPlugin(context.Background(), c.path, args, 2*timeout, npd.MaxPluginOutput)
}

// outputs check one format each and return the verdict that it tells.
var outputs = map[string]func(c check, text string, exitCode int) (npd.Status, error){
	"json":     parseJSON,
	"nagios":   parseNagios,
	"table":    parseTable,
	"textfile": parseTextfile,
}

var statusByWord = map[string]npd.Status{"OK": npd.OK, "Problem": npd.NonOK, "Unknown": npd.Unknown}

func parseJSON(c check, text string, exitCode int) (npd.Status, error) {
	var r struct {
		Check, Condition, Status, Message string
		Measurements                      []struct {
			Name  *string  `json:"name"`
			Value *float64 `json:"value"`
			Limit *float64 `json:"limit"`
			Unit  *string  `json:"unit"`
		}
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return 0, err
	}
	status, ok := statusByWord[r.Status]
	switch {
	case strings.Count(text, "\n") != 1:
		return 0, fmt.Errorf("not one line")
	case !ok || exitCode != int(status):
		return 0, fmt.Errorf("status %q with exit code %d", r.Status, exitCode)
	case r.Check != c.name || r.Condition == "" || r.Message == "" || r.Measurements == nil:
		return 0, fmt.Errorf("a field is missing")
	}
	for _, m := range r.Measurements {
		if m.Name == nil || m.Value == nil || m.Limit == nil || m.Unit == nil {
			return 0, fmt.Errorf("a field of a measurement is missing")
		}
	}
	return status, nil
}

var (
	nagiosLine = regexp.MustCompile(`^[A-Z-]+ (OK|CRITICAL|UNKNOWN) - ([^|]+)(?: \|(.*))?\n$`)
	perfdata   = regexp.MustCompile(`^[a-z0-9_]+=-?[0-9.]+(s|B)?;;;0;([0-9.]+)?$`)
)

func parseNagios(_ check, text string, exitCode int) (npd.Status, error) {
	m := nagiosLine.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("not a Nagios line")
	}
	for _, value := range strings.Fields(m[3]) {
		if !perfdata.MatchString(value) {
			return 0, fmt.Errorf("%q is no performance data", value)
		}
	}
	code := map[string]int{"OK": 0, "CRITICAL": 2, "UNKNOWN": 3}[m[1]]
	if exitCode != code {
		return 0, fmt.Errorf("%s with exit code %d", m[1], exitCode)
	}
	return map[int]npd.Status{0: npd.OK, 2: npd.NonOK, 3: npd.Unknown}[code], nil
}

func parseTable(_ check, text string, exitCode int) (npd.Status, error) {
	head, measurements, found := strings.Cut(text, "\n\n")
	fields := strings.Fields(head)
	if len(fields) < 3 || strings.Contains(strings.TrimSuffix(head, "\n"), "\n") {
		return 0, fmt.Errorf("the first line is not CONDITION STATUS MESSAGE")
	}
	if found && !regexp.MustCompile(`^MEASUREMENT +VALUE +LIMIT +UNIT *\n(\w+ +[0-9.]+ +([0-9.]+|-) +\w+ *\n)+$`).MatchString(measurements) {
		return 0, fmt.Errorf("the measurements are no table")
	}
	status, ok := statusByWord[fields[1]]
	if !ok || exitCode != int(status) {
		return 0, fmt.Errorf("status %q with exit code %d", fields[1], exitCode)
	}
	return status, nil
}

var (
	familyLine = regexp.MustCompile(`^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*\}) (-?[0-9.]+)$`)
	okStatus   = regexp.MustCompile(`(?m)^npd_plugins_status\{.*status="(\w+)"\} 1$`)
)

// parseTextfile wants of the text exposition format: HELP and TYPE once, before the samples of their name, which stand
// together; and no sample twice.
func parseTextfile(c check, text string, exitCode int) (npd.Status, error) {
	seen := map[string]bool{}
	family := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := familyLine.FindStringSubmatch(line); m != nil {
			family = m[2]
			if key := m[1] + " " + family; seen[key] || m[1] == "TYPE" && m[3] != "gauge" {
				return 0, fmt.Errorf("%q twice or no gauge", line)
			} else {
				seen[key] = true
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			return 0, fmt.Errorf("%q is neither a sample nor a comment", line)
		}
		if m[1] != family || !seen["HELP "+family] || !seen["TYPE "+family] || seen[m[1]+m[2]] {
			return 0, fmt.Errorf("%q is there twice or not after its HELP and TYPE", line)
		}
		if !strings.Contains(m[2], `check="`+c.name+`"`) {
			return 0, fmt.Errorf("%q does not tell the check", line)
		}
		seen[m[1]+m[2]] = true
	}
	holds := okStatus.FindAllStringSubmatch(text, -1)
	if len(holds) != 1 {
		return 0, fmt.Errorf("%d statuses hold", len(holds))
	}
	status, ok := map[string]npd.Status{"ok": npd.OK, "problem": npd.NonOK, "unknown": npd.Unknown}[holds[0][1]]
	if !ok || exitCode != int(status) {
		return 0, fmt.Errorf("status %q with exit code %d", holds[0][1], exitCode)
	}
	return status, nil
}
