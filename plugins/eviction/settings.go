package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

// settings are what kubelet's configuration says of evictions.
type settings struct {
	Thresholds []threshold
	Pods       bool   // node allocatable is enforced on the pods' cgroup
	CgroupRoot string // above that cgroup
	HugePages  *bool  `json:",omitempty"` // the gate HugepageAwareEviction, nil when the configuration does not set it
	Source     string // where they come from
}

// Sources of settings that are no file.
const (
	fromKubelet  = "/configz"
	fromDefaults = "kubelet's defaults"
)

// origin is a word on thresholds that kubelet may not have.
func (s *settings) origin() string {
	if s.Source == fromDefaults {
		return " (default)"
	}
	return ""
}

// defaultHard is what kubelet takes when its configuration has no evictionHard
// (DefaultEvictionHard in pkg/kubelet/eviction/defaults_linux.go, v1.37.2;
// imagefs.inodesFree since v1.30).
var defaultHard = object{
	"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%", "imagefs.inodesFree": "5%",
}

// signals are those of kubelet that may have a threshold. It accepts
// containerfs.* and allocatableMemory.available too, and derives them anyway.
var signals = []string{"memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree", "pid.available"}

// settings asks kubelet, else reads its configuration files, else takes its
// defaults. What kubelet has said before stands while it does not answer.
func (c *check) settings(ctx context.Context, l *plugin.Look, before *settings) (*settings, error) {
	s, err := c.askKubelet(ctx, l)
	if err == nil {
		return s, nil
	}
	if before != nil && before.Source == fromKubelet {
		l.Log.Warnf("keeping the thresholds that kubelet told before: %v", err)
		return before, nil
	}
	l.Log.Warnf("taking kubelet's thresholds from its files, without what its command line says: %v", err)
	s, err = readSettings(l.Host, c.config, c.configDir)
	if err == nil && s.Source == fromDefaults {
		l.Log.Warnf("taking kubelet's default thresholds: there is no %s (--kubelet-config)", l.Host.Path(c.config))
	}
	return s, err
}

// askKubelet reads /configz, which has the configuration that kubelet runs
// with, command line and defaults included.
func (c *check) askKubelet(ctx context.Context, l *plugin.Look) (*settings, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	client, err := c.access.Open(l.Host)
	if err != nil {
		return nil, err
	}
	b, err := client.Get(ctx, fromKubelet)
	if err != nil {
		return nil, err
	}
	return parseConfigz(b)
}

func parseConfigz(b []byte) (*settings, error) {
	var configz struct {
		KubeletConfig object `json:"kubeletconfig"`
	}
	if err := json.Unmarshal(b, &configz); err != nil || configz.KubeletConfig == nil {
		return nil, errors.New("kubelet's /configz has no kubeletconfig")
	}
	s, err := settingsOf(configz.KubeletConfig)
	if err != nil {
		return nil, fmt.Errorf("kubelet's /configz: %w", err)
	}
	s.Source = fromKubelet
	return s, nil
}

// object is a JSON object.
type object = map[string]any

// settingsOf reads a whole configuration: a field that is not in it is empty.
func settingsOf(config object) (*settings, error) {
	s := &settings{}
	s.CgroupRoot, _ = config["cgroupRoot"].(string)
	if enforced, ok := config["enforceNodeAllocatable"].([]any); ok {
		s.Pods = slices.Contains(enforced, any("pods"))
	}
	if set, ok := config["featureGates"].(object); ok {
		if on, ok := set[gate].(bool); ok {
			s.HugePages = &on
		}
	}
	hard, err := texts(config, "evictionHard")
	if err != nil {
		return nil, err
	}
	soft, err := texts(config, "evictionSoft")
	if err != nil {
		return nil, err
	}
	grace, err := texts(config, "evictionSoftGracePeriod")
	if err != nil {
		return nil, err
	}
	for _, signal := range signals {
		t, ok, err := thresholdIn(hard, signal)
		if err != nil {
			return nil, fmt.Errorf("evictionHard %s: %w", signal, err)
		}
		if ok {
			s.Thresholds = append(s.Thresholds, t)
		}
		t, ok, err = thresholdIn(soft, signal)
		if err != nil {
			return nil, fmt.Errorf("evictionSoft %s: %w", signal, err)
		}
		if ok {
			t.Soft = true
			if t.Grace, err = time.ParseDuration(grace[signal]); err != nil || t.Grace < 0 {
				return nil, fmt.Errorf("evictionSoftGracePeriod %s: %.20q is no duration", signal, grace[signal])
			}
			s.Thresholds = append(s.Thresholds, t)
		}
	}
	return s, nil
}

func thresholdIn(values map[string]string, signal string) (threshold, bool, error) {
	value, ok := values[signal]
	if !ok {
		return threshold{}, false, nil
	}
	return parseThreshold(signal, value)
}

// texts is a field that maps texts to texts.
func texts(config object, field string) (map[string]string, error) {
	values, ok := config[field].(object)
	if !ok && config[field] != nil {
		return nil, fmt.Errorf("%s is no map", field)
	}
	result := map[string]string{}
	for key, value := range values {
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("%s: the value of %.40q is no text", field, key)
		}
		result[key] = text
	}
	return result, nil
}

// readSettings reads kubelet's configuration as kubelet v1.37.2 does
// (loadConfigFile and mergeKubeletConfigurations in cmd/kubelet/app/server.go).
// The defaults of evictionHard stand in for a file that has none, and beside one
// with mergeDefaultEvictionSettings. After that the *.conf files of the
// directory and those below are merged in as JSON merge patches (RFC 7396), in
// lexical order.
func readSettings(h *host.Root, file, dir string) (*settings, error) {
	config, source, err := readConfig(h, file)
	if err != nil {
		return nil, err
	}
	hard, ok := config["evictionHard"].(object)
	if merge, _ := config["mergeDefaultEvictionSettings"].(bool); merge || config["evictionHard"] == nil {
		defaults := mergePatch(object{}, defaultHard)
		config["evictionHard"] = mergePatch(defaults, hard)
	} else if !ok {
		return nil, fmt.Errorf("%s: evictionHard is no map", h.Path(file))
	}
	if config["enforceNodeAllocatable"] == nil {
		config["enforceNodeAllocatable"] = []any{"pods"}
	}
	if dir != "" {
		if config, err = mergeDropIns(h, dir, config); err != nil {
			return nil, err
		}
	}
	s, err := settingsOf(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Path(file), err)
	}
	s.Source = source
	return s, nil
}

// readConfig reads the file. One that is not there is that of a kubelet with
// its defaults.
func readConfig(h *host.Root, file string) (config object, source string, err error) {
	b, err := h.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return object{}, fromDefaults, nil
	}
	if err == nil {
		config, err = parseConfig(b)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s (--kubelet-config): %w", h.Path(file), err)
	}
	return config, file, nil
}

// parseConfig reads a KubeletConfiguration, in YAML or JSON.
func parseConfig(b []byte) (object, error) {
	var config object
	if err := yaml.Unmarshal(b, &config); err != nil {
		return nil, errors.New("neither YAML nor JSON")
	}
	if config["kind"] != "KubeletConfiguration" {
		return nil, errors.New("no KubeletConfiguration")
	}
	return config, nil
}

// Bounds of a directory of drop-ins, beyond which it is something else.
const (
	maxDropIns = 1000
	maxDepth   = 10
)

func mergeDropIns(h *host.Root, dir string, config object) (object, error) {
	files, err := dropIns(h, dir, 0)
	if err != nil {
		return nil, fmt.Errorf("%w (--kubelet-config-dir)", err)
	}
	for _, file := range files {
		b, err := h.ReadFile(file)
		var patch object
		if err == nil {
			patch, err = parseConfig(b)
		}
		if err != nil {
			return nil, fmt.Errorf("%s (--kubelet-config-dir): %w", h.Path(file), err)
		}
		config = mergePatch(config, patch)
	}
	return config, nil
}

// dropIns lists the *.conf files below a directory in the order of
// filepath.WalkDir.
func dropIns(h *host.Root, dir string, depth int) (files []string, err error) {
	d, err := h.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(maxDropIns + 1)
	if err != nil && len(entries) == 0 {
		return nil, nil // io.EOF: it is empty
	}
	if len(entries) > maxDropIns || depth > maxDepth {
		return nil, fmt.Errorf("%s: more than %d files, or %d directories deep", h.Path(dir), maxDropIns, maxDepth)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir():
			below, err := dropIns(h, name, depth+1)
			if err != nil {
				return nil, err
			}
			files = append(files, below...)
		case path.Ext(name) == ".conf":
			files = append(files, name)
		}
	}
	return files, nil
}

// mergePatch applies a JSON merge patch to an object.
func mergePatch(to, patch object) object {
	if to == nil {
		to = object{}
	}
	for key, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(to, key)
		case object:
			below, _ := to[key].(object)
			to[key] = mergePatch(below, value)
		default:
			to[key] = value
		}
	}
	return to
}
