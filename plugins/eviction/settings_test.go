package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
)

// written writes thresholds as "signal<value", soft ones with "~grace".
func written(s *settings) string {
	var words []string
	for _, t := range s.Thresholds {
		word := fmt.Sprintf("%s<%d", t.Signal, t.Quantity)
		if t.Quantity == 0 {
			word = fmt.Sprintf("%s<%.3g", t.Signal, t.Share)
		}
		if t.Soft {
			word += "~" + t.Grace.String()
		}
		words = append(words, word)
	}
	if s.Pods {
		words = append(words, "pods"+s.CgroupRoot)
	}
	return strings.Join(words, " ")
}

const (
	head     = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	defaults = "memory.available<104857600 nodefs.available<0.1 nodefs.inodesFree<0.05 imagefs.available<0.15 imagefs.inodesFree<0.05 pods"
)

func TestFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		config  string // of config.yaml, "" for none
		dropIns map[string]string
		want    string
	}{
		"no file":             {"", nil, defaults},
		"nothing set":         {head, nil, defaults},
		"null":                {head + "evictionHard: null\nevictionSoft: null\nenforceNodeAllocatable: null\n", nil, defaults},
		"one set":             {head + "evictionHard: {memory.available: 1Gi}", nil, "memory.available<1073741824 pods"},
		"beside the defaults": {head + "mergeDefaultEvictionSettings: true\nevictionHard: {memory.available: 1Gi, pid.available: 10%}", nil, "memory.available<1073741824" + strings.TrimSuffix(defaults[len("memory.available<104857600"):], " pods") + " pid.available<0.1 pods"},
		"none":                {head + "evictionHard: {}", nil, "pods"},
		"switched off":        {head + "evictionHard: {memory.available: 0%, nodefs.available: 100%, nodefs.inodesFree: 0.0%}\nenforceNodeAllocatable: [none]", nil, ""},
		"switched off, pods":  {head + "evictionHard: {memory.available: 0%, nodefs.available: 100%}\ncgroupRoot: /x", nil, "pods/x"},
		"soft":                {head + "evictionHard: {}\nevictionSoft: {memory.available: 1.5Gi}\nevictionSoftGracePeriod: {memory.available: 1m30s}", nil, "memory.available<1610612736~1m30s pods"},
		"soft without grace":  {head + "evictionSoft: {memory.available: 1.5Gi}", nil, "error"},
		"JSON":                {`{"kind":"KubeletConfiguration","evictionHard":{"nodefs.available":"7.5%"},"enforceNodeAllocatable":[]}`, nil, "nodefs.available<0.075"},
		"signals it derives":  {head + "evictionHard: {containerfs.available: 1Gi, nodefs.available: 10%}", nil, "nodefs.available<0.1 pods"},
		"keys by case":        {head + "EvictionHard: {nodefs.available: 1%}", nil, defaults},
		"negative":            {head + "evictionHard: {memory.available: -1}", nil, "error"},
		"zero":                {head + "evictionHard: {memory.available: \"0\"}", nil, "error"},
		"a number":            {head + "evictionHard: {memory.available: 100}", nil, "error"},
		"more than all":       {head + "evictionHard: {memory.available: 101%}", nil, "error"},
		"no map":              {head + "evictionHard: [memory.available]", nil, "error"},
		"no YAML":             {"\t{", nil, "error"},
		"something else":      {"kind: Config\n", nil, "error"},
		"drop-ins in order": {head + "evictionHard: {memory.available: 1Gi}", map[string]string{"20-b.conf": head + "evictionHard: {memory.available: 3Gi}", "10-a.conf": head + "evictionHard: {memory.available: 2Gi, pid.available: 5%}",
			"30-c.yaml": "not read", "sub/40-d.conf": head + "cgroupRoot: /y"}, "memory.available<3221225472 pid.available<0.05 pods/y"},
		"drop-ins beside the defaults": {head, map[string]string{"a.conf": head + "evictionHard: {memory.available: 2Gi}"}, "memory.available<2147483648" + defaults[len("memory.available<104857600"):]},
		"drop-ins alone":               {"", map[string]string{"a.conf": head + "evictionHard: {memory.available: 2Gi}"}, "memory.available<2147483648" + defaults[len("memory.available<104857600"):]},
		"a drop-in removes":            {head, map[string]string{"a.conf": head + "evictionHard: {memory.available: null, nodefs.available: null}"}, "nodefs.inodesFree<0.05 imagefs.available<0.15 imagefs.inodesFree<0.05 pods"},
		"a drop-in removes all":        {head, map[string]string{"a.conf": head + "evictionHard: null"}, "pods"},
		"an empty map adds nothing":    {head, map[string]string{"a.conf": head + "evictionHard: {}"}, defaults},
		"a broken drop-in":             {head, map[string]string{"a.conf": "kind: Other"}, "error"},
		"an empty directory":           {head, map[string]string{"": ""}, defaults},
		"no such directory":            {head, map[string]string{}, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := hosttest.Tree{"etc/": ""}
			if tt.config != "" {
				tree["etc/config.yaml"] = tt.config
			}
			dir := ""
			for file, text := range tt.dropIns {
				tree["etc/d/"+file] = text
			}
			if tt.dropIns != nil {
				dir = "/etc/d"
			}
			s, err := readSettings(tree.Open(t), "/etc/config.yaml", dir)
			got := "error"
			if err == nil {
				got = written(s)
			}
			if got != tt.want {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// A field that /configz does not have is empty: the defaults are in it.
func TestConfigz(t *testing.T) {
	for name, tt := range map[string]struct{ page, want string }{
		"all":     {`{"kubeletconfig":{"cgroupRoot":"/","enforceNodeAllocatable":["pods"],"evictionHard":{"memory.available":"100Mi"},"evictionSoft":{"memory.available":"200Mi"},"evictionSoftGracePeriod":{"memory.available":"1m"}}}`, "memory.available<104857600 memory.available<209715200~1m0s pods/"},
		"none":    {`{"kubeletconfig":{"port":10250}}`, ""},
		"no page": {`{}`, "error"},
		"no JSON": {`<html>`, "error"},
		"broken":  {`{"kubeletconfig":{"evictionHard":{"memory.available":"x"}}}`, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parseConfigz([]byte(tt.page))
			got := "error"
			if err == nil {
				got = written(s)
			}
			if got != tt.want {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestQuantity(t *testing.T) {
	for s, want := range map[string]uint64{
		"1": 1, "100Mi": 100 << 20, "1.5Gi": 3 << 29, "+2k": 2000, "1e3": 1000, "1E3": 1000, "1E": 1e18, "12e-1": 2, "100m": 1, "1n": 1, "0.5": 1, ".5Ki": 512, "5.": 5, "1Ei": 1 << 60,
		"9999999999999999999Ei": 1 << 62, "1e400": 1 << 62, "2500m": 3, "1u": 1,
	} {
		if got, err := parseQuantity(s); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "-1", "-1Gi", "0Mi", "Mi", ".", "1.2.3", "1 Gi", "1gi", "1KiB", "0x10", "1_000", "Inf", "NaN", "1e", "1e+", "1ee3", "++1", "1e99999999999", "1e-400", "+"} {
		if got, err := parseQuantity(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

// A share is rounded as kubelet rounds it: 10 of 100 is 0.1 as a float32.
func TestShare(t *testing.T) {
	th, ok, err := parseThreshold("nodefs.available", "10%")
	if got := th.of(100 << 30); err != nil || !ok || got != uint64(float64(100<<30)*float64(float32(10)/100)) {
		t.Errorf("%d, %t, %v", got, ok, err)
	}
	for _, s := range []string{"%", "x%", "-1%", "nan%", "inf%", "1e9%"} {
		if _, ok, err := parseThreshold("nodefs.available", s); err == nil {
			t.Errorf("%q: %t", s, ok)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(head+"evictionHard: {memory.available: 1Gi}\nevictionSoft: {nodefs.available: 5%}\nevictionSoftGracePeriod: {nodefs.available: 1m}\n"), []byte(head+"evictionHard: {memory.available: null}"))
	f.Add([]byte(head+"a: &a [*a]\n"), []byte("{}"))
	f.Add([]byte(head+"mergeDefaultEvictionSettings: true\nevictionHard: {pid.available: 1e3}"), []byte(head+"evictionHard: null"))
	f.Fuzz(func(t *testing.T, config, dropIn []byte) {
		h := hosttest.Tree{"config.yaml": string(config), "d/a.conf": string(dropIn)}.Open(t)
		s, err := readSettings(h, "/config.yaml", "/d")
		if err != nil {
			return
		}
		for _, th := range s.Thresholds {
			if th.Quantity == 0 && !(th.Share > 0 && th.Share <= 1) || th.of(1<<40) > 1<<62 || !slices.Contains(signals, th.Signal) || th.Grace < 0 {
				t.Errorf("%+v", th)
			}
		}
	})
}

func FuzzThreshold(f *testing.F) {
	for _, s := range []string{"100Mi", "10%", "1e3", "0%", "1E", "-5", "1.5Gi", "%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		th, ok, err := parseThreshold("memory.available", s)
		if ok && (err != nil || th.of(1<<40) > 1<<62) {
			t.Errorf("%q: %+v, %v", s, th, err)
		}
	})
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{90 * time.Second: "1m30s", time.Minute: "1m", 10 * time.Second: "10s"} {
		if got := shortDuration(d); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
