package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/rulefile"
)

// configuration is a custom plugin file among those to choose from.
type configuration struct {
	name   string // zombies of zombies.json
	file   string
	data   []byte
	config *npd.CustomConfig
}

func readConfigurations(dir string) ([]configuration, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no *.json in %s", dir)
	}
	if err != nil {
		return nil, err
	}
	var all []configuration
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		config, err := npd.ParseCustom(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, configuration{strings.TrimSuffix(filepath.Base(file), ".json"), file, data, config})
	}
	return all, nil
}

// is says whether a name is that of the configuration, of its check, or of its condition.
func (c configuration) is(name string) bool { return slices.Contains(c.names(), name) }

func (c configuration) names() []string {
	names := []string{c.name}
	for _, rule := range c.config.Rules {
		names = append(names, path.Base(rule.Path))
	}
	for _, condition := range c.config.Conditions {
		names = append(names, condition.Type)
	}
	return names
}

// choice is which checks to install, and how they run there.
type choice struct {
	enable, disable names
	settings        settings
	hostRoot        string
	journal         string // "" as the journal rules say
	target          target
}

// names are words with commas between.
type names []string

func (n *names) String() string { return strings.Join(*n, ",") }

func (n *names) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return errors.New("an empty name")
		}
		*n = append(*n, name)
	}
	return nil
}

// setting is a flag of a check with its values.
type setting struct {
	check, flag string
	values      []string
}

type settings []setting

var settingForm = regexp.MustCompile(`^([^.=]+)\.([a-z][a-z0-9-]*)=(?s)(.*)$`)

func (s *settings) String() string { return "" }

func (s *settings) Set(text string) error {
	m := settingForm.FindStringSubmatch(text)
	if m == nil {
		return errors.New("want check.flag=value")
	}
	check, flag, value := m[1], m[2], m[3]
	switch {
	case flag == "help" || flag == "version" || flag == "h":
		return fmt.Errorf("with --%s the check would not look", flag)
	case flag == "output" && value != "npd":
		return errors.New("node-problem-detector reads --output=npd only")
	}
	for i, one := range *s {
		if one.check == check && one.flag == flag {
			(*s)[i].values = append(one.values, value)
			return nil
		}
	}
	*s = append(*s, setting{check, flag, []string{value}})
	return nil
}

// of returns the chosen ones. A name that is none of them is an error: a check left out by a spelling mistake would be missed by
// nobody.
func (c *choice) of(all []configuration) ([]configuration, error) {
	for _, name := range slices.Concat(c.enable, c.disable) {
		if !slices.ContainsFunc(all, func(one configuration) bool { return one.is(name) }) {
			return nil, fmt.Errorf("no check %s; there are %s", name, allNames(all))
		}
	}
	var chosen []configuration
	for _, one := range all {
		enabled := len(c.enable) == 0 || slices.ContainsFunc(c.enable, one.is)
		if enabled && !slices.ContainsFunc(c.disable, one.is) {
			chosen = append(chosen, one)
		}
	}
	for _, set := range c.settings {
		if !slices.ContainsFunc(chosen, func(one configuration) bool { return one.is(set.check) }) {
			return nil, fmt.Errorf("--set %s.%s: no such check is chosen; there are %s", set.check, set.flag, allNames(chosen))
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no check is left by --enable and --disable")
	}
	return chosen, nil
}

func allNames(all []configuration) string {
	var names []string
	for _, one := range all {
		names = append(names, one.name)
	}
	return strings.Join(names, " ")
}

// apply gives a rule its arguments.
func (c *choice) apply(to configuration, rule *rulefile.PluginRule) {
	if c.hostRoot != "" {
		rule.SetFlag("host-root", c.hostRoot)
	}
	c.target.apply(rule)
	for _, set := range c.settings {
		if to.is(set.check) {
			rule.SetFlag(set.flag, set.values...)
		}
	}
}
