package rootrotation

import (
	"cmp"
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
)

const (
	// maxAsked is the number of nodes that renew at the same time: enough to keep a leader busy, few enough that other requests get
	// through, and that a failure of the new root is seen before it is everywhere.
	maxAsked = 50
	// askAgain is how long a node that was asked holds one of these places. It is asked again when there is one to spare.
	askAgain = 30 * time.Second
)

// State is what a decision is made of.
type State struct {
	// Root is nil while there is no cluster.
	Root  *api.RootCA
	Nodes []*api.Node
}

// Decision is what to do now.
type Decision struct {
	// Ask are the nodes to ask for a renewal, in order.
	Ask []string
	// Finish says that every node is done.
	Finish bool
	// Wake is after what time to decide again although nothing has changed; 0 is never.
	Wake time.Duration
}

// Step decides. It returns an error when the root to be can't be read.
func Step(now time.Time, s State) (Decision, error) {
	if s.Root.GetRotation() == nil {
		return Decision{}, nil
	}
	target, err := ca.TargetOf(s.Root)
	if err != nil {
		return Decision{}, err
	}
	var d Decision
	var waiting []*api.Node // that can be asked
	places, all := maxAsked, true
	for _, n := range s.Nodes {
		switch left := heldFor(now, s.Root.GetRotation(), n); {
		case !ca.Certified(n), target.Done(n):
			continue
		case n.GetStatus().GetState() != api.NodeState_NODE_STATE_READY: // R1
		case left > 0:
			places--
			d.Wake = minSet(d.Wake, left)
		default:
			waiting = append(waiting, n)
		}
		all = false
	}
	d.Finish = all
	d.Ask = first(waiting, places, s.Root.GetRotation().GetId())
	if len(d.Ask) > 0 {
		d.Wake = minSet(d.Wake, askAgain)
	}
	return d, nil
}

// heldFor returns how much longer a node that was asked holds its place.
func heldFor(now time.Time, r *api.RootRotation, n *api.Node) time.Duration {
	if n.GetRenewal().GetRotationId() != r.GetId() {
		return 0
	}
	left := n.GetRenewal().GetAskedAt().AsTime().Add(askAgain).Sub(now)
	if left > askAgain {
		return 0 // by a clock that was ahead
	}
	return max(left, 0)
}

// first returns the ids of those who get the places (R2): those who were not asked yet, then those who were asked longest ago.
func first(waiting []*api.Node, places int, rotation string) []string {
	asked := func(n *api.Node) time.Time {
		if n.GetRenewal().GetRotationId() != rotation {
			return time.Time{}
		}
		return n.GetRenewal().GetAskedAt().AsTime()
	}
	slices.SortFunc(waiting, func(a, b *api.Node) int {
		return cmp.Or(asked(a).Compare(asked(b)), cmp.Compare(a.GetId(), b.GetId()))
	})
	var ids []string
	for _, n := range waiting[:max(min(places, len(waiting)), 0)] {
		ids = append(ids, n.GetId())
	}
	return ids
}

// minSet returns the smaller of two times, of which 0 is none.
func minSet(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}
