package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	"npd-plugins/config"
	"npd-plugins/internal/apiserver"
	"npd-plugins/internal/npd"
	"npd-plugins/internal/npd/lint"
)

const cleanupUsage = `npdctl cleanup [--node NAME]... [--kubeconfig FILE] [--dry-run] [FILE|DIR...]

Removes conditions from nodes. Nobody else does: a condition stays as it was last when its configuration or node-problem-detector
goes away, and alerts on it go on. Run it when node-problem-detector has been restarted without these configurations, or is gone: else
it sets them again within five minutes.

The conditions are those of the configurations given, or those of this version of npd-plugins. Conditions that kubelet, the node
controllers and node-problem-detector's own configurations write are refused.

Without --kubeconfig it prints the kubectl commands (1.24 or newer) that do it. With it, it does it: on each node only for conditions
whose reason is one that these configurations give, and only if the node has not been changed since it was read. It needs
the rights to get and list nodes and to patch nodes/status. Client certificates and tokens are known; for a user that
logs in through an exec plugin it prints the commands.

Exit codes: 0 done or printed, 2 not done on some node, or a usage error.

Examples:
  npdctl cleanup
  npdctl cleanup --kubeconfig ~/.kube/config --dry-run
  npdctl cleanup --kubeconfig ~/.kube/config --node node-1 config/zombies.json
`

// ours are the conditions to remove, each with the reasons that its configuration gives it.
type ours map[string][]string

func (o ours) types() []string { return slices.Sorted(maps.Keys(o)) }

func cleanup(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("cleanup", cleanupUsage, stderr)
	var nodes names
	flags.Var(&nodes, "node", "`names` of nodes, with commas between, may be repeated (default all nodes)")
	kubeconfig := flags.String("kubeconfig", "", "`file` with the cluster's address and a user's credentials")
	context := flags.String("context", "", "`name` of a context in the kubeconfig (default its current one)")
	dryRun := flags.Bool("dry-run", false, "kube-apiserver does everything but keep the result")
	if code, done := parse(flags, args, stdout); done {
		return code
	}
	conditions, err := conditionsToRemove(flags.Args())
	if err == nil {
		err = validNames(nodes)
	}
	if err == nil && *context != "" && *kubeconfig == "" {
		err = errors.New("--context needs --kubeconfig")
	}
	var client *apiserver.Client
	if err == nil && *kubeconfig != "" {
		client, err = apiserver.Load(*kubeconfig, *context)
	}
	switch {
	case errors.Is(err, apiserver.ErrCredentials):
		fmt.Fprintln(stderr, "npdctl cleanup:", printable(err.Error())+"; these commands do it:")
		printCommands(stdout, conditions, nodes, *dryRun)
		return exitBroken
	case err != nil:
		fmt.Fprintln(stderr, "npdctl cleanup:", printable(err.Error()))
		return exitBroken
	case client == nil:
		printCommands(stdout, conditions, nodes, *dryRun)
		return exitFine
	}
	c := cleaner{client, conditions, *dryRun, stdout, stderr}
	return c.clean(nodes)
}

// conditionsToRemove are those of configurations, or of all that this version has.
func conditionsToRemove(from []string) (ours, error) {
	sources, err := configurationsOf(from)
	if err != nil {
		return nil, err
	}
	conditions := ours{}
	for _, s := range sources {
		if err := conditions.add(s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Path, err)
		}
	}
	for _, f := range lint.Lint(sources, "") {
		switch f.Trap.ID {
		case "condition-of-kubelet", "condition-of-others", "condition-ready":
			return nil, fmt.Errorf("%s: %s is a condition of others, it is not removed", f.Path, f.Detail)
		}
	}
	if len(conditions) == 0 {
		return nil, errors.New("these configurations have no conditions")
	}
	return conditions, nil
}

func configurationsOf(from []string) (sources []lint.Source, err error) {
	if len(from) == 0 {
		names, err := fs.Glob(config.Files, "*.json")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := config.Files.ReadFile(name)
			if err != nil {
				return nil, err
			}
			sources = append(sources, lint.Source{Path: name, Data: data})
		}
		return sources, nil
	}
	files, err := configFiles(from)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		sources = append(sources, lint.Source{Path: file, Data: data})
	}
	return sources, nil
}

// conditionName is what a condition's type can be.
var conditionName = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?$`)

// add takes in the conditions of a custom plugin file, or of a log file.
func (o ours) add(s lint.Source) error {
	var declared []npd.Condition
	reasons := map[string][]string{}
	if custom, err := npd.ParseCustom(s.Data); err == nil {
		declared = custom.Conditions
		for _, rule := range custom.Rules {
			reasons[rule.Condition] = append(reasons[rule.Condition], rule.Reason)
		}
	} else {
		log, logErr := npd.ParseLogConfig(s.Data)
		if logErr != nil || !slices.Contains(npd.LogPlugins, log.Plugin) {
			return err
		}
		declared = log.Conditions
		for _, rule := range log.Rules {
			reasons[rule.Condition] = append(reasons[rule.Condition], rule.Reason)
		}
	}
	for _, c := range declared {
		if !conditionName.MatchString(c.Type) {
			return fmt.Errorf("%q cannot be a condition", c.Type)
		}
		o[c.Type] = append(append(o[c.Type], c.Reason), reasons[c.Type]...)
	}
	return nil
}

// nodeName is a DNS subdomain, which names of nodes are.
var nodeName = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$`)

func validNames(nodes []string) error {
	for _, node := range nodes {
		if !nodeName.MatchString(node) {
			return fmt.Errorf("--node %s: not the name of a node", node)
		}
	}
	return nil
}

func printCommands(stdout io.Writer, conditions ours, nodes []string, dryRun bool) {
	options := "--subresource=status"
	if dryRun {
		options += " --dry-run=server"
	}
	patch := apiserver.Removal(conditions.types(), "") // holds no quote
	for _, node := range nodes {
		fmt.Fprintf(stdout, "kubectl patch node %s %s -p '%s'\n", node, options, patch)
	}
	if len(nodes) == 0 {
		fmt.Fprintf(stdout, "for node in $(kubectl get nodes -o name); do kubectl patch \"$node\" %s -p '%s'; done\n", options, patch)
	}
}

// cleaner removes conditions from the nodes of a cluster.
type cleaner struct {
	*apiserver.Client
	conditions     ours
	dryRun         bool
	stdout, stderr io.Writer
}

// clean goes over these nodes, or over all.
func (c *cleaner) clean(names []string) (code int) {
	ctx := context.Background()
	var nodes []apiserver.Node
	var err error
	if len(names) == 0 {
		if nodes, err = c.Nodes(ctx); err != nil {
			fmt.Fprintln(c.stderr, "npdctl cleanup: list the nodes:", printable(err.Error()))
			return exitBroken
		}
	}
	failed, cleaned := 0, 0
	each := func(name string, removed []string, err error) {
		switch {
		case err != nil:
			failed++
			fmt.Fprintf(c.stderr, "npdctl cleanup: %s: %s\n", name, printable(err.Error()))
		case len(removed) > 0:
			cleaned++
			fmt.Fprintf(c.stdout, "%s: %s %s\n", name, c.verb(), strings.Join(removed, " "))
		}
	}
	for _, node := range nodes {
		removed, err := c.remove(ctx, node)
		each(node.Name, removed, err)
	}
	for _, name := range names {
		node, err := c.Node(ctx, name)
		var removed []string
		if err == nil {
			removed, err = c.remove(ctx, node)
		}
		each(name, removed, err)
	}
	fmt.Fprintf(c.stdout, "%d nodes, %d with conditions %s, %d failed\n", len(nodes)+len(names), cleaned, c.verb(), failed)
	if failed > 0 {
		return exitBroken
	}
	return exitFine
}

func (c *cleaner) verb() string {
	if c.dryRun {
		return "to remove"
	}
	return "removed"
}

// conflicts is how often a node may change between reading and patching; kubelet writes it every ten seconds at most.
const conflicts = 5

// remove removes from a node what is ours, and returns that.
func (c *cleaner) remove(ctx context.Context, node apiserver.Node) ([]string, error) {
	for n := 1; ; n++ {
		types := c.removable(node)
		if len(types) == 0 {
			return nil, nil
		}
		after, err := c.RemoveConditions(ctx, node, types, c.dryRun)
		var status *apiserver.StatusError
		if errors.As(err, &status) && status.Code == http.StatusConflict && n < conflicts {
			if node, err = c.Node(ctx, node.Name); err != nil {
				return nil, err
			}
			continue
		}
		if err == nil && slices.ContainsFunc(after.Conditions, func(now apiserver.Condition) bool { return slices.Contains(types, now.Type) }) {
			err = errors.New("kube-apiserver took the patch, and the conditions are still there")
		}
		return types, err
	}
}

// removable are the conditions of a node that are to be removed. One that has our name and a reason of somebody else is told, and stays.
func (c *cleaner) removable(node apiserver.Node) (types []string) {
	for _, condition := range node.Conditions {
		reasons, ok := c.conditions[condition.Type]
		switch {
		case !ok:
		case slices.Contains(reasons, condition.Reason):
			types = append(types, condition.Type)
		default:
			fmt.Fprintf(c.stderr, "npdctl cleanup: %s: %s stays: its reason %s is not one that these configurations give\n",
				node.Name, printable(condition.Type), printable(condition.Reason))
		}
	}
	return types
}
