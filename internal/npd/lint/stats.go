package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/npd"
)

// statsKeys are those of a file of the system stats monitor, stackdriverKeys those of a file of the exporter.
var (
	statsKeys       = append(slices.Clone(npd.StatsGroups), "invokeInterval", "procPath")
	stackdriverKeys = []string{
		"exportPeriod", "apiEndpoint", "gceMetadata", "metadataFetchTimeout", "metadataFetchInterval", "panicOnMetadataFetchFailure", "customMetricPrefix",
	}
)

// stats finds what can be seen in one system stats file, but for its metrics.
func (f *file) stats() {
	interval, lsblk := f.top.get("invokeInterval"), f.top.get("disk").get("lsblkTimeout")
	f.positive("interval-not-positive", interval)
	every, limit := length(interval, npd.DefaultStatsInterval), length(lsblk, npd.DefaultLsblkTimeout)
	switch {
	case limit <= 0:
		f.report("lsblk-timeout", lsblk.offset, "lsblkTimeout %v", limit)
	case every > 0 && limit > every:
		position := f.top.offset
		for _, v := range []*value{interval, lsblk} {
			if v != nil {
				position = v.offset
			}
		}
		f.report("lsblk-timeout", position, "lsblkTimeout %v, invokeInterval %v", limit, every)
	}
	if expr := f.top.get("net").get("excludeInterfaceRegexp"); expr != nil {
		if _, err := regexp.Compile(expr.str()); err != nil {
			f.report("pattern-invalid", expr.offset, "%v", err)
		}
	}
	if path := f.top.get("procPath"); path.str() != "" && f.root != "" {
		if _, err := os.Stat(filepath.Join(f.root, path.text)); os.IsNotExist(err) {
			f.report("path-missing", path.offset, "%s does not exist below %s", path.text, f.root)
		}
	}
}

// metric is where a metric gets its name.
type metric struct {
	place
	gauge bool
}

// ownMetrics are those that NPD has before it reads a file.
func ownMetrics() map[string]metric {
	all := map[string]metric{}
	for name, gauge := range npd.OwnMetrics {
		all[name] = metric{place{"NPD itself", 0}, gauge}
	}
	return all
}

// metrics finds metrics that NPD cannot make, with those of the files before.
func (f *file) metrics(seen map[string]metric) {
	var missing []string
	for _, m := range npd.StatsMetrics {
		name := f.top.get(m.Group).get("metricsConfigs").exact(m.ID).get("displayName")
		if name.str() == "" {
			if m.Group == "net" {
				missing = append(missing, m.ID)
			}
			continue
		}
		before, taken := seen[name.text]
		switch {
		case !npd.IsLabel(name.text):
			f.report("metric-name", name.offset, "displayName %q", name.text)
		case taken && (before.gauge || m.Gauge):
			f.report("metric-twice", name.offset, "displayName %q, also in %s", name.text, before.place)
		default:
			seen[name.text] = metric{place{f.Path, f.line(name.offset)}, m.Gauge}
		}
	}
	if net := f.top.get("net").get("metricsConfigs"); net != nil && len(net.members) > 0 && len(missing) > 0 {
		f.report("net-incomplete", net.offset, "no displayName for %s", strings.Join(missing, " "))
	}
}

// stackdriver finds what can be seen in a file of the exporter.
func (f *file) stackdriver() {
	metadata := f.top.get("gceMetadata")
	whole := true
	for _, key := range []string{"projectID", "zone", "instanceID", "instanceName"} {
		whole = whole && metadata.get(key).str() != ""
	}
	f.shape = stackdriverShape(whole)
	f.fits(f.top, f.shape, "the file")
	every := f.top.get("metadataFetchInterval")
	if d, err := time.ParseDuration(every.str()); err == nil && d == 0 && !whole {
		f.report("interval-not-positive", every.offset, "metadataFetchInterval %v", d)
	}
}
