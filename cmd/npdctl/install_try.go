package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/npd/lint"
)

// answerTime is how long a check may take to tell its version: a second or two with a hundredth of a CPU.
const answerTime = 30 * time.Second

// try sees whether files do in a directory what they shall do in place.
func (p place) try(dir string, sums map[string][]string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	names := slices.Sorted(maps.Keys(sums))
	for _, name := range names {
		if err := same(root, name, sums[name]); err != nil {
			return err
		}
	}
	if err := lints(root, names); err != nil {
		return err
	}
	if slices.Contains(names, "bin/npdctl") {
		if err := answers(filepath.Join(dir, "bin/npdctl"), nil); err != nil {
			return err
		}
	}
	for _, name := range below(names, "config") {
		config, err := readConfig(root, name)
		if err != nil {
			return err
		}
		for _, rule := range config.Rules {
			binary := path.Base(rule.Path)
			if rule.Path != path.Join(p.at, "bin", binary) || !slices.Contains(names, "bin/"+binary) {
				return fmt.Errorf("%s names %s, which is none of the checks in %s", name, rule.Path, path.Join(p.at, "bin"))
			}
			if err := answers(filepath.Join(dir, "bin", binary), rule.Args); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func readConfig(root *os.Root, name string) (*npd.CustomConfig, error) {
	data, err := root.ReadFile(name)
	if err != nil {
		return nil, err
	}
	config, err := npd.ParseCustom(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return config, nil
}

// same says whether a file is the one that was written.
func same(root *os.Root, name string, sums []string) error {
	sum, err := sumOf(root, name)
	switch {
	case err != nil:
		return err
	case sum == "":
		return fmt.Errorf("%s is gone", name)
	case !slices.Contains(sums, sum):
		return fmt.Errorf("%s is not what was installed", name)
	}
	return nil
}

// lints looks for what node-problem-detector dies of or what never works, in files that one of them can load together.
func lints(root *os.Root, names []string) error {
	together := map[string][]lint.Source{}
	for _, name := range names {
		dir := path.Dir(name)
		if path.Ext(name) != ".json" {
			continue
		}
		if dir == "journal-rules" {
			dir = "config"
		}
		data, err := root.ReadFile(name)
		if err != nil {
			return err
		}
		together[dir] = append(together[dir], lint.Source{Path: name, Data: data})
	}
	for _, dir := range slices.Sorted(maps.Keys(together)) {
		for _, finding := range lint.Lint(together[dir], "") {
			if finding.Trap.Severity == lint.Error || finding.Trap.ID == "check-timeout" {
				return errors.New(finding.String())
			}
		}
	}
	return nil
}

// answers says whether a binary starts, and takes the arguments. It does not look at the host: it only tells its version.
func answers(binary string, args []string) error {
	name := filepath.Base(binary)
	r := npd.RunPlugin(context.Background(), binary, append(slices.Clone(args), "--version"), answerTime, npd.MaxPluginOutput)
	if r.Status == npd.OK && strings.HasPrefix(r.Message, name+" ") && !strings.Contains(r.Message, "\n") {
		return nil
	}
	said := r.Message
	if said == "" {
		said = "it says nothing"
	}
	return fmt.Errorf("bin/%s %s: %s", name, strings.Join(append(slices.Clone(args), "--version"), " "), said)
}

// warn tells which check will not take the arguments that a running node-problem-detector gives it.
func (i *installation) warn(root *os.Root, before *list, stderr io.Writer) {
	for _, name := range below(slices.Collect(maps.Keys(before.all())), "config") {
		config, err := readConfig(root, name)
		if err != nil {
			continue // gone or changed: nothing can be said
		}
		for _, rule := range config.Rules {
			binary := path.Join("bin", path.Base(rule.Path))
			if _, ok := i.files[binary]; !ok {
				continue
			}
			if err := answers(filepath.Join(i.dest, staging, binary), rule.Args); err != nil {
				fmt.Fprintf(stderr, "npdctl install: warning: a running node-problem-detector gets Unknown from %s until it is restarted: %s\n",
					strings.Join(conditionsOf(config), " "), printable(err.Error()))
			}
		}
	}
}

func conditionsOf(config *npd.CustomConfig) (types []string) {
	for _, c := range config.Conditions {
		types = append(types, c.Type)
	}
	return types
}

// check is what --check does.
func (p place) check(stdout io.Writer) error {
	root, err := os.OpenRoot(p.dest)
	if err != nil {
		return err
	}
	defer root.Close()
	l, err := readList(root, p.dest)
	if err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("nothing is installed in %s", p.dest)
	}
	if !l.complete {
		return fmt.Errorf("%s is half-written: an install of npd-plugins %s broke off; install again, or the version before", p.dest, l.version)
	}
	if err := p.try(p.dest, l.files); err != nil {
		return fmt.Errorf("%s: %w", p.dest, err)
	}
	fmt.Fprintf(stdout, "npd-plugins %s is whole in %s: %d files\n", l.version, p.dest, len(l.files))
	return nil
}
