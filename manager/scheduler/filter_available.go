package scheduler

import (
	"fmt"
	"strings"

	"github.com/skep-io/skep/api"
)

// available refuses nodes that are down, paused or drained.
type available struct{}

func (available) passes(n *node) bool { return n.available }
func (available) key() string         { return "available" }

func (available) refusal(nodes int) string {
	return counted(nodes, "1 node not available for new tasks", "%d nodes not available for new tasks")
}

func (available) name() string { return "available" }

func (available) detail(n *node) string {
	if n.api.GetStatus().GetState() != api.NodeState_NODE_STATE_READY {
		return "the node is " + word(n.api.GetStatus().GetState(), "NODE_STATE_")
	}
	return "the node's availability is " + word(n.api.GetSpec().GetAvailability(), "AVAILABILITY_")
}

func (available) remedy(n *node) Remedy {
	if n.api.GetStatus().GetState() != api.NodeState_NODE_STATE_READY {
		return Remedy{Text: "bring node " + n.label() + " back", cost: costMachine}
	}
	return Remedy{
		Text: "set node " + n.label() + " active", Command: "skep node update --availability active " + n.label(), cost: costAvailability,
	}
}

// word returns an enum's value in the words of people.
func word(value fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}
