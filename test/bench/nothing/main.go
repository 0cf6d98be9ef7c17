// Command nothing is a check that looks at nothing. It is what flags, deadline, memory and output cost.
package main

import (
	"context"
	"time"

	"npd-plugins/internal/plugin"
)

func main() {
	plugin.Main(plugin.Check{Name: "nothing", Condition: "Nothing", FailureThreshold: 1, Timeout: 20 * time.Second,
		Look: func(context.Context, *plugin.Look) plugin.Verdict {
			return plugin.Verdict{Message: "nothing was looked at"}
		}})
}
