package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/host"
	"npd-plugins/internal/rulefile"
)

// generic is for nodes of any kind: checks and rules as they are shipped.
const generic = "generic"

// target is what is installed for.
type target struct {
	*distribution.Distribution        // nil for generic
	why                        string // said behind the name
}

func (t target) String() string {
	name := generic
	if t.Distribution != nil {
		name = t.Name
	}
	return name + t.why
}

// targetFor returns the distribution of that name, or without one what this machine shows.
func targetFor(name, hostRoot string) (target, error) {
	switch name {
	case generic:
		return target{}, nil
	case "":
		d, why := detect(hostRoot)
		return target{d, why}, nil
	}
	d, err := distribution.Get(name)
	if err != nil {
		err = fmt.Errorf("--distribution: %w, and %s for any", err, generic)
	}
	return target{Distribution: d}, err
}

// detect looks below hostRoot, or at this machine where node-problem-detector alone will see it there.
func detect(hostRoot string) (d *distribution.Distribution, why string) {
	if info, err := os.Stat(hostRoot); hostRoot == "" || err != nil || !info.IsDir() {
		hostRoot = "/"
	}
	h, err := host.Open(hostRoot)
	var by string
	if err == nil {
		d, by, err = distribution.Detect(h)
	}
	if err != nil {
		return nil, fmt.Sprintf(" (%v; --distribution sets it)", err)
	}
	return d, fmt.Sprintf(" (found %s; --distribution sets it)", by)
}

// distributed are the flags of checks that depend on the distribution. A value of "" leaves what the check has by default.
var distributed = []struct {
	flag   string
	checks []string
	value  func(*distribution.Distribution) string
}{
	{"cri-endpoint", []string{"cri-gc", "cri-latency", "cri-list-size", "runc-init"}, func(d *distribution.Distribution) string { return d.Socket }},
	{"containerd-root", []string{"image-pull"}, func(d *distribution.Distribution) string {
		if !d.Is(distribution.Containerd) {
			return ""
		}
		return d.Storage
	}},
	{"dirs", []string{"io-stall"}, func(d *distribution.Distribution) string { return strings.Join(d.Directories(), ",") }},
	{"kubelet-config", []string{"eviction"}, func(d *distribution.Distribution) string { return d.KubeletConfig }},
	{"kubelet-config-dir", []string{"eviction"}, func(d *distribution.Distribution) string { return d.KubeletConfigDir }},
	{"kubelet-dir", []string{"cri-gc", "eviction"}, func(d *distribution.Distribution) string { return d.KubeletDir }},
	{"units", []string{"service-restarts"}, func(d *distribution.Distribution) string { return strings.Join(d.Units, ",") }},
}

// apply gives a rule of a check the arguments of the distribution.
func (t target) apply(rule *rulefile.PluginRule) {
	if t.Distribution == nil {
		return
	}
	check := path.Base(rule.Path)
	for _, one := range distributed {
		if value := one.value(t.Distribution); value != "" && slices.Contains(one.checks, check) {
			rule.SetFlag(one.flag, value)
		}
	}
	for _, arg := range rule.Args {
		if list, ok := strings.CutPrefix(arg, "--identifier="); ok { // it counts lines
			identifiers := strings.Split(list, ",")
			files := t.filesBeside(identifiers)
			rule.SetFlag("identifier", strings.Join(t.identifiers(identifiers), ","))
			if files != nil {
				rule.SetFlag("file", files...)
			}
		}
	}
}

// filesBeside are the log files of kubelet, and of the runtime where identifiers are of runtimes, too.
func (t target) filesBeside(identifiers []string) (files []string) {
	kubelet, runtime := distribution.Identifiers()
	withRuntime := slices.ContainsFunc(identifiers, func(one string) bool { return slices.Contains(runtime, one) && !slices.Contains(kubelet, one) })
	for _, log := range t.Logs {
		if log.File != "" && (log.Component == distribution.Kubelet || withRuntime) {
			files = append(files, log.File)
		}
	}
	return files
}

// identifiers are those that the distribution has, and those that belong to none.
func (t target) identifiers(all []string) []string {
	kubelet, runtime := distribution.Identifiers()
	return slices.DeleteFunc(all, func(identifier string) bool {
		return !t.Uses(identifier) && (slices.Contains(kubelet, identifier) || slices.Contains(runtime, identifier))
	})
}

// ruleFiles are the names of the journal rules for each component.
var ruleFiles = map[distribution.Component]string{
	distribution.Kubelet:    "kubelet",
	distribution.Containerd: "containerd",
	distribution.Crio:       "crio",
	distribution.Dockerd:    "docker",
	distribution.CriDockerd: "docker",
}

// distribute makes the journal rules those of the distribution. A file keeps its name, so that a list of files is good for
// nodes of all kinds; those of a runtime that the distribution does not have are installed and not named.
func (i *installation) distribute(t target, hostRoot string) error {
	i.monitors = below(i.names(), "journal-rules")
	if t.Distribution == nil {
		return nil
	}
	i.monitors = slices.DeleteFunc(i.monitors, func(name string) bool {
		return slices.ContainsFunc(distribution.Every(components), func(c string) bool { return name == rulesOf(distribution.Component(c)) })
	})
	shipped := map[string][]byte{}
	for _, log := range t.Logs {
		name := rulesOf(log.Component)
		rules, again := shipped[name]
		if !again {
			if _, ok := i.files[name]; !ok {
				return fmt.Errorf("--distribution %s: there is no %s", t.Name, name)
			}
			rules = i.files[name].content
			shipped[name] = rules
		}
		as := ""
		if again {
			as = log.Identifier
			name = strings.TrimSuffix(name, ".json") + "-" + as + ".json"
		}
		if err := i.addLog(log, rules, name, as, hostRoot); err != nil {
			return fmt.Errorf("--distribution %s: %s: %w", t.Name, name, err)
		}
		i.monitors = append(i.monitors, name)
	}
	slices.Sort(i.monitors)
	return nil
}

func components(d *distribution.Distribution) (all []string) {
	for _, log := range d.Logs {
		all = append(all, string(log.Component))
	}
	return all
}

func rulesOf(c distribution.Component) string {
	return path.Join("journal-rules", ruleFiles[c]+".json")
}

// addLog adds a file of journal rules for a log, and the same in each style that there is for hosts without journald.
func (i *installation) addLog(log distribution.Log, rules []byte, name, as, hostRoot string) (err error) {
	switch {
	case log.File != "":
		own := rulefile.Logrus
		if log.Component == distribution.Kubelet {
			own = rulefile.Klog
		}
		rules, err = rulefile.ForOwnFile(rules, own, path.Join("/", hostRoot, log.File), as)
	case log.Wrapped:
		if rules, err = rulefile.ForWrapped(rules, string(log.Component)); err == nil {
			rules, err = rulefile.ForIdentifier(rules, log.Identifier, as)
		}
	default:
		rules, err = rulefile.ForIdentifier(rules, log.Identifier, as)
	}
	if err != nil {
		return err
	}
	i.files[name] = installed{content: rules}
	for _, style := range rulefile.Styles {
		dir := path.Join("journal-rules/filelog", style.Name)
		if _, ok := i.files[path.Join(dir, "kubelet.json")]; !ok {
			continue
		}
		inFile := rules
		if log.File == "" {
			if inFile, err = rulefile.ForFile(rules, style); err != nil {
				return err
			}
		}
		i.files[path.Join(dir, path.Base(name))] = installed{content: inFile}
	}
	return nil
}
