package store

import (
	"fmt"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
)

// gate keeps out of the log what a manager would not understand: it would have to stop there. A kind that is newer than some member
// is refused, and so is a manager that is older than a kind in use. Owned by the loop; the zero value is open.
type gate struct {
	proposed  uint32                 // the highest protocol of this leader's proposals
	admitting map[uint64]*api.Member // that are proposed and perhaps not members yet
}

// reset forgets the proposals of a leader that is none any more: what became of them, the state says.
func (g *gate) reset() { *g = gate{} }

// propose notes a proposal that needs a protocol, or returns an *OutdatedError when a member lacks it.
func (g *gate) propose(protocol uint32, members *members) error {
	if protocol == 0 {
		return nil
	}
	for id, m := range g.admitting {
		if members.isRemoved(id) || members.get(id).GetProtocol() == m.GetProtocol() {
			delete(g.admitting, id)
		}
	}
	all := members.list()
	for _, m := range g.admitting {
		all = append(all, m)
	}
	for _, m := range all {
		if m.GetProtocol() < protocol {
			return &OutdatedError{NodeID: m.GetNodeId(), Protocol: m.GetProtocol(), Needed: protocol}
		}
	}
	g.proposed = max(g.proposed, protocol)
	return nil
}

// admit notes a new member, or returns an *OutdatedError when it lacks what the state or a proposal needs.
func (g *gate) admit(m *api.Member, v *view) error {
	if needed := max(g.proposed, v.protocol()); m.GetProtocol() < needed {
		return &OutdatedError{NodeID: m.GetNodeId(), Protocol: m.GetProtocol(), Needed: needed}
	}
	if g.admitting == nil {
		g.admitting = map[uint64]*api.Member{}
	}
	g.admitting[m.GetRaftId()] = m
	return nil
}

// protocol is what a manager must understand to take the state over, and the changes that led to it.
func (v *view) protocol() (needed uint32) {
	for _, k := range object.Kinds() {
		if v.kindVersions[k] > 0 {
			needed = max(needed, k.Protocol())
		}
	}
	return needed
}

// protocolOf is what all members must understand before changes may be proposed.
func protocolOf(changes []*api.Change) (needed uint32) {
	for _, c := range changes {
		needed = max(needed, object.KindOf(object.Unwrap(c.GetObject())).Protocol())
	}
	return needed
}

// OutdatedError says which manager's program is too old for a change. It matches ErrOutdated.
type OutdatedError struct {
	// NodeID is the manager's.
	NodeID string
	// Protocol is what its program understands, Needed what the change needs, see api.Member.
	Protocol, Needed uint32
}

// Error names the manager and the next step.
func (e *OutdatedError) Error() string {
	return fmt.Sprintf("manager %s: %v (protocol %d, and this needs %d): upgrade skep there and try again", e.NodeID, ErrOutdated, e.Protocol, e.Needed)
}

// Is makes the error match ErrOutdated.
func (e *OutdatedError) Is(target error) bool { return target == ErrOutdated }
