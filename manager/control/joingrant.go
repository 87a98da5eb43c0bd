package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// Limits of join grants.
const (
	// defaultGrantTTL is enough to start a machine, and short for a secret that lay about.
	defaultGrantTTL = 30 * time.Minute
	// maxGrantTTL is the default life of a node certificate: a token that lives longer is a standing one.
	maxGrantTTL = 90 * 24 * time.Hour
	// maxGrantUses bounds the size of a grant, which remembers each use.
	maxGrantUses = 1000
	// maxGrants bounds those that are kept at a time.
	maxGrants = 1000
	// maxNodeName is the longest DNS label, as for services.
	maxNodeName = maxServiceName
)

// withoutHash returns a copy of a grant that may leave the managers (C1).
func withoutHash(grant *api.JoinGrant) *api.JoinGrant {
	grant = proto.CloneOf(grant)
	grant.SecretHash = nil
	return grant
}

// fillJoinGrant enters the defaults.
func fillJoinGrant(spec *api.JoinGrantSpec) {
	if spec.GetTtl() == nil {
		spec.Ttl = durationpb.New(defaultGrantTTL)
	}
	if spec.GetMaxUses() == 0 {
		spec.MaxUses = 1
	}
}

// validateJoinGrant reports all problems of a grant's spec.
func validateJoinGrant(spec *api.JoinGrantSpec) error {
	p := new(problems)
	p.knownFields(spec)
	if role := spec.GetRole(); role != api.Role_ROLE_WORKER && role != api.Role_ROLE_MANAGER {
		p.add("role", "must be worker or manager")
	}
	p.duration("ttl", spec.GetTtl())
	if ttl := spec.GetTtl(); ttl.IsValid() && (ttl.AsDuration() < time.Second || ttl.AsDuration() > maxGrantTTL) {
		p.add("ttl", "must be 1s to %s, got %s", maxGrantTTL, ttl.AsDuration())
	}
	if n := spec.GetMaxUses(); n > maxGrantUses {
		p.add("max_uses", "at most %d nodes join by one grant, got %d: make several, or use a standing token", maxGrantUses, n)
	}
	switch name := spec.GetNodeName(); {
	case name == "":
	case spec.GetMaxUses() > 1:
		p.add("node_name", "one name is for one node, but the grant is for %d", spec.GetMaxUses())
	case len(name) > maxNodeName || !serviceNamePattern.MatchString(name):
		p.add("node_name", "must be a DNS label of at most %d characters, got %q", maxNodeName, clip(name))
	}
	if from := spec.GetFrom(); from != "" {
		if prefix, err := netip.ParsePrefix(from); err != nil || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
			p.add("from", "must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32, without host bits, got %q", clip(from))
		}
	}
	p.labels("node_labels", spec.GetNodeLabels())
	return p.err()
}

// CreateJoinGrant makes a join grant. Nobody can make its token again: a repetition of the call, whose answer may have been lost,
// revokes the grant of the first time and makes another one (C2).
func (s *Server) CreateJoinGrant(ctx context.Context, request *api.CreateJoinGrantRequest) (*api.CreateJoinGrantResponse, error) {
	id, err := requestID(ctx, "CreateJoinGrant")
	if err != nil {
		return nil, err
	}
	if request.GetSpec() == nil {
		return nil, fault.New(fault.Invalid, "spec: the grant's spec is missing")
	}
	spec := proto.CloneOf(request.GetSpec())
	fillJoinGrant(spec)
	if err := validateJoinGrant(spec); err != nil {
		return nil, err
	}
	made, secret, err := s.makeGrant(ctx, id, spec, "")
	if earlier := (*store.DuplicateError)(nil); errors.As(err, &earlier) && len(earlier.Created) == 1 {
		made, secret, err = s.makeGrant(ctx, "", spec, earlier.Created[0].ID)
	}
	if err != nil {
		return nil, storeFault(err)
	}
	return &api.CreateJoinGrantResponse{Token: secret.Reveal(), Grant: withoutHash(made), ManagerAddress: s.joinAddress()}, nil
}

// makeGrant stores a grant with a fresh secret, in place of the one with the id instead, if there is one and nobody used it.
func (s *Server) makeGrant(ctx context.Context, requestID string, spec *api.JoinGrantSpec, instead string) (*api.JoinGrant, token.Token, error) {
	var (
		made   *api.JoinGrant
		secret token.Token
	)
	err := s.Store.Update(ctx, requestID, func(tx store.Tx) error {
		cluster, err := theCluster(tx)
		if err != nil {
			return err
		}
		present, err := token.Parse(cluster.GetJoinTokens().GetWorker())
		if err != nil {
			return err
		}
		if err := discardGrant(tx, instead); err != nil {
			return err
		}
		grants, err := store.List[*api.JoinGrant](tx)
		if err != nil {
			return err
		}
		if len(grants) >= maxGrants {
			return fault.New(fault.Exhausted, "there are %d join grants, the most that are kept: revoke some with `skep swarm join-token revoke`", len(grants))
		}
		secret = token.New(present.Digest())
		made = newGrant(time.Now(), spec, secret.SecretHash())
		return tx.Create(proto.CloneOf(made))
	})
	return made, secret, err
}

func newGrant(now time.Time, spec *api.JoinGrantSpec, hash [sha256.Size]byte) *api.JoinGrant {
	return &api.JoinGrant{
		Id: token.SecretHash(hash).GrantID(), Spec: proto.CloneOf(spec), SecretHash: hash[:],
		ExpiresAt: timestamppb.New(now.Add(spec.GetTtl().AsDuration())),
	}
}

// discardGrant removes a grant that nobody has used.
func discardGrant(tx store.Tx, id string) error {
	if id == "" {
		return nil
	}
	grant, err := store.Get[*api.JoinGrant](tx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case len(grant.GetUses()) > 0: // the answer did arrive
		return fault.New(fault.AlreadyExists, "the join grant %s was made by this request and is in use", id)
	}
	return tx.Delete(object.KindJoinGrant, id)
}

// ListJoinGrants returns all grants.
func (s *Server) ListJoinGrants(ctx context.Context, _ *api.ListJoinGrantsRequest) (*api.ListJoinGrantsResponse, error) {
	response := new(api.ListJoinGrantsResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		grants, err := store.List[*api.JoinGrant](tx)
		for _, grant := range grants {
			response.Grants = append(response.Grants, withoutHash(grant))
		}
		return err
	})
}

// RemoveJoinGrant revokes a grant. Nodes that wait with it can't come in any more, so they go too.
func (s *Server) RemoveJoinGrant(ctx context.Context, request *api.RemoveJoinGrantRequest) (*api.RemoveJoinGrantResponse, error) {
	id, err := requestID(ctx, "RemoveJoinGrant")
	if err != nil {
		return nil, err
	}
	response := &api.RemoveJoinGrantResponse{JoinGrantId: request.GetJoinGrant()}
	return response, s.update(ctx, id, func(tx store.Tx) error {
		grant, err := resolve[*api.JoinGrant](tx, request.GetJoinGrant())
		if err != nil {
			return err
		}
		response.JoinGrantId = grant.GetId()
		return revokeGrant(tx, grant)
	})
}

// revokeGrant removes a grant, and the nodes that wait with it.
func revokeGrant(tx store.Tx, grant *api.JoinGrant) error {
	for _, use := range grant.GetUses() {
		node, err := store.Get[*api.Node](tx, use.GetNodeId())
		if errors.Is(err, store.ErrNotFound) || err == nil && !waits(node) {
			continue
		}
		if err != nil {
			return err
		}
		if err := tx.Delete(object.KindNode, node.GetId()); err != nil {
			return err
		}
	}
	return tx.Delete(object.KindJoinGrant, grant.GetId())
}

// grantOf returns the grant that a node came by, or nil when it came by a standing token or its grant is gone.
func grantOf(tx store.ReadTx, nodeID string) (*api.JoinGrant, error) {
	all, err := store.All[*api.JoinGrant](tx)
	if err != nil {
		return nil, err
	}
	for grant := range all {
		if slices.ContainsFunc(grant.GetUses(), func(u *api.JoinGrantUse) bool { return u.GetNodeId() == nodeID }) {
			return grant, nil
		}
	}
	return nil, nil
}
