package main

import (
	"fmt"
	"slices"
	"strings"
)

// spell is a time in which a condition of a node was not False, in minutes of the six hours that the picture shows.
type spell struct {
	node, condition string
	from, to        int
	unknown         bool
}

// example is a night that ends badly for one node: its disk slows down, its runtime hangs, kubelet's relist waits. Another has a process
// that does not reap, and a third lost a mount.
var example = []spell{
	{"worker-3", "IOStalled", 70, 290, false},
	{"worker-3", "TasksStuck", 150, 290, false},
	{"worker-3", "ContainerRuntimeStalled", 165, 292, false},
	{"worker-3", "PLEGStalled", 190, 292, false},
	{"worker-7", "ZombieProcesses", 20, 110, false},
	{"worker-7", "TasksNearLimit", 85, 112, false},
	{"worker-9", "ImagePullStalled", 240, 262, false},
	{"worker-12", "SystemdUnitLeak", 30, 360, true},
}

// picture is the panel "Nodes and their conditions" of the dashboard as it shows the example, with the colours and words of that panel.
func picture(conditions []condition) (string, error) {
	const left, row, width, height = 300, 26, 1100, 60
	colours := map[bool]string{false: "#e02f44", true: "#fade2a"}
	span := float64(width-left-20) / 360
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", width, height+row*len(example)+30)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#111217"/><text x="12" y="26" fill="#d8d9da" font-size="15">%s</text>`+"\n", defaults.panels()[4].title)
	for i, s := range example {
		if !slices.ContainsFunc(conditions, func(c condition) bool { return c.Type == s.condition }) {
			return "", fmt.Errorf("no condition %s", s.condition)
		}
		y := height + i*row - 14
		fmt.Fprintf(&b, `<text x="12" y="%d" fill="#d8d9da">%s %s</text>`, y+16, s.node, s.condition)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.0f" height="%d" fill="#37872d"/>`, left, y, 360*span, row-4)
		fmt.Fprintf(&b, `<rect x="%.0f" y="%d" width="%.0f" height="%d" fill="%s"/>`+"\n", left+float64(s.from)*span, y, float64(s.to-s.from)*span, row-4, colours[s.unknown])
	}
	bottom := height + row*len(example)
	for hour := range 7 {
		fmt.Fprintf(&b, `<text x="%.0f" y="%d" fill="#9fa7b3" text-anchor="middle">%02d:00</text>`, left+float64(hour*60)*span, bottom+6, hour)
	}
	for i, key := range []struct{ colour, word string }{{"#37872d", "well"}, {"#e02f44", "problem"}, {"#fade2a", "cannot look"}} {
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d" fill="#d8d9da">%s</text>`, 12+i*110, bottom+8, key.colour, 30+i*110, bottom+18, key.word)
	}
	b.WriteString("\n</svg>\n")
	return b.String(), nil
}
