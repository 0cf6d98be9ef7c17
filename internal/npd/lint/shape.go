package lint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"npd-plugins/internal/npd"
)

// shape is the type NPD decodes a value into. All but the containers are named by what they hold.
type shape struct {
	holds  string            // text, duration, whole number, bool, time, object, list
	fields map[string]*shape // of an object
	each   *shape            // of a list; of an object that NPD decodes into a map, with keys it does not use
	empty  bool              // an empty duration counts as absent

	unknown string // the trap of a key that is none of fields, "" for unknown-key
}

var (
	text     = &shape{holds: "text"}
	duration = &shape{holds: "duration"}
	since    = &shape{holds: "duration", empty: true}
	number   = &shape{holds: "whole number"}
	yesNo    = &shape{holds: "bool"}
	instant  = &shape{holds: "time"}
)

func object(fields map[string]*shape) *shape { return &shape{holds: "object", fields: fields} }
func list(each *shape) *shape                { return &shape{holds: "list", each: each} }

// element is the shape of what a list holds. A nil shape has none.
func (s *shape) element() *shape {
	if s == nil {
		return nil
	}
	return s.each
}

var conditions = list(object(map[string]*shape{
	"type": text, "reason": text, "message": text, "status": text, "transition": instant,
}))

// customShape is CustomPluginConfig of NPD's pkg/custompluginmonitor/types.
var customShape = object(map[string]*shape{
	"plugin": text,
	"pluginConfig": object(map[string]*shape{
		"invoke_interval": duration, "timeout": duration, "max_output_length": number, "concurrency": number,
		"enable_message_change_based_condition_update": yesNo, "skip_initial_status": yesNo,
	}),
	"source":     text,
	"conditions": conditions,
	"rules": list(object(map[string]*shape{
		"type": text, "condition": text, "reason": text, "path": text, "args": list(text), "timeout": duration, "invoke_interval": duration,
	})),
	"metricsReporting": yesNo,
})

// logShape is MonitorConfig of NPD's pkg/systemlogmonitor. NPD takes any key with a text in
// pluginConfig and uses those of the plugin; all of them are known for a plugin that is not.
func logShape(plugin string) *shape {
	used := map[string]*shape{}
	if plugin != "filelog" && plugin != "kmsg" {
		used["source"] = text
	}
	if plugin != "journald" && plugin != "kmsg" {
		used["timestamp"], used["message"], used["timestampFormat"] = text, text, text
	}
	return object(map[string]*shape{
		"plugin":       text,
		"pluginConfig": {holds: "object", fields: used, each: text},
		"skipList":     list(text),
		"logPath":      text,
		"lookback":     since,
		"delay":        since,
		"bufferSize":   number,
		"source":       text,
		"conditions":   conditions,
		"rules": list(object(map[string]*shape{
			"type": text, "condition": text, "reason": text, "pattern": text, "patternGeneratedMessageSuffix": text,
		})),
		"metricsReporting": yesNo,
	})
}

// statsShape is SystemStatsConfig of NPD's pkg/systemstatsmonitor/types.
var statsShape = func() *shape {
	groups := map[string]*shape{}
	for _, name := range npd.StatsGroups {
		metrics := map[string]*shape{}
		for _, m := range npd.StatsMetrics {
			if m.Group == name {
				metrics[m.ID] = object(map[string]*shape{"displayName": text})
			}
		}
		groups[name] = object(map[string]*shape{
			"metricsConfigs": {holds: "object", fields: metrics, each: object(map[string]*shape{"displayName": text}), unknown: "metric-unknown"},
		})
	}
	maps.Copy(groups["disk"].fields, map[string]*shape{"includeRootBlk": yesNo, "includeAllAttachedBlk": yesNo, "lsblkTimeout": since})
	groups["osFeature"].fields["knownModulesConfigPath"] = text
	groups["net"].fields["excludeInterfaceRegexp"] = text
	groups["invokeInterval"], groups["procPath"] = since, text
	return object(groups)
}()

// stackdriverShape is StackdriverExporterConfig of NPD's pkg/exporters/stackdriver. With all of gceMetadata NPD does not look at the two
// durations for fetching it.
func stackdriverShape(metadata bool) *shape {
	fetch := since
	if metadata {
		fetch = text
	}
	return object(map[string]*shape{
		"exportPeriod": since, "apiEndpoint": text, "metadataFetchTimeout": fetch, "metadataFetchInterval": fetch,
		"gceMetadata":                 object(map[string]*shape{"projectID": text, "zone": text, "instanceID": text, "instanceName": text}),
		"panicOnMetadataFetchFailure": yesNo, "customMetricPrefix": text,
	})
}

// fits reports where a value and its shape differ.
func (f *file) fits(v *value, s *shape, where string) {
	if v.kind == 'n' {
		return
	}
	switch s.holds {
	case "object":
		if v.kind != '{' {
			f.mismatch(v, s, where)
			return
		}
		f.keys(v, s, where)
	case "list":
		if v.kind != '[' {
			f.mismatch(v, s, where)
			return
		}
		for _, element := range v.members {
			f.fits(element, s.each, "an element of "+where)
		}
	default:
		f.scalar(v, s, where)
	}
}

// article is what a value is to be, in words.
func (s *shape) article() string {
	switch s.holds {
	case "bool":
		return "true or false"
	case "time":
		return "a time as in RFC 3339"
	case "duration":
		return "a duration in quotes"
	case "object":
		return "an object"
	case "text":
		return "a text in quotes"
	}
	return "a " + s.holds
}

func (f *file) mismatch(v *value, s *shape, where string) {
	f.report("wrong-type", v.offset, "%s is not %s", where, s.article())
}

func (f *file) scalar(v *value, s *shape, where string) {
	ok := v.kind == '"'
	switch s.holds {
	case "bool":
		ok = v.kind == 'b'
	case "whole number":
		_, err := strconv.Atoi(v.text)
		ok = v.kind == '0' && err == nil
	case "time":
		ok = ok && new(time.Time).UnmarshalText([]byte(v.text)) == nil
	}
	if !ok {
		f.mismatch(v, s, where)
		return
	}
}

// duration reports what is no duration. NPD looks only at the last value of a key.
func (f *file) duration(v *value, s *shape, where string) {
	if v.kind != '"' || s.holds != "duration" || s.empty && v.text == "" {
		return
	}
	if _, err := time.ParseDuration(v.text); err != nil {
		f.report("duration", v.offset, "%s is %q", where, v.text)
	}
}

// keys looks at the keys of an object, then at what they hold.
func (f *file) keys(v *value, s *shape, where string) {
	seen := map[string]*value{}
	for _, m := range v.members {
		name, known := field(s, m.key)
		switch {
		case !known:
			f.report(cmp.Or(s.unknown, "unknown-key"), m.keyAt, "%q in %s%s", m.key, where, f.hint(m.key, s))
			if s.each != nil {
				f.fits(m, s.each, strconv.Quote(m.key))
			}
			continue
		case name != m.key:
			f.report("key-case", m.keyAt, "%q in %s, the name is %q", m.key, where, name)
		}
		if before := seen[name]; before != nil {
			f.report("duplicate-key", m.keyAt, "%q in %s, first in line %d", m.key, where, f.line(before.keyAt))
		}
		seen[name] = m
		f.fits(m, s.fields[name], strconv.Quote(name))
	}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		f.duration(seen[name], s.fields[name], strconv.Quote(name))
	}
}

// field returns the name of the field that a key is decoded into: the same but for case, except in a map.
func field(s *shape, key string) (string, bool) {
	if _, ok := s.fields[key]; ok || s.each != nil {
		return key, ok
	}
	for name := range s.fields {
		if strings.EqualFold(name, key) {
			return name, true
		}
	}
	return "", false
}

// hint says where a key would mean something, or which keys do here.
func (f *file) hint(key string, here *shape) string {
	if here.unknown == "" && here.each != nil {
		return ", this plugin does not look at it"
	}
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for name := range here.fields {
		if plain(name) == plain(key) {
			return fmt.Sprintf(", meant is %q", name)
		}
	}
	for _, place := range []struct {
		name string
		*shape
	}{
		{"the file itself", f.shape},
		{"pluginConfig", f.shape.fields["pluginConfig"]},
		{"a rule", f.shape.fields["rules"].element()},
		{"a condition", f.shape.fields["conditions"].element()},
	} {
		if place.shape != nil && place.fields[key] != nil && place.shape != here {
			return ", it belongs into " + place.name
		}
	}
	if key == "patternGeneratedMessageSuffix" {
		return ", only rules of log files have it"
	}
	return ", known are " + strings.Join(slices.Sorted(maps.Keys(here.fields)), " ")
}
