package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/rulefile"
)

const installUsage = `npdctl install --dest DIR [flags]

Copies the checks to DIR/bin, their configurations to DIR/config and the journal rules to DIR/journal-rules, each file whole or
not at all, and reads them back as node-problem-detector would. The configurations name the checks in DIR/bin, so DIR must have the same
path where node-problem-detector runs. Made for an init container and for hosts; it needs no shell.

DIR is made if it is not there. It must be empty or of an earlier install: its list of files is DIR/.npd-plugins. What is on that list
and no longer comes with this version is removed, other files are left alone.

--kubelet-identifier is for kubelets that do not log as "kubelet": k3s, k3s-agent, rke2-server, rke2-agent, kubenswrapper,
microk8s.daemon-kubelite. The first one takes over kubelet.json, each further one gets a file kubelet-IDENTIFIER.json with a source of its
own. Their reasons are the same, and so are their counters: problem_counter adds up what the kubelets of a node say.

Exit codes: 0 installed, 2 not or not wholly, or a usage error.

Example: npdctl install --dest /opt/npd-plugins --kubelet-identifier k3s
`

// installedList holds the paths of the files of an install below its directory, one in a line.
const installedList = ".npd-plugins"

// installed is a file to install.
type installed struct {
	content []byte
	mode    fs.FileMode
}

// installation is what goes below a directory, by path.
type installation struct {
	dest  string
	files map[string]installed
}

func install(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("install", installUsage, stderr)
	dest := flags.String("dest", "", "`directory` to install to")
	bin := flags.String("bin", "", "`directory` of the checks (default that of npdctl)")
	config := flags.String("config", "", "`directory` of the configurations (default config beside that of the checks)")
	rules := flags.String("rules", "", "`directory` of the journal rules (default journal-rules beside that of the checks)")
	var identifiers paths
	flags.Var(&identifiers, "kubelet-identifier", "syslog `identifier` of the kubelet, may be repeated (default kubelet)")
	if code, done := parse(flags, args, stdout); done {
		return code
	}
	if *dest == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "npdctl install: give --dest DIR and no other argument")
		return exitBroken
	}
	i, err := collect(*dest, *bin, *config, *rules, identifiers)
	if err == nil {
		err = i.write()
	}
	if err == nil {
		err = i.verify()
	}
	if err != nil {
		fmt.Fprintln(stderr, "npdctl install:", printable(err.Error()))
		return exitBroken
	}
	fmt.Fprintf(stdout, "installed %d binaries, %d configurations and %d rule files in %s\n",
		i.count("bin"), i.count("config"), i.count("journal-rules"), i.dest)
	return exitFine
}

// collect reads all that is to be installed. Nothing is written before that has succeeded.
func collect(dest, bin, config, rules string, identifiers []string) (*installation, error) {
	dest, err := filepath.Abs(dest)
	if err != nil {
		return nil, err
	}
	if bin == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("own path unknown, give --bin: %w", err)
		}
		bin = filepath.Dir(self)
	}
	if config == "" {
		config = filepath.Join(bin, "../config")
	}
	if rules == "" {
		rules = filepath.Join(bin, "../journal-rules")
	}
	i := &installation{dest, map[string]installed{}}
	if err := i.addConfigs(config, bin); err != nil {
		return nil, err
	}
	if err := i.addRules(rules); err != nil {
		return nil, err
	}
	return i, i.identify(identifiers)
}

// addConfigs takes in the configurations and the checks they name, which they then name at their new place.
func (i *installation) addConfigs(dir, bin string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no *.json in %s", dir)
	}
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		config, err := npd.ParseCustom(data)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, rule := range config.Rules {
			name := path.Base(rule.Path)
			if err := i.addBinary(bin, name); err != nil {
				return fmt.Errorf("%s needs %s: %w", file, name, err)
			}
			data = bytes.ReplaceAll(data, jsonString(rule.Path), jsonString(filepath.Join(i.dest, "bin", name)))
		}
		i.files[path.Join("config", filepath.Base(file))] = installed{data, 0o644}
	}
	if err := i.addBinary(bin, "npdctl"); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// jsonString is a string as configurations have it.
func jsonString(s string) []byte {
	b, _ := json.Marshal(s) // a string can always be encoded
	return b
}

func (i *installation) addBinary(bin, name string) error {
	data, err := os.ReadFile(filepath.Join(bin, name))
	if err != nil {
		return err
	}
	i.files[path.Join("bin", name)] = installed{data, 0o755}
	return nil
}

// addRules takes in the journal rules and, in the folders below, those for hosts without a journal.
func (i *installation) addRules(dir string) error {
	return filepath.WalkDir(dir, func(at string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "testdata":
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(at) != ".json":
			return nil
		}
		data, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		if _, err := npd.ParseLogMonitor(data); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		name, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		i.files[path.Join("journal-rules", filepath.ToSlash(name))] = installed{data, 0o644}
		return nil
	})
}

const kubeletRules = "journal-rules/kubelet.json"

// identifierName is what a file name and a journal match can hold.
var identifierName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]*$`)

// identify puts kubelet's rules under other identifiers.
func (i *installation) identify(identifiers []string) error {
	if len(identifiers) == 0 {
		return nil
	}
	kubelet, ok := i.files[kubeletRules]
	if !ok {
		return fmt.Errorf("--kubelet-identifier: there is no %s", kubeletRules)
	}
	for n, identifier := range identifiers {
		if !identifierName.MatchString(identifier) {
			return fmt.Errorf("--kubelet-identifier %q: not a syslog identifier", identifier)
		}
		if slices.Contains(identifiers[:n], identifier) {
			return fmt.Errorf("--kubelet-identifier %s: given twice", identifier)
		}
		if file := i.watcher(identifier); file != "" && file != kubeletRules {
			return fmt.Errorf("--kubelet-identifier %s: %s has rules for that already", identifier, file)
		}
		name := "kubelet"
		if n > 0 {
			name += "-" + identifier
		}
		if err := i.addIdentifier(kubelet.content, name, identifier); err != nil {
			return fmt.Errorf("--kubelet-identifier %s: %w", identifier, err)
		}
	}
	return nil
}

// watcher returns the rule file for an identifier in the journal, or "".
func (i *installation) watcher(identifier string) string {
	for name, file := range i.files {
		if path.Dir(name) != "journal-rules" {
			continue
		}
		if m, err := npd.ParseLogMonitor(file.content); err == nil && m.Identifier() == identifier {
			return name
		}
	}
	return ""
}

// addIdentifier adds rules for an identifier, from the journal and from a file in each style that there is.
func (i *installation) addIdentifier(rules []byte, name, identifier string) error {
	rules, err := rulefile.ForIdentifier(rules, identifier, name+"-log-rules")
	if err != nil {
		return err
	}
	i.files[path.Join("journal-rules", name+".json")] = installed{rules, 0o644}
	for _, style := range rulefile.Styles {
		dir := path.Join("journal-rules/filelog", style.Name)
		if _, ok := i.files[path.Join(dir, "kubelet.json")]; !ok {
			continue
		}
		inFile, err := rulefile.ForFile(rules, style)
		if err != nil {
			return err
		}
		i.files[path.Join(dir, name+".json")] = installed{inFile, 0o644}
	}
	return nil
}

func (i *installation) count(dir string) (n int) {
	for name := range i.files {
		if strings.HasPrefix(name, dir+"/") {
			n++
		}
	}
	return n
}

// write writes all files, checks first: a configuration never names one that is not there. An install that was broken off is
// completed by the next one.
func (i *installation) write() error {
	if err := os.MkdirAll(i.dest, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(i.dest)
	if err != nil {
		return err
	}
	defer root.Close()
	before, err := i.installedBefore(root)
	if err != nil {
		return err
	}
	now := slices.Sorted(maps.Keys(i.files)) // bin, config, journal-rules
	for _, name := range now {
		if _, err := root.Lstat(name); err == nil && !slices.Contains(before, name) {
			return fmt.Errorf("%s is there, and not from an install: move it away", filepath.Join(i.dest, name))
		}
	}
	if err := writeList(root, slices.Concat(before, now)); err != nil {
		return err
	}
	for _, name := range now {
		if err := replace(root, name, i.files[name]); err != nil {
			return err
		}
	}
	for _, name := range before {
		if slices.Contains(now, name) {
			continue
		}
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return writeList(root, now)
}

// installedBefore returns the files of an earlier install, none for an empty directory, and an error for one that is somebody else's.
func (i *installation) installedBefore(root *os.Root) ([]string, error) {
	list, err := root.ReadFile(installedList)
	if err == nil {
		return strings.Split(strings.TrimSpace(string(list)), "\n"), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(i.dest)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if entry.Name() != "lost+found" { // of a volume
			return nil, fmt.Errorf("%s holds %s and no %s, so it is not from an install: give a directory that is empty or not there",
				i.dest, entry.Name(), installedList)
		}
	}
	return nil, nil
}

func writeList(root *os.Root, names []string) error {
	slices.Sort(names)
	names = slices.Compact(names)
	return replace(root, installedList, installed{[]byte(strings.Join(names, "\n") + "\n"), 0o644})
}

// replace makes a file, or puts it in the place of an old one, which may be running.
func replace(root *os.Root, name string, file installed) error {
	dir, base := path.Split(name)
	if dir != "" {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	temp := dir + "." + base + "." + rand.Text()
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(file.content)
	if err == nil {
		err = f.Chmod(file.mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		root.Remove(temp)
	}
	return err
}

// verify reads what was written as NPD does at its start.
func (i *installation) verify() error {
	for name := range i.files {
		file := filepath.Join(i.dest, name)
		switch {
		case strings.HasPrefix(name, "config/"):
			config, err := npd.LoadCustom(file)
			if err != nil {
				return err
			}
			for _, rule := range config.Rules {
				info, err := os.Stat(rule.Path)
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				if filepath.Dir(rule.Path) != filepath.Join(i.dest, "bin") || info.Mode()&0o111 == 0 {
					return fmt.Errorf("%s: %s is not an executable in bin", file, rule.Path)
				}
			}
		case strings.HasPrefix(name, "journal-rules/"):
			if _, err := npd.LoadLogMonitor(file); err != nil {
				return err
			}
		}
	}
	return nil
}
