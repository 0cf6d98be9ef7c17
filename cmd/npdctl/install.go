package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/rulefile"
)

const installUsage = `npdctl install --dest DIR [flags]

Copies the checks to DIR/bin, their configurations to DIR/config and the journal rules to DIR/journal-rules. Everything is written and
tried beside the place first: each configuration must load as in node-problem-detector, and each check must start and take the
arguments of its configuration. Only then is each file renamed to its place. What fails or breaks off before leaves DIR as it was,
what breaks off later leaves each file whole, old or new, and the next install completes it. Made for an init container
and for hosts; it needs no shell.

DIR is made if it is not there. It must be empty or of an earlier install: DIR/.npd-plugins lists its files with their SHA-256
("sha256sum -c" reads it). A file in the way that is not on the list, or that has been changed since, is not overwritten.

An install over an earlier one, newer or older, may be done under a running node-problem-detector. It starts the new checks from
their next interval on, and reads configurations at its own start only. So it may still start a check, and name a
configuration, that does not come with this install: these files are kept, and told. Remove them with --prune, after the
restart of a node-problem-detector that no longer names them: it dies of a file that is not there.

--enable and --disable choose checks, by the name of check or configuration, or by condition: zombies, ZombieProcesses. --set changes
a flag of a check so chosen: --set zombies.count=200. It takes the place of what the configuration says of that flag; to give
a flag several times, repeat it. "CHECK --help" tells the flags. A check that is not chosen keeps its configuration file, without
conditions and rules: node-problem-detector may still name the file, and would die if it were not there.

--journal is for nodes that keep their journal in memory: /run/log/journal, or /host/run/log/journal in a pod with the node's / at /host.
node-problem-detector says nothing when there is no journal where it looks.

--distribution says which Kubernetes the node has: kubeadm (kubelet and containerd from packages, as in most managed clusters), crio or docker
(the same with CRI-O, or Docker behind cri-dockerd), openshift, k3s, rke2, k0s, microk8s, deckhouse. It decides under which identifiers and
in which files the journal rules and the checks find kubelet's and the runtime's lines, and the socket, units and directories that
the checks look at; --set takes precedence. By default it is what the node shows, below --host-root or here. generic leaves all as
it is shipped: checks that look for the runtime by themselves, and rules for a kubelet that logs as "kubelet".

Exit codes: 0 installed, 2 not or not wholly, or a usage error. With --check 0 whole, 2 not.

Examples:
  npdctl install --dest /opt/npd-plugins --host-root /host --distribution k3s
  npdctl install --dest /opt/npd-plugins --enable task-limit,zombies --set zombies.count=200
  npdctl install --dest /opt/npd-plugins --check
`

// installed is a file to install: a binary, or content.
type installed struct {
	binary   string // path of what is copied, "" with content
	content  []byte
	disabled bool // a configuration without rules
}

func (f installed) mode() fs.FileMode {
	if f.binary != "" {
		return 0o755
	}
	return 0o644
}

func (f installed) open() (io.ReadCloser, error) {
	if f.binary != "" {
		return os.Open(f.binary)
	}
	return io.NopCloser(bytes.NewReader(f.content)), nil
}

// installation is what goes below a directory, by path.
type installation struct {
	place
	files    map[string]installed
	monitors []string // the journal rules that node-problem-detector shall load
}

func (i *installation) names() []string { return slices.Collect(maps.Keys(i.files)) }

// place is a directory that is installed to, and its path where node-problem-detector runs.
type place struct{ dest, at string }

// sources are the directories that are installed from.
type sources struct{ bin, config, rules string }

func (s *sources) complete() error {
	if s.bin == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("own path unknown, give --bin: %w", err)
		}
		s.bin = filepath.Dir(self)
	}
	if s.config == "" {
		s.config = filepath.Join(s.bin, "../config")
	}
	if s.rules == "" {
		s.rules = filepath.Join(s.bin, "../journal-rules")
	}
	return nil
}

func install(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("install", installUsage, stderr)
	var p place
	var from sources
	var choice choice
	flags.StringVar(&p.dest, "dest", "", "`directory` to install to")
	flags.StringVar(&p.at, "mounted-at", "", "`directory` as which node-problem-detector sees that of --dest (default the same)")
	flags.StringVar(&from.bin, "bin", "", "`directory` of the checks (default that of npdctl)")
	flags.StringVar(&from.config, "config", "", "`directory` of the configurations (default config beside that of the checks)")
	flags.StringVar(&from.rules, "rules", "", "`directory` of the journal rules (default journal-rules beside that of the checks)")
	flags.Var(&choice.enable, "enable", "`checks` to install, with commas between, may be repeated (default all)")
	flags.Var(&choice.disable, "disable", "`checks` to leave out, with commas between, may be repeated")
	flags.Var(&choice.settings, "set", "`check.flag=value` to run with, may be repeated")
	flags.StringVar(&choice.hostRoot, "host-root", "", "`directory` where node-problem-detector sees the node's file system (default what the configurations say)")
	flags.StringVar(&choice.journal, "journal", "", "`directory` where node-problem-detector sees the node's journal (default what the journal rules say)")
	name := flags.String("distribution", "", "`name` of the node's Kubernetes distribution, or "+generic+" (default what the node shows)")
	prune := flags.Bool("prune", false, "remove what earlier installs had and this one has not")
	check := flags.Bool("check", false, "install nothing, see whether what is there is whole and works")
	if code, done := parse(flags, args, stdout); done {
		return code
	}
	if p.dest == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "npdctl install: give --dest DIR and no other argument")
		return exitBroken
	}
	err := p.complete()
	if err == nil && *check {
		err = p.check(stdout)
	} else if err == nil {
		if choice.target, err = targetFor(*name, choice.hostRoot); err == nil {
			err = collectAndInstall(p, from, choice, *prune, stdout, stderr)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "npdctl install:", printable(err.Error()))
		return exitBroken
	}
	return exitFine
}

func collectAndInstall(p place, from sources, choice choice, prune bool, stdout, stderr io.Writer) error {
	i, err := collect(p, from, choice)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "distribution:", printable(choice.target.String()))
	return i.install(prune, stdout, stderr)
}

func (p *place) complete() (err error) {
	if p.dest, err = filepath.Abs(p.dest); err != nil {
		return err
	}
	if p.at == "" {
		p.at = p.dest
	}
	if !filepath.IsAbs(p.at) {
		return fmt.Errorf("--mounted-at %s: not an absolute path", p.at)
	}
	p.at = filepath.Clean(p.at)
	return nil
}

// collect finds all that is to be installed. Nothing is written before that has succeeded.
func collect(p place, from sources, choice choice) (*installation, error) {
	if err := from.complete(); err != nil {
		return nil, err
	}
	if sameDir(from.bin, filepath.Join(p.dest, "bin")) {
		return nil, fmt.Errorf("%s is what would be installed over: run the npdctl of a release or image", from.bin)
	}
	i := &installation{place: p, files: map[string]installed{}}
	if err := i.addConfigs(from.config, from.bin, choice); err != nil {
		return nil, err
	}
	if own := filepath.Join(from.bin, "npdctl"); isFile(own) {
		i.files["bin/npdctl"] = installed{binary: own}
	}
	if err := i.addRules(from.rules, choice.journal); err != nil {
		return nil, err
	}
	return i, i.distribute(choice.target, choice.hostRoot)
}

func sameDir(dir, other string) bool {
	a, err := os.Stat(dir)
	if err != nil {
		return false
	}
	b, err := os.Stat(other)
	return err == nil && os.SameFile(a, b)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// addConfigs takes in the chosen configurations and the checks they name, which they then name at their new place. Of the others it takes
// in files without rules: node-problem-detector dies of a file that is not there, and what it is started with is written elsewhere.
func (i *installation) addConfigs(dir, bin string, choice choice) error {
	all, err := readConfigurations(dir)
	if err != nil {
		return err
	}
	chosen, err := choice.of(all)
	if err != nil {
		return err
	}
	for _, c := range all {
		content, err := rulefile.WithoutRules(c.data)
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		i.files[path.Join("config", c.name+".json")] = installed{content: content, disabled: true}
	}
	for _, c := range chosen {
		for _, rule := range c.config.Rules {
			name := path.Base(rule.Path)
			binary := filepath.Join(bin, name)
			if !isFile(binary) {
				return fmt.Errorf("%s needs %s: there is no such file", c.file, binary)
			}
			i.files[path.Join("bin", name)] = installed{binary: binary}
		}
		content, err := rulefile.ForPlugins(c.data, func(rule *rulefile.PluginRule) {
			choice.apply(c, rule)
			rule.Path = path.Join(i.at, "bin", path.Base(rule.Path))
		})
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		i.files[path.Join("config", c.name+".json")] = installed{content: content}
	}
	return nil
}

// addRules takes in the journal rules and, in the folders below, those for hosts without a journal.
func (i *installation) addRules(dir, journal string) error {
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
		if journal != "" {
			if data, err = rulefile.ForJournal(data, journal); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
		}
		name, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		i.files[path.Join("journal-rules", filepath.ToSlash(name))] = installed{content: data}
		return nil
	})
}

// below returns the names in a directory itself, sorted.
func below(names []string, dir string) (in []string) {
	for _, name := range names {
		if path.Dir(name) == dir {
			in = append(in, name)
		}
	}
	slices.Sort(in)
	return in
}

// report says what came of an install, and what node-problem-detector is to be started with.
func (i *installation) report(kept, removed []string, stdout io.Writer) {
	var names, disabled []string
	for name, file := range i.files {
		if file.disabled {
			disabled = append(disabled, strings.TrimSuffix(path.Base(name), ".json"))
		} else {
			names = append(names, name)
		}
	}
	fmt.Fprintf(stdout, "installed npd-plugins %s in %s: %d binaries, %d configurations, %d files of journal rules\n",
		version, i.dest, len(below(names, "bin")), len(below(names, "config")), len(below(names, "journal-rules")))
	if len(disabled) > 0 {
		slices.Sort(disabled)
		fmt.Fprintf(stdout, "disabled, their files have no rules: %s\n", strings.Join(disabled, " "))
	}
	if len(removed) > 0 {
		fmt.Fprintf(stdout, "removed from earlier installs: %s\n", strings.Join(removed, " "))
	}
	if len(kept) > 0 {
		fmt.Fprintf(stdout, "kept from earlier installs: %s\n", strings.Join(kept, " "))
		fmt.Fprintln(stdout, "  node-problem-detector may name them until it is restarted without; --prune removes them then")
	}
	i.flag(stdout, "--config.custom-plugin-monitor", below(names, "config"))
	i.flag(stdout, "--config.system-log-monitor", i.monitors)
}

func (i *installation) flag(stdout io.Writer, flag string, names []string) {
	var paths []string
	for _, name := range names {
		paths = append(paths, path.Join(i.at, name))
	}
	fmt.Fprintf(stdout, "%s=%s\n", flag, strings.Join(paths, ","))
}
