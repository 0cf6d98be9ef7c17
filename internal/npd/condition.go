package npd

import (
	"fmt"
	"slices"
	"time"
)

// The values of Condition.Status. True means that there is a problem.
const (
	ConditionTrue    = "True"
	ConditionFalse   = "False"
	ConditionUnknown = "Unknown"
)

// Condition is a NodeCondition as NPD holds it. In a file it is the healthy state; NPD overwrites status and transition.
type Condition struct {
	Type       string    `json:"type"`
	Status     string    `json:"status"`
	Transition time.Time `json:"transition"`
	Reason     string    `json:"reason"`
	Message    string    `json:"message"`
}

// Event is a Kubernetes Event on the Node as the API server gets it.
type Event struct {
	Type    string // Normal or Warning
	Source  string
	Reason  string
	Message string // after the printf that NPD's message goes through, which spoils every %
	Time    time.Time
}

func newEvent(kind, source, reason, message string, at time.Time) Event {
	return Event{Type: kind, Source: source, Reason: reason, Message: printf(message), Time: at}
}

// conditionEvent is the event NPD writes when a condition changes.
func conditionEvent(source string, c Condition) Event {
	kind := "Normal"
	if c.Status == ConditionTrue {
		kind = "Warning"
	}
	text := fmt.Sprintf("Node condition %s is now: %s, reason: %s, message: %q", c.Type, c.Status, c.Reason, c.Message)
	return newEvent(kind, source, c.Reason, text, c.Transition)
}

// printf returns what becomes of a message that is used as a format without arguments.
func printf(format string) string { return fmt.Sprintf(format, []any{}...) }

// initialConditions are the declared conditions as NPD holds them before the first look.
func initialConditions(declared []Condition, now time.Time) []Condition {
	all := slices.Clone(declared)
	for i := range all {
		all[i].Status = ConditionFalse
		all[i].Transition = now
	}
	return all
}

// CustomMonitor holds the conditions of one custom plugin file and moves them as NPD's generateStatus does.
type CustomMonitor struct {
	config     *CustomConfig
	conditions []Condition
}

// NewCustomMonitor returns the monitor as it is before its plugins run: every condition False.
func NewCustomMonitor(config *CustomConfig, now time.Time) *CustomMonitor {
	return &CustomMonitor{config: config, conditions: initialConditions(config.Conditions, now)}
}

// Conditions returns the conditions, in the order of the file.
func (m *CustomMonitor) Conditions() []Condition { return slices.Clone(m.conditions) }

// Initial returns what NPD reports before the first look: nothing with skip_initial_status, else all conditions, so that
// one that is True on the Node is reset. The first look reports all of them in either case.
func (m *CustomMonitor) Initial() []Condition {
	if m.config.PluginConfig.SkipInitialStatus {
		return nil
	}
	return m.Conditions()
}

// Apply takes in the result of one run of rule and returns the events NPD writes for it.
func (m *CustomMonitor) Apply(rule *CustomRule, status Status, message string, now time.Time) []Event {
	if rule.Type == Temporary {
		if status == OK {
			return nil
		}
		return []Event{newEvent("Warning", m.config.Source, rule.Reason, message, now)}
	}
	i := slices.IndexFunc(m.conditions, func(c Condition) bool { return c.Type == rule.Condition })
	if i < 0 {
		return nil
	}
	next, changed := m.next(m.conditions[i], m.config.Conditions[i], rule, status, message)
	if !changed {
		return nil
	}
	next.Transition = now
	m.conditions[i] = next
	return []Event{conditionEvent(m.config.Source, next)}
}

// next is the condition after a run. A problem takes the rule's reason and the plugin's message, health takes both from the
// declared condition, and Unknown takes the reason of health and the plugin's message. The message of an unchanged status
// stays what it was at the onset, unless the reason changes or the file asks for updates.
func (m *CustomMonitor) next(now, healthy Condition, rule *CustomRule, status Status, message string) (next Condition, changed bool) {
	next = now
	switch status {
	case OK:
		next.Status, next.Reason, next.Message = ConditionFalse, healthy.Reason, healthy.Message
	case NonOK:
		next.Status, next.Reason, next.Message = ConditionTrue, rule.Reason, message
	default:
		next.Status, next.Reason, next.Message = ConditionUnknown, healthy.Reason, message
	}
	if next.Status != now.Status {
		return next, true
	}
	if next.Status != ConditionTrue {
		return now, false
	}
	newMessage := m.config.PluginConfig.UpdateOnMessageChange && next.Message != now.Message
	return next, next.Reason != now.Reason || newMessage
}
