package npd

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// NPD's defaults for what a custom plugin file leaves out.
const (
	DefaultTimeout         = 5 * time.Second
	DefaultInvokeInterval  = 30 * time.Second
	DefaultMaxOutputLength = 80 // bytes
	DefaultConcurrency     = 3  // rules of one file that run at the same time
)

// Rule types. NPD takes any other word for permanent, but without checking that the condition is declared.
const (
	Temporary = "temporary"
	Permanent = "permanent"
)

// CustomConfig is a configuration file of the custom plugin monitor.
type CustomConfig struct {
	Plugin           string        `json:"plugin"` // always "custom"
	PluginConfig     PluginConfig  `json:"pluginConfig"`
	Source           string        `json:"source"`
	Conditions       []Condition   `json:"conditions"` // the healthy state of each condition
	Rules            []*CustomRule `json:"rules"`
	MetricsReporting *bool         `json:"metricsReporting"`
}

// PluginConfig is what holds for all rules of one custom plugin file.
type PluginConfig struct {
	InvokeInterval        Duration `json:"invoke_interval"`
	Timeout               Duration `json:"timeout"`
	MaxOutputLength       int      `json:"max_output_length"` // bytes
	Concurrency           int      `json:"concurrency"`
	UpdateOnMessageChange bool     `json:"enable_message_change_based_condition_update"`
	SkipInitialStatus     bool     `json:"skip_initial_status"`
}

// CustomRule is one plugin and the condition or event it stands for.
type CustomRule struct {
	Type           string    `json:"type"`      // Temporary or Permanent
	Condition      string    `json:"condition"` // of a permanent rule
	Reason         string    `json:"reason"`
	Path           string    `json:"path"`
	Args           []string  `json:"args"`
	Timeout        *Duration `json:"timeout"`         // at most the file's timeout, which holds if there is none
	InvokeInterval *Duration `json:"invoke_interval"` // in no release of NPD yet; older ones ignore it
}

// Duration is a time.Duration written as Go writes it ("1m30s").
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// LoadCustom reads a custom plugin file as NPD does at its start. An error is what NPD dies of, except that the paths of
// rules are not looked at: they are those of another machine or mount namespace.
func LoadCustom(path string) (*CustomConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := ParseCustom(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ParseCustom is LoadCustom on bytes.
func ParseCustom(data []byte) (*CustomConfig, error) {
	c := CustomConfig{PluginConfig: PluginConfig{
		InvokeInterval:  Duration(DefaultInvokeInterval),
		Timeout:         Duration(DefaultTimeout),
		MaxOutputLength: DefaultMaxOutputLength,
		Concurrency:     DefaultConcurrency,
	}}
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &c, nil
}

func (c *CustomConfig) validate() error {
	if c.Plugin != "custom" {
		return fmt.Errorf(`plugin is %q, not "custom"`, c.Plugin)
	}
	if c.PluginConfig.InvokeInterval <= 0 {
		return fmt.Errorf("invoke_interval %v is not above zero", time.Duration(c.PluginConfig.InvokeInterval))
	}
	if c.PluginConfig.Concurrency < 0 {
		return fmt.Errorf("concurrency %d is negative", c.PluginConfig.Concurrency)
	}
	for i, r := range c.Rules {
		if err := c.validateRule(r); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return nil
}

func (c *CustomConfig) validateRule(r *CustomRule) error {
	switch {
	case r == nil:
		return fmt.Errorf("is null")
	case r.InvokeInterval != nil && *r.InvokeInterval <= 0:
		return fmt.Errorf("invoke_interval %v is not above zero", time.Duration(*r.InvokeInterval))
	case r.Timeout != nil && *r.Timeout > c.PluginConfig.Timeout:
		return fmt.Errorf("timeout %v is above the timeout %v of the file", time.Duration(*r.Timeout), time.Duration(c.PluginConfig.Timeout))
	case r.Type == Permanent && !declares(c.Conditions, r.Condition):
		return fmt.Errorf("permanent, but condition %q is not declared", r.Condition)
	}
	return checkLabels(c.MetricsReporting, r.Type, r.Condition, r.Reason)
}

// checkLabels says whether NPD can make the metrics of a rule, which it does at its start.
func checkLabels(reporting *bool, kind, condition, reason string) error {
	switch {
	case reporting != nil && !*reporting:
		return nil
	case !IsLabel(reason):
		return fmt.Errorf("reason %q is not printable ASCII of up to %d bytes", reason, maxLabel)
	case kind == Permanent && !IsLabel(condition):
		return fmt.Errorf("condition %q is not printable ASCII of up to %d bytes", condition, maxLabel)
	}
	return nil
}

func declares(conditions []Condition, name string) bool {
	for _, c := range conditions {
		if c.Type == name {
			return true
		}
	}
	return false
}

// RuleTimeout is how long one run of r may take.
func (c *CustomConfig) RuleTimeout(r *CustomRule) time.Duration {
	if r.Timeout != nil && *r.Timeout < c.PluginConfig.Timeout {
		return time.Duration(*r.Timeout)
	}
	return time.Duration(c.PluginConfig.Timeout)
}

// RuleInterval is how often r runs.
func (c *CustomConfig) RuleInterval(r *CustomRule) time.Duration {
	if r.InvokeInterval != nil {
		return time.Duration(*r.InvokeInterval)
	}
	return time.Duration(c.PluginConfig.InvokeInterval)
}
