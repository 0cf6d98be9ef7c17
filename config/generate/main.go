// Command generate writes the identifiers of the distributions into the configurations that count lines of the journal. All else in
// them is written by hand.
package main

//go:generate go run .

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/rulefile"
)

// writers say whose lines a configuration counts.
type writers struct{ runtime, systemd bool } // besides kubelet's

// counted are the configurations journal-count-*.json.
var counted = map[string]writers{
	"cni-teardown":     {runtime: true},
	"cri-message-size": {runtime: true},
	"pleg":             {},
	"task-delete":      {runtime: true},
	"task-fork":        {runtime: true, systemd: true},
}

func main() {
	files, err := generate("..")
	for path, content := range files {
		if err == nil {
			err = os.WriteFile(path, content, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// generate returns the content of each configuration by its path. One that counted does not have is an error.
func generate(dir string) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "journal-count-*.json"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, path := range paths {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "journal-count-"), ".json")
		of, ok := counted[name]
		if !ok {
			return nil, fmt.Errorf("%s: say in config/generate whose lines it counts", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if files[path], err = rulefile.ForPlugins(data, of.identify); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return files, nil
}

// identify puts the identifiers in the place of those that are there.
func (w writers) identify(rule *rulefile.PluginRule) {
	identifiers, runtime := distribution.Identifiers()
	if w.runtime {
		for _, one := range runtime { // k0s has one for both
			if !slices.Contains(identifiers, one) {
				identifiers = append(identifiers, one)
			}
		}
	}
	if w.systemd {
		identifiers = append(identifiers, "systemd")
	}
	for i, arg := range rule.Args {
		if strings.HasPrefix(arg, "--identifier=") {
			rule.Args[i] = "--identifier=" + strings.Join(identifiers, ",")
		}
	}
}
