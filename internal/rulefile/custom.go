package rulefile

import (
	"encoding/json"
	"slices"
	"strings"
)

// customFile is a custom plugin file with its keys in their order.
type customFile struct {
	Plugin           string          `json:"plugin"`
	PluginConfig     json.RawMessage `json:"pluginConfig,omitempty"`
	Source           string          `json:"source"`
	MetricsReporting *bool           `json:"metricsReporting,omitempty"`
	Conditions       json.RawMessage `json:"conditions"`
	Rules            []*PluginRule   `json:"rules"`
}

// PluginRule is a rule of a custom plugin file.
type PluginRule struct {
	Type           string   `json:"type"`
	Condition      string   `json:"condition,omitempty"`
	Reason         string   `json:"reason"`
	Path           string   `json:"path"`
	Args           []string `json:"args,omitempty"`
	Timeout        string   `json:"timeout,omitempty"`
	InvokeInterval string   `json:"invoke_interval,omitempty"`
}

// SetFlag puts --name=value in the place of all that the arguments say about that flag; more values stand one after the
// other.
func (r *PluginRule) SetFlag(name string, values ...string) {
	var kept []string
	dropped := false
	for _, arg := range r.Args {
		flag := strings.HasPrefix(arg, "-")
		if flag {
			is, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			dropped = is == name
		}
		if !dropped { // nor the value behind it: checks have no other arguments than flags
			kept = append(kept, arg)
		}
	}
	for _, value := range values {
		kept = append(kept, "--"+name+"="+value)
	}
	r.Args = slices.Clip(kept)
}

// WithoutRules returns a custom plugin file with neither conditions nor rules: node-problem-detector starts with it and does nothing.
func WithoutRules(config []byte) ([]byte, error) {
	var f customFile
	if err := strict(config, &f); err != nil {
		return nil, err
	}
	f.Conditions, f.Rules = json.RawMessage("[]"), []*PluginRule{}
	return format(&f)
}

// ForPlugins returns a custom plugin file with change applied to each rule.
func ForPlugins(config []byte, change func(*PluginRule)) ([]byte, error) {
	var f customFile
	if err := strict(config, &f); err != nil {
		return nil, err
	}
	for _, rule := range f.Rules {
		change(rule)
	}
	return format(&f)
}
