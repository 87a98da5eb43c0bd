package ca

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

// Claim is what an applicant gets by a join grant.
type Claim struct {
	// NodeID of the applicant.
	NodeID string
	// Grant with the use entered, or nil when the applicant used it before: then the node is recorded already.
	Grant *api.JoinGrant
}

// ClaimGrant decides what a join grant gives an applicant, who knows its secret. A new node gets freshID. The same key is one use
// however often it asks, also when the grant has ended meanwhile. It returns ErrGrantAddress, ErrDenied, ErrGrantExpired,
// ErrGrantUsed or ErrCannotWait. It changes nothing that it was given.
func ClaimGrant(g *api.JoinGrant, now time.Time, n NewNode, freshID string) (Claim, error) {
	if !allowsAddress(g.GetSpec().GetFrom(), n.Address) {
		return Claim{}, fmt.Errorf("%w: it allows %s, and the call came from %s", ErrGrantAddress, g.GetSpec().GetFrom(), n.Address)
	}
	taken := uint32(0)
	for _, use := range g.GetUses() {
		if use.GetKeyFingerprint() == n.KeyFingerprint {
			if use.GetDenied() {
				return Claim{}, ErrDenied
			}
			return Claim{NodeID: use.GetNodeId()}, nil
		}
		if !use.GetDenied() { // a stranger who was denied must not keep the right machine out
			taken++
		}
	}
	switch {
	case GrantExpired(g, now):
		return Claim{}, ErrGrantExpired
	case taken >= g.GetSpec().GetMaxUses():
		return Claim{}, ErrGrantUsed
	case g.GetSpec().GetRequireApproval() && !n.CanWait:
		return Claim{}, ErrCannotWait
	}
	g = proto.CloneOf(g)
	use := &api.JoinGrantUse{KeyFingerprint: n.KeyFingerprint, NodeId: freshID, UsedAt: timestamppb.New(now)}
	if n.Address.IsValid() {
		use.Address = n.Address.String()
	}
	g.Uses = append(g.Uses, use)
	return Claim{NodeID: freshID, Grant: g}, nil
}

// GrantExpired reports whether a join grant takes no new nodes any more, used up or not.
func GrantExpired(g *api.JoinGrant, now time.Time) bool {
	return !now.Before(g.GetExpiresAt().AsTime())
}

// DenyUse returns a copy of a grant that remembers that a node which came by it was denied.
func DenyUse(g *api.JoinGrant, nodeID string) *api.JoinGrant {
	g = proto.CloneOf(g)
	if i := slices.IndexFunc(g.GetUses(), func(u *api.JoinGrantUse) bool { return u.GetNodeId() == nodeID }); i >= 0 {
		g.Uses[i].Denied = true
	}
	return g
}

// allowsAddress reports whether an address is within a CIDR; "" is any. What can't be read allows nothing.
func allowsAddress(cidr string, address netip.Addr) bool {
	if cidr == "" {
		return true
	}
	prefix, err := netip.ParsePrefix(cidr)
	return err == nil && prefix.Contains(address.Unmap().WithZone(""))
}
