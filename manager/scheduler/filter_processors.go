package scheduler

import (
	"github.com/skep-io/skep/internal/cpulist"
)

// processors refuses nodes that lack one of those that the task is to run on. A node that is too old to say which it has is left to
// refuse the task itself.
type processors struct {
	asked         cpulist.List
	list, service string
}

// newProcessors is of a list that the server let in.
func newProcessors(list, service string) processors {
	asked, _ := cpulist.Parse(list)
	return processors{asked, list, service}
}

func (f processors) passes(n *node) bool {
	online, err := cpulist.Parse(n.api.GetDescription().GetOnlineCpus())
	return err != nil || online.Has(f.asked)
}

func (f processors) key() string { return "processors " + f.list }

func (f processors) refusal(nodes int) string {
	return counted(nodes, "1 node without", "%d nodes without") + " CPUs " + f.list
}

func (processors) name() string { return "CPUs" }

func (f processors) detail(n *node) string {
	return "the task is for CPUs " + f.list + ", the node has " + n.api.GetDescription().GetOnlineCpus()
}

func (f processors) remedy(n *node) Remedy {
	online := n.api.GetDescription().GetOnlineCpus()
	return Remedy{
		Text: "ask for CPUs that node " + n.label() + " has, " + online, Command: "skep service update --cpuset-cpus " + online + " " + f.service,
		cost: costCondition,
	}
}
