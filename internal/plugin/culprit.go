package plugin

import (
	"cmp"
	"slices"
	"strings"
)

// Consumer is something that holds a share of what is full, named for a
// message.
type Consumer struct {
	Name   string
	Amount float64
}

// culpritShare is the least share of the whole, in percent, at which a consumer
// is a culprit. The biggest of many small ones is not what fills a node: without
// it the node is as full as before.
const culpritShare = 10

// IsCulprit says whether who holds an amount of a total may be blamed for it.
func IsCulprit(amount, total float64) bool { return amount > 0 && amount*100 >= culpritShare*total }

// Culprits are those of the consumers that a message may blame for a total:
// each holds at least a tenth of it, the biggest comes first, and there are at
// most as many as asked for. Checks that name who holds most go by it.
func Culprits(all []Consumer, total float64, most int) []Consumer {
	culprits := slices.DeleteFunc(slices.Clone(all), func(c Consumer) bool { return !IsCulprit(c.Amount, total) })
	slices.SortStableFunc(culprits, func(a, b Consumer) int {
		return cmp.Or(cmp.Compare(b.Amount, a.Amount), strings.Compare(a.Name, b.Name))
	})
	return culprits[:min(len(culprits), most)]
}
