package view

import (
	"time"

	"github.com/skep-io/skep/api"
)

// JoinGrant is a join token that ends by itself, without the token.
type JoinGrant struct {
	Meta
	Role            string
	ExpiresAt       time.Time
	MaxUses         uint32
	NodeName        string `json:",omitempty"`
	From            string `json:",omitempty"`
	NodeLabels      map[string]string
	RequireApproval bool
	Uses            []JoinGrantUse
}

// JoinGrantUse is a node that joined, or was denied.
type JoinGrantUse struct {
	NodeID         string
	KeyFingerprint string
	Address        string `json:",omitempty"`
	UsedAt         time.Time
	Denied         bool `json:",omitempty"`
}

// NewJoinGrant shows a join grant. The hash of its secret, if the message had it, is not taken over.
func NewJoinGrant(g *api.JoinGrant) JoinGrant {
	spec := g.GetSpec()
	out := JoinGrant{
		Meta: metaOf(g.GetId(), g.GetMeta()), Role: Role(spec.GetRole()), ExpiresAt: timeOf(g.GetExpiresAt()), MaxUses: spec.GetMaxUses(),
		NodeName: spec.GetNodeName(), From: spec.GetFrom(), NodeLabels: labelsOf(spec.GetNodeLabels()),
		RequireApproval: spec.GetRequireApproval(), Uses: []JoinGrantUse{},
	}
	for _, u := range g.GetUses() {
		out.Uses = append(out.Uses, JoinGrantUse{
			NodeID: u.GetNodeId(), KeyFingerprint: u.GetKeyFingerprint(), Address: u.GetAddress(), UsedAt: timeOf(u.GetUsedAt()), Denied: u.GetDenied(),
		})
	}
	return out
}

// Used returns the number of uses that count: those that were denied don't.
func (g JoinGrant) Used() (n int) {
	for _, u := range g.Uses {
		if !u.Denied {
			n++
		}
	}
	return n
}
