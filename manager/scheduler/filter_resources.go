package scheduler

import (
	"fmt"
	"strconv"
	"strings"
)

// resources refuses nodes on which less is left than the task reserves.
type resources struct {
	need    *need
	service string
}

func (f resources) passes(n *node) bool {
	if f.need.cpus > 0 && f.need.cpus > n.totalCPUs-n.takenCPUs || f.need.memory > 0 && f.need.memory > n.totalMemory-n.takenMemory {
		return false
	}
	for _, r := range f.need.generic {
		if r.GetCount() > n.generic[r.GetKind()].free() {
			return false
		}
	}
	return true
}

func (resources) refusal(nodes int) string {
	return counted(nodes, "insufficient resources on 1 node", "insufficient resources on %d nodes")
}

func (resources) name() string { return "resources" }

// lack is one resource of which a node has less than is reserved.
type lack struct {
	reserved, free float64
	// have, want and flag are in the words of the command line; lower is the greatest value that would do, or empty.
	what, have, want, flag, lower string
	// unknown says that the node has none at all, and never had.
	unknown bool
}

// lacks returns what a node has too little of.
func (f resources) lacks(n *node) (found []lack) {
	if free := n.totalCPUs - n.takenCPUs; f.need.cpus > 0 && f.need.cpus > free {
		l := lack{float64(f.need.cpus), float64(free), "CPUs", cpus(free), cpus(f.need.cpus), "--reserve-cpu", "", false}
		if free >= leastCPUs {
			l.lower = cpus(free)
		}
		found = append(found, l)
	}
	if free := n.totalMemory - n.takenMemory; f.need.memory > 0 && f.need.memory > free {
		l := lack{float64(f.need.memory), float64(free), "memory", memory(free), memory(f.need.memory), "--reserve-memory", "", false}
		if free >= leastMemory {
			l.lower = memory(free)
		}
		found = append(found, l)
	}
	for _, r := range f.need.generic {
		pool := n.generic[r.GetKind()]
		if free := pool.free(); r.GetCount() > free {
			l := lack{
				float64(r.GetCount()), float64(free), r.GetKind(), strconv.FormatInt(max(free, 0), 10), strconv.FormatInt(r.GetCount(), 10),
				"--generic-resource-add", "", pool == nil,
			}
			if free > 0 {
				l.lower = fmt.Sprintf("%s=%d", r.GetKind(), free)
			}
			found = append(found, l)
		}
	}
	return found
}

func (f resources) detail(n *node) string {
	var parts []string
	for _, l := range f.lacks(n) {
		parts = append(parts, fmt.Sprintf("%s of %s left, the task reserves %s", l.have, l.what, l.want))
	}
	return strings.Join(parts, ", ")
}

func (f resources) remedy(n *node) Remedy {
	r := Remedy{Command: "skep service update", cost: costNumber}
	var texts []string
	for _, l := range f.lacks(n) {
		if l.unknown {
			return Remedy{Text: "add a node that has " + l.what + ", or have one say so (skep daemon --node-generic-resource)", cost: 2 * costMachine}
		}
		if l.lower == "" {
			return Remedy{Text: "free " + l.what + " on node " + n.label() + ", or add a node that has more", cost: costMachine}
		}
		texts = append(texts, "lower "+l.flag+" to "+l.lower)
		r.Command += " " + l.flag + " " + l.lower
		r.cost += (l.reserved - l.free) / l.reserved
	}
	r.Text, r.Command = strings.Join(texts, " and "), r.Command+" "+f.service
	return r
}

// The least that a service may reserve; manager/control refuses less.
const (
	leastCPUs   = 1_000_000
	leastMemory = 4 << 20
)

// cpus returns billionths of a CPU as --reserve-cpu takes them, rounded down.
func cpus(nano int64) string {
	const thousandth = 1_000_000
	return strconv.FormatFloat(float64(max(nano, 0)/thousandth)/1000, 'f', -1, 64)
}

// memory returns bytes as --reserve-memory takes them, rounded down to MiB.
func memory(bytes int64) string {
	const mebi, gibi = 1 << 20, 1 << 30
	if bytes = max(bytes, 0); bytes >= gibi && bytes%gibi == 0 {
		return fmt.Sprintf("%dGiB", bytes/gibi)
	}
	return fmt.Sprintf("%dMiB", bytes/mebi)
}
