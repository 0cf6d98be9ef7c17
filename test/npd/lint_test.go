package npd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/npd/lint"
	"npd-plugins/test/lab"
)

// The flags that name a file of each kind.
const (
	custom      = "--config.custom-plugin-monitor"
	systemLog   = "--config.system-log-monitor"
	stats       = "--config.system-stats-monitor"
	stackdriver = "--exporter.stackdriver"
)

// written are files as people write them, good and bad.
var written = []struct{ flag, content string }{
	{custom, `{"plugin": "custom"}`},
	{custom, `{}`},
	{custom, `[]`},
	{custom, `null`},
	{custom, `"custom"`},
	{custom, ``},
	{custom, "\ufeff" + `{"plugin": "custom"}`},
	{custom, `{"plugin": "custom",}`},
	{custom, `{"plugin": "custom"} {}`},
	{custom, `{"plugin": "custom", "rules": [null]}`},
	{custom, `{"plugin": "custom", "rules": [{"type": "temporary", "reason": "R"}]}`},
	{custom, `{"plugin": "custom", "rules": [{"type": "permanent", "condition": "C", "reason": "R", "path": "/bin/true"}]}`},
	{custom, `{"plugin": "custom", "rules": [{"type": "Permanent", "condition": "C", "reason": "R", "path": "/bin/true"}]}`},
	{custom, `{"plugin": "custom", "pluginConfig": {"timeout": "2s"}, "rules": [{"type": "temporary", "reason": "R", "path": "/bin/true", "timeout": "3s"}]}`},
	{custom, `{"plugin": "custom", "pluginConfig": {"concurrency": -1}}`},
	{custom, `{"plugin": "custom", "pluginConfig": {"max_output_length": -1}, "rules": [{"type": "temporary", "reason": "R", "path": "/bin/echo", "args": ["x"]}]}`},
	{custom, `{"plugin": "custom", "rules": [{"type": "temporary", "reason": "Zu spät", "path": "/bin/true"}]}`},
	{custom, `{"plugin": "custom", "metricsReporting": false, "rules": [{"type": "temporary", "reason": "Zu spät", "path": "/bin/true"}]}`},
	{custom, `{"plugin": "custom", "conditions": [{"type": "Zu spät"}], "rules": [{"type": "permanent", "condition": "Zu spät", "reason": "R", "path": "/bin/true"}]}`},
	{custom, `{"plugin": "custom", "rules": [{"type": "temporary", "reason": "` + strings.Repeat("R", 255) + `", "path": "/bin/true"}]}`},
	{custom, `{"plugin": "custom", "rules": [{"type": "temporary", "reason": "` + strings.Repeat("R", 256) + `", "path": "/bin/true"}]}`},
	{custom, `{"plugin": "custom", "conditions": [{"type": "C", "transition": "today"}]}`},
	{custom, `{"plugin": "custom", "conditions": [{"type": "C", "transition": "2026-01-02T03:04:05Z"}]}`},
	{systemLog, `{"plugin": "kmsg"}`},
	{systemLog, `{"plugin": "dmesg"}`},
	{systemLog, `[]`},
	{systemLog, `{"plugin": "kmsg", "rules": [null]}`},
	{systemLog, `{"plugin": "kmsg", "pluginConfig": {"since": 5}}`},
	{systemLog, `{"plugin": "kmsg", "lookback": "5"}`},
	{systemLog, `{"plugin": "kmsg", "delay": "5"}`},
	{systemLog, `{"plugin": "kmsg", "lookback": "", "delay": ""}`},
	{systemLog, `{"plugin": "kmsg", "bufferSize": -1}`},
	{systemLog, `{"plugin": "kmsg", "bufferSize": 1000001}`},
	{systemLog, `{"plugin": "kmsg", "bufferSize": 1000000000000000}`},
	{systemLog, `{"plugin": "kmsg", "rules": [{"type": "temporary", "reason": "R", "pattern": "(?=x)"}]}`},
	{systemLog, `{"plugin": "kmsg", "rules": [{"type": "temporary", "reason": "R", "pattern": "a\\"}]}`},
	{systemLog, `{"plugin": "kmsg", "rules": [{"type": "permanent", "condition": "C", "reason": "R", "pattern": "a.*"}]}`},
	{systemLog, `{"plugin": "kmsg", "rules": [{"type": "temporary", "reason": "R\u0000", "pattern": "a.*"}]}`},
	{systemLog, `{"plugin": "journald", "logPath": "/nowhere"}`},
	{systemLog, `{"plugin": "filelog"}`},
	{systemLog, `{"plugin": "filelog", "pluginConfig": {"timestamp": "("}}`},
	{systemLog, `{"plugin": "filelog", "pluginConfig": {"message": "["}}`},
	{systemLog, `{"plugin": "filelog", "pluginConfig": {"Message": "["}}`},
	{stats, `{"cpu": {}}`},
	{stats, `[]`},
	{stats, `{"invokeInterval": "60"}`},
	{stats, `{"invokeInterval": "0s"}`},
	{stats, `{"invokeInterval": "4s"}`},
	{stats, `{"invokeInterval": "5s"}`},
	{stats, `{"disk": {"lsblkTimeout": "5"}}`},
	{stats, `{"disk": {"lsblkTimeout": "0s"}}`},
	{stats, `{"disk": {"lsblkTimeout": "61s"}}`},
	{stats, `{"net": {"excludeInterfaceRegexp": "("}}`},
	{stats, `{"net": {"excludeInterfaceRegexp": null}}`},
	{stats, `{"net": {"metricsConfigs": {"net/rx_bytes": {"displayName": "rx"}}}}`},
	{stats, `{"net": {"metricsConfigs": {}}}`},
	{stats, netMetrics("rx")},
	{stats, netMetrics("")},
	{stats, `{"net": {"metricsConfigs": {"x": {}}}}`},
	{stats, `{"cpu": {"metricsConfigs": {"cpu/load_1m": {"displayName": "load"}, "cpu/load_5m": {"displayName": "load"}}}}`},
	{stats, `{"cpu": {"metricsConfigs": {"cpu/usage_time": {"displayName": "time"}, "system/cpu_stat": {"displayName": "time"}}}}`},
	{stats, `{"cpu": {"metricsConfigs": {"cpu/usage_time": {"displayName": "x"}}}, "host": {"metricsConfigs": {"host/uptime": {"displayName": "x"}}}}`},
	{stats, `{"cpu": {"metricsConfigs": {"cpu/load_1m": {"displayName": "Größe"}}}}`},
	{stats, `{"cpu": {"metricsConfigs": {"cpu/load_1m": {"displayName": "problem_gauge"}}}}`},
	{stats, `{"cpu": {"metricsConfigs": {"cpu/load_1m": {"displayName": "problem_counter"}}}}`},
	{stats, `{"cpu": {"metricsConfigs": {"system/cpu_stat": {"displayName": "problem_counter"}}}}`},
	{stats, `{"cpu": {"metricsConfigs": {"cpu/load": {"displayName": "Größe"}}}}`},
	{stats, `{"host": {"metricsConfigs": {"host/uptime": null}}}`},
	{stackdriver, `[]`},
	{stackdriver, `{"metadataFetchTimeout": "60"}`},
	{stackdriver, `{"metadataFetchTimeout": "1s", "metadataFetchInterval": "0s"}`},
	{stackdriver, `{` + metadata + `, "metadataFetchTimeout": "60", "metadataFetchInterval": "0"}`},
	{stackdriver, `{` + metadata + `, "exportPeriod": "60"}`},
}

// netMetrics is a system stats file with all metrics of net, of which one has another display name than its own.
func netMetrics(fifo string) string {
	configs := map[string]map[string]string{}
	for _, m := range npd.StatsMetrics {
		if m.Group == "net" {
			configs[m.ID] = map[string]string{"displayName": m.ID}
		}
	}
	configs["net/rx_fifo"]["displayName"] = fifo
	content, _ := json.Marshal(map[string]any{"net": map[string]any{"metricsConfigs": configs}})
	return string(content)
}

// metadata is what the exporter asks nobody for.
const metadata = `"gceMetadata": {"projectID": "p", "zone": "z", "instanceID": "i", "instanceName": "n"}`

// whole are files with every key. Each value of them is replaced by each of replacements.
var whole = map[string]string{
	custom: `{"plugin": "custom", "source": "s", "metricsReporting": true, "pluginConfig": {"invoke_interval": "30s", "timeout": "5s", "max_output_length": 80,
		"concurrency": 3, "enable_message_change_based_condition_update": false, "skip_initial_status": true},
		"conditions": [{"type": "C", "reason": "Fine", "message": "m", "status": "False", "transition": "2026-01-02T03:04:05Z"}],
		"rules": [{"type": "permanent", "condition": "C", "reason": "R", "path": "/bin/true", "args": ["a"], "timeout": "3s", "invoke_interval": "1m"}]}`,
	systemLog: `{"plugin": "filelog", "pluginConfig": {"timestamp": "^.{15}", "message": "(.*)", "timestampFormat": "x", "source": "y"}, "logPath": "/dev/null",
		"lookback": "5m", "delay": "1m", "bufferSize": 10, "source": "s", "skipList": ["a"], "metricsReporting": true,
		"conditions": [{"type": "C", "reason": "Fine", "message": "m", "status": "False", "transition": "2026-01-02T03:04:05Z"}],
		"rules": [{"type": "permanent", "condition": "C", "reason": "R", "pattern": "x.*", "patternGeneratedMessageSuffix": "z"}]}`,
	stats: `{"cpu": {"metricsConfigs": {"cpu/load_1m": {"displayName": "load"}}}, "disk": {"metricsConfigs": {}, "includeRootBlk": true, "includeAllAttachedBlk": true,
		"lsblkTimeout": "5s"}, "host": {"metricsConfigs": {}}, "memory": {"metricsConfigs": {}}, "osFeature": {"metricsConfigs": {}, "knownModulesConfigPath": "x.json"},
		"net": {"metricsConfigs": {}, "excludeInterfaceRegexp": "^veth"}, "invokeInterval": "60s", "procPath": "/proc"}`,
	stackdriver: `{"exportPeriod": "60s", "apiEndpoint": "127.0.0.1:1", ` + metadata + `, "metadataFetchTimeout": "1s", "metadataFetchInterval": "1s",
		"panicOnMetadataFetchFailure": false, "customMetricPrefix": "x"}`,
}

var replacements = []any{nil, true, json.Number("0"), json.Number("-1"), json.Number("1.5"), "", "x", "-1s", []any{}, map[string]any{}}

// replaced returns a document once for each value in it and each replacement.
func replaced(document any) (all []any) {
	switch v := document.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			for _, member := range append(slices.Clone(replacements), replaced(v[key])...) {
				changed := maps.Clone(v)
				changed[key] = member
				all = append(all, changed)
			}
		}
	case []any:
		for i := range v {
			for _, member := range append(slices.Clone(replacements), replaced(v[i])...) {
				changed := slices.Clone(v)
				changed[i] = member
				all = append(all, changed)
			}
		}
	}
	return all
}

// deathbed is one file for NPD, and what lint says of it.
type deathbed struct {
	flag, content string
	findings      []lint.Finding
	fatal         bool
	runs          bool // NPD may die when it runs a plugin or reads counters for the first time
}

func newDeathbed(flag, content string) deathbed {
	d := deathbed{flag: flag, content: content, runs: strings.Contains(content, "net/"), findings: lint.Lint([]lint.Source{{Path: "a.json", Data: []byte(content)}}, "/")}
	for _, f := range d.findings {
		d.fatal = d.fatal || f.Trap.Severity == lint.Fatal
		d.runs = d.runs || f.Trap.ID == "output-negative"
	}
	return d
}

// asksGoogle says whether the exporter would ask a server of Google's before it says anything.
func (d deathbed) asksGoogle() bool {
	if d.flag != stackdriver || d.fatal {
		return false
	}
	var c struct{ GCEMetadata map[string]any }
	if err := json.Unmarshal([]byte(d.content), &c); err != nil {
		return false
	}
	return slices.ContainsFunc([]string{"projectID", "zone", "instanceID", "instanceName"}, func(key string) bool {
		text, _ := c.GCEMetadata[key].(string)
		return text == ""
	})
}

// firstRun is in which NPD has run each plugin and read each counter once.
const firstRun = 5 * time.Second

// dies starts NPD with the file beside a good one and says whether it dies, and its last words.
func (d deathbed) dies(binary, dir string) (bool, string, error) {
	path, log := filepath.Join(dir, "a.json"), filepath.Join(dir, "log")
	if err := os.WriteFile(path, []byte(d.content), 0o644); err != nil {
		return false, "", err
	}
	good := filepath.Join(dir, "good.json")
	if err := os.WriteFile(good, []byte(`{"plugin": "custom", "source": "good"}`), 0o644); err != nil {
		return false, "", err
	}
	credentials := filepath.Join(dir, "credentials.json") // the exporter starts with any
	if err := os.WriteFile(credentials, []byte(`{"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}`), 0o600); err != nil {
		return false, "", err
	}
	out, err := os.Create(log)
	if err != nil {
		return false, "", err
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	port := "0" // with no exporter at all NPD ends by itself when it has taken its files
	if d.runs {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return false, "", err
		}
		_, port, _ = net.SplitHostPort(listener.Addr().String())
		listener.Close()
	}
	cmd := exec.CommandContext(ctx, binary, "--logtostderr", "--enable-k8s-exporter=false", "--port=0", "--hostname-override=node-1",
		"--prometheus-address=127.0.0.1", "--prometheus-port="+port, custom+"="+good, d.flag+"="+path)
	cmd.Env = append(os.Environ(), "GOOGLE_APPLICATION_CREDENTIALS="+credentials)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return false, "", err
	}
	var alive time.Time // since when it has run
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			said, _ := os.ReadFile(log)
			if ctx.Err() != nil {
				return false, string(said), errors.New("NPD neither started nor ended")
			}
			return err != nil && !strings.Contains(string(said), "No exporter is successfully setup"), string(said), nil
		case <-time.After(20 * time.Millisecond):
			said, _ := os.ReadFile(log)
			switch {
			case !strings.Contains(string(said), "Problem detector started"):
			case alive.IsZero():
				alive = time.Now()
			case !d.runs || time.Since(alive) > firstRun:
				cmd.Process.Kill()
				<-ended
				return false, string(said), nil
			}
		}
	}
}

// What kills node-problem-detector is fatal for lint, and what it takes is not.
func TestLintKnowsWhatKillsNPD(t *testing.T) {
	binary := lab.NeedDetector(t)
	var all []deathbed
	for _, w := range written {
		all = append(all, newDeathbed(w.flag, w.content))
	}
	for _, flag := range slices.Sorted(maps.Keys(whole)) {
		decoder := json.NewDecoder(strings.NewReader(whole[flag]))
		decoder.UseNumber()
		var document any
		if err := decoder.Decode(&document); err != nil {
			t.Fatal(err)
		}
		for _, changed := range append(replaced(document), document) {
			content, err := json.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, newDeathbed(flag, string(content)))
		}
	}
	all = slices.DeleteFunc(all, deathbed.asksGoogle)
	beds := make(chan deathbed)
	var work sync.WaitGroup
	var deaths, wrong sync.Map
	for range 2 {
		work.Go(func() {
			dir, err := os.MkdirTemp(t.TempDir(), "")
			if err != nil {
				t.Error(err)
			}
			for d := range beds {
				died, said, err := d.dies(binary, dir)
				if err != nil {
					t.Errorf("%s %s: %v", d.flag, d.content, err)
				}
				if died {
					deaths.Store(d.flag+d.content, true)
				}
				if died != d.fatal && err == nil {
					wrong.Store(d.flag+d.content, fmt.Sprintf("%s %s\nNPD dies: %v, lint: %v\n%s", d.flag, d.content, died, d.findings, said[max(0, len(said)-300):]))
				}
			}
		})
	}
	for _, d := range all {
		beds <- d
	}
	close(beds)
	work.Wait()
	count := 0
	deaths.Range(func(any, any) bool { count++; return true })
	wrong.Range(func(_, what any) bool { t.Error(what); return true })
	t.Logf("%d files, NPD dies of %d", len(all), count)
}
