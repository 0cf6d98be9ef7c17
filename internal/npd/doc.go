// Package npd holds node-problem-detector's own file formats and behaviour: how its custom plugin monitor runs a plugin
// and turns the result into a condition and events, how its system log monitor matches lines, what it makes of a
// configuration file, and which of its traps a file steps into.
//
// Names and defaults are those of NPD's pkg/custompluginmonitor and pkg/systemlogmonitor, master of August 2026.
package npd
