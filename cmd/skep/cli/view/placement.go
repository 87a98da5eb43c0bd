package view

import (
	"cmp"
	"fmt"

	"github.com/skep-io/skep/api"
)

// Placing says of each node whether it would take one task. Docker has none.
type Placing struct {
	ServiceID   string
	ServiceName string
	// TaskID is empty when it is about one more task of the service, and NodeID for a task that waits.
	TaskID string `json:",omitempty"`
	Slot   uint64 `json:",omitempty"`
	NodeID string `json:",omitempty"`
	// Waiting is how many tasks of the service wait for a node.
	Waiting uint32
	// Nodes that would take the task come first.
	Nodes        []NodeVerdict
	NodesLeftOut uint32 `json:",omitempty"`
	// Changes are the smallest after which a node would take it; none when one would, or none is known.
	Changes []PlacementChange `json:",omitempty"`
	// Failures are slots that lack a running task because theirs ended.
	Failures        []SlotFailure `json:",omitempty"`
	FailuresLeftOut uint32        `json:",omitempty"`
	host            string
}

// SlotFailure is a slot whose last task ended by itself.
type SlotFailure struct {
	Slot   uint64
	TaskID string
	NodeID string
	// Error is empty for a task that ended well.
	Error string `json:",omitempty"`
	// Ended is how many tasks did in this slot, of those that history keeps.
	Ended uint32
	// GivenUp says that nothing follows.
	GivenUp bool
	host    string
}

// NodeVerdict is what the scheduler thinks of a node: either refusals or scores.
type NodeVerdict struct {
	NodeID   string
	Hostname string
	Refusals []NodeRefusal `json:",omitempty"`
	Scores   []NodeScore   `json:",omitempty"`
}

// NodeRefusal is one filter's.
type NodeRefusal struct {
	Filter string
	Reason string
	Change *PlacementChange `json:",omitempty"`
}

// NodeScore is one scorer's: less is better.
type NodeScore struct {
	Name  string
	Value int64
}

// PlacementChange is something that a person can do.
type PlacementChange struct {
	Text    string
	Command string `json:",omitempty"`
}

// NewPlacings converts placings.
func NewPlacings(placings []*api.Placing) []Placing {
	out := make([]Placing, 0, len(placings))
	for _, p := range placings {
		v := Placing{
			ServiceID: p.GetServiceId(), ServiceName: p.GetServiceName(), TaskID: p.GetTaskId(), Slot: p.GetSlot(), NodeID: p.GetNodeId(),
			Waiting: p.GetWaiting(), NodesLeftOut: p.GetNodesLeftOut(), Nodes: []NodeVerdict{},
		}
		hosts := map[string]string{}
		for _, n := range p.GetNodes() {
			v.Nodes = append(v.Nodes, verdict(n))
			hosts[n.GetNodeId()] = n.GetHostname()
		}
		v.host = hosts[p.GetNodeId()]
		for _, c := range p.GetChanges() {
			v.Changes = append(v.Changes, PlacementChange{c.GetText(), c.GetCommand()})
		}
		for _, f := range p.GetFailures() {
			v.Failures = append(v.Failures, SlotFailure{
				Slot: f.GetSlot(), TaskID: f.GetTaskId(), NodeID: f.GetNodeId(), Error: f.GetError(), Ended: f.GetEnded(), GivenUp: f.GetGivenUp(),
				host: hosts[f.GetNodeId()],
			})
		}
		v.FailuresLeftOut = p.GetFailuresLeftOut()
		out = append(out, v)
	}
	return out
}

func verdict(n *api.NodeVerdict) NodeVerdict {
	out := NodeVerdict{NodeID: n.GetNodeId(), Hostname: n.GetHostname()}
	for _, r := range n.GetRefusals() {
		refusal := NodeRefusal{Filter: r.GetFilter(), Reason: r.GetReason()}
		if c := r.GetChange(); c != nil {
			refusal.Change = &PlacementChange{c.GetText(), c.GetCommand()}
		}
		out.Refusals = append(out.Refusals, refusal)
	}
	for _, s := range n.GetScores() {
		out.Scores = append(out.Scores, NodeScore{s.GetName(), s.GetValue()})
	}
	return out
}

// Title says in a line what it is about.
func (p Placing) Title() string {
	switch {
	case p.NodeID != "":
		return fmt.Sprintf("%s is on node %s. Where it could be:", TaskName(p.ServiceName, p.Slot), cmp.Or(p.host, p.NodeID))
	case p.TaskID == "":
		return p.ServiceName + ": no task waits for a node. Where one more would go:"
	case p.Waiting == 1:
		return fmt.Sprintf("%s: 1 task waits for a node.", p.ServiceName)
	default:
		return fmt.Sprintf("%s: %d tasks wait for a node.", p.ServiceName, p.Waiting)
	}
}

// FailureTexts says of each slot that lacks a task why, a line each.
func (p Placing) FailureTexts() (lines []string) {
	for _, f := range p.Failures {
		times := "once"
		if f.Ended > 1 {
			times = fmt.Sprintf("%d times", f.Ended)
		}
		next := "The next one waits for its restart delay."
		if f.GivenUp {
			next = "Nothing follows: the restart policy allows no more."
		}
		lines = append(lines, fmt.Sprintf("%s ended %s, last on %s: %s. %s",
			TaskName(p.ServiceName, f.Slot), times, cmp.Or(f.host, f.NodeID), cmp.Or(f.Error, "exit code 0"), next))
	}
	if p.FailuresLeftOut > 0 {
		lines = append(lines, fmt.Sprintf("… and %d slots more", p.FailuresLeftOut))
	}
	return lines
}
