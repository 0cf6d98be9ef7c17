package npd

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// NPD's defaults for what a system stats file leaves out.
const (
	DefaultStatsInterval = 60 * time.Second
	DefaultLsblkTimeout  = 5 * time.Second
)

// StatsGroups are the groups of a system stats file in the order in which NPD's system stats monitor makes their metrics.
var StatsGroups = []string{"cpu", "disk", "host", "memory", "osFeature", "net"}

// StatsMetric is a metric that NPD can make. It makes those with a display name, in this order.
type StatsMetric struct {
	Group string // a key of the file
	ID    string // a key of the group's metricsConfigs
	Gauge bool   // NPD dies of a gauge whose display name another metric has; of counters it makes one
}

// StatsMetrics are from the collectors in NPD's pkg/systemstatsmonitor.
var StatsMetrics = []StatsMetric{
	{"cpu", "cpu/runnable_task_count", true}, {"cpu", "cpu/usage_time", false}, {"cpu", "cpu/load_1m", true}, {"cpu", "cpu/load_5m", true},
	{"cpu", "cpu/load_15m", true}, {"cpu", "system/processes_total", false}, {"cpu", "system/procs_running", true},
	{"cpu", "system/procs_blocked", true}, {"cpu", "system/interrupts_total", false}, {"cpu", "system/cpu_stat", false},
	{"disk", "disk/io_time", false}, {"disk", "disk/weighted_io", false}, {"disk", "disk/avg_queue_len", true}, {"disk", "disk/operation_count", false},
	{"disk", "disk/merged_operation_count", false}, {"disk", "disk/operation_bytes_count", false}, {"disk", "disk/operation_time", false},
	{"disk", "disk/bytes_used", true}, {"disk", "disk/percent_used", true},
	{"host", "host/uptime", true},
	{"memory", "memory/bytes_used", true}, {"memory", "memory/percent_used", true}, {"memory", "memory/anonymous_used", true},
	{"memory", "memory/page_cache_used", true}, {"memory", "memory/unevictable_used", true}, {"memory", "memory/dirty_used", true},
	{"osFeature", "system/os_feature", true},
	{"net", "net/rx_bytes", false}, {"net", "net/rx_packets", false}, {"net", "net/rx_errors", false}, {"net", "net/rx_dropped", false},
	{"net", "net/rx_fifo", false}, {"net", "net/rx_frame", false}, {"net", "net/rx_compressed", false}, {"net", "net/rx_multicast", false},
	{"net", "net/tx_bytes", false}, {"net", "net/tx_packets", false}, {"net", "net/tx_errors", false}, {"net", "net/tx_dropped", false},
	{"net", "net/tx_fifo", false}, {"net", "net/tx_collisions", false}, {"net", "net/tx_carrier", false}, {"net", "net/tx_compressed", false},
}

// OwnMetrics are the metrics that NPD makes before those of any file: true for a gauge.
var OwnMetrics = map[string]bool{"problem_counter": false, "problem_gauge": true}

// maxLabel is how many bytes the name of a metric or the value of a label can have: maxNameLength of OpenCensus' stats/view,
// maxKeyLength of its tag.
const maxLabel = 255

// IsLabel says whether NPD's metrics take s as a name or the value of a label. With any other reason NPD does not start.
func IsLabel(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= maxLabel
}

// statsGroup is one group of a system stats file, with what only disk and net have.
type statsGroup struct {
	Metrics map[string]struct {
		DisplayName string `json:"displayName"`
	} `json:"metricsConfigs"`
}

type statsConfig struct {
	CPU  statsGroup `json:"cpu"`
	Disk struct {
		statsGroup
		IncludeRootBlk        bool   `json:"includeRootBlk"`
		IncludeAllAttachedBlk bool   `json:"includeAllAttachedBlk"`
		LsblkTimeout          string `json:"lsblkTimeout"`
	} `json:"disk"`
	Host      statsGroup `json:"host"`
	Memory    statsGroup `json:"memory"`
	OSFeature struct {
		statsGroup
		KnownModulesConfigPath string `json:"knownModulesConfigPath"`
	} `json:"osFeature"`
	Net struct {
		statsGroup
		ExcludeInterfaceRegexp expression `json:"excludeInterfaceRegexp"`
	} `json:"net"`
	InvokeInterval string `json:"invokeInterval"`
	ProcPath       string `json:"procPath"`
}

// expression is a regular expression, "" for none.
type expression struct{}

// UnmarshalText implements encoding.TextUnmarshaler.
func (expression) UnmarshalText(text []byte) error {
	_, err := regexp.Compile(string(text))
	return err
}

// CheckStats reads a configuration file of the system stats monitor. An error is what NPD dies of at or right after its start, except that
// procPath is not looked at: it is that of another machine or mount namespace.
func CheckStats(data []byte) error {
	var c statsConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	interval, err := durationOr(c.InvokeInterval, DefaultStatsInterval)
	if err != nil {
		return err
	}
	lsblk, err := durationOr(c.Disk.LsblkTimeout, DefaultLsblkTimeout)
	switch {
	case err != nil:
		return err
	case interval <= 0:
		return fmt.Errorf("invokeInterval %v is not above zero", interval)
	case lsblk <= 0:
		return fmt.Errorf("lsblkTimeout %v is not above zero", lsblk)
	case lsblk > interval:
		return fmt.Errorf("lsblkTimeout %v is above invokeInterval %v", lsblk, interval)
	}
	groups := map[string]statsGroup{
		"cpu": c.CPU, "disk": c.Disk.statsGroup, "host": c.Host, "memory": c.Memory, "osFeature": c.OSFeature.statsGroup, "net": c.Net.statsGroup,
	}
	seen := map[string]bool{}
	for name, gauge := range OwnMetrics {
		seen[name] = gauge
	}
	for _, m := range StatsMetrics {
		name := groups[m.Group].Metrics[m.ID].DisplayName
		before, taken := seen[name]
		switch {
		case m.Group == "net" && len(groups["net"].Metrics) > 0 && name == "":
			return fmt.Errorf("net has no displayName for %s", m.ID) // of one it dies when it reads the counters
		case name == "":
		case !IsLabel(name):
			return fmt.Errorf("displayName %q is not printable ASCII of up to %d bytes", name, maxLabel)
		case taken && (before || m.Gauge):
			return fmt.Errorf("displayName %q is that of another metric", name)
		default:
			seen[name] = m.Gauge
		}
	}
	return nil
}

func durationOr(text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	return time.ParseDuration(text)
}

// CheckStackdriver reads a configuration file of the Stackdriver exporter. An error is what NPD dies of at its start; it needs
// Google's credentials too.
func CheckStackdriver(data []byte) error {
	var c struct {
		ExportPeriod string `json:"exportPeriod"`
		APIEndpoint  string `json:"apiEndpoint"`
		GCEMetadata  struct {
			ProjectID    string `json:"projectID"`
			Zone         string `json:"zone"`
			InstanceID   string `json:"instanceID"`
			InstanceName string `json:"instanceName"`
		} `json:"gceMetadata"`
		MetadataFetchTimeout        string `json:"metadataFetchTimeout"`
		MetadataFetchInterval       string `json:"metadataFetchInterval"`
		PanicOnMetadataFetchFailure bool   `json:"panicOnMetadataFetchFailure"`
		CustomMetricPrefix          string `json:"customMetricPrefix"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	if _, err := durationOr(c.ExportPeriod, time.Minute); err != nil {
		return err
	}
	if g := c.GCEMetadata; g.ProjectID != "" && g.Zone != "" && g.InstanceID != "" && g.InstanceName != "" {
		return nil // the others are not looked at
	}
	if _, err := durationOr(c.MetadataFetchTimeout, time.Minute); err != nil {
		return err
	}
	interval, err := durationOr(c.MetadataFetchInterval, time.Minute)
	if err == nil && interval == 0 {
		err = errors.New("metadataFetchInterval is zero, which NPD divides by")
	}
	return err
}
