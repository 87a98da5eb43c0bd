package cli_test

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// waitingToken is that of a grant which needs approval.
const waitingToken = "SKPTKN-1-digest-waiting"

const fingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

func (f *fake) CreateJoinGrant(_ context.Context, r *api.CreateJoinGrantRequest) (*api.CreateJoinGrantResponse, error) {
	out := &api.CreateJoinGrantResponse{Token: "SKPTKN-1-digest-grant", ManagerAddress: managerAddr}
	return out, f.change(func() error {
		out.Grant = &api.JoinGrant{
			Id: f.id("grant"), Meta: f.meta(), Spec: r.GetSpec(), ExpiresAt: timestamppb.New(now().Add(r.GetSpec().GetTtl().AsDuration())),
		}
		f.grants = append(f.grants, out.Grant)
		return f.ready()
	})
}

func (f *fake) ListJoinGrants(context.Context, *api.ListJoinGrantsRequest) (*api.ListJoinGrantsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.ListJoinGrantsResponse{Grants: f.grants}, f.ready()
}

func (f *fake) RemoveJoinGrant(_ context.Context, r *api.RemoveJoinGrantRequest) (*api.RemoveJoinGrantResponse, error) {
	return &api.RemoveJoinGrantResponse{JoinGrantId: r.GetJoinGrant()}, f.change(func() error {
		before := len(f.grants)
		f.grants = slices.DeleteFunc(f.grants, func(g *api.JoinGrant) bool { return g.GetId() == r.GetJoinGrant() })
		if len(f.grants) == before {
			return fault.New(fault.NotFound, "join grant %s not found", r.GetJoinGrant())
		}
		return nil
	})
}

func grantNamed(g *api.Grant) string { return g.GetSpec().GetAnnotations().GetName() }

func (f *fake) CreateGrant(_ context.Context, r *api.CreateGrantRequest) (*api.CreateGrantResponse, error) {
	out := &api.CreateGrantResponse{}
	return out, f.change(func() error {
		out.Grant = &api.Grant{Id: f.id("grant"), Meta: f.meta(), Spec: r.GetSpec()}
		f.granted[out.Grant.GetId()] = out.GetGrant()
		return f.ready()
	})
}

// UpdateGrant says that every service has it.
func (f *fake) UpdateGrant(_ context.Context, r *api.UpdateGrantRequest) (*api.UpdateGrantResponse, error) {
	out := &api.UpdateGrantResponse{}
	return out, f.change(func() error {
		grant := f.granted[r.GetGrantId()]
		if r.GetVersion() != grant.GetMeta().GetVersion() {
			return fault.New(fault.Conflict, "update out of sequence")
		}
		grant.Spec, out.Grant = r.GetSpec(), grant
		for _, s := range f.services {
			out.Services = append(out.Services, s.GetSpec().GetAnnotations().GetName())
		}
		return nil
	})
}

func (f *fake) GetGrant(_ context.Context, r *api.GetGrantRequest) (*api.GetGrantResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	grant, err := lookUp("grant", f.granted, grantNamed, r.GetGrant())
	return &api.GetGrantResponse{Grant: grant}, err
}

func (f *fake) ListGrants(context.Context, *api.ListGrantsRequest) (*api.ListGrantsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.ListGrantsResponse{Grants: slices.Collect(maps.Values(f.granted))}, f.ready()
}

func (f *fake) RemoveGrant(_ context.Context, r *api.RemoveGrantRequest) (*api.RemoveGrantResponse, error) {
	out := &api.RemoveGrantResponse{}
	return out, f.change(func() error {
		grant, err := lookUp("grant", f.granted, grantNamed, r.GetGrant())
		if err == nil {
			out.GrantId = grant.GetId()
			delete(f.granted, grant.GetId())
		}
		return err
	})
}

// addWaiting makes a node that waits for approval.
func (f *fake) addWaiting(id, hostname string) {
	f.addNode(id, hostname, api.Role_ROLE_WORKER)
	f.nodes[id].Status.State = api.NodeState_NODE_STATE_UNKNOWN
	f.nodes[id].Approval = &api.Approval{State: api.ApprovalState_APPROVAL_STATE_PENDING, KeyFingerprint: fingerprint}
}

func (f *fake) ApproveNode(_ context.Context, r *api.ApproveNodeRequest) (*api.ApproveNodeResponse, error) {
	out := &api.ApproveNodeResponse{}
	return out, f.change(func() error {
		if r.GetKeyFingerprint() != "" && r.GetKeyFingerprint() != fingerprint {
			return fault.New(fault.Precondition, "the key of node %s is another one: %s", r.GetNode(), fingerprint)
		}
		out.Node = proto.CloneOf(f.nodes[r.GetNode()])
		out.Node.Approval.State = api.ApprovalState_APPROVAL_STATE_APPROVED
		f.nodes[r.GetNode()] = out.Node
		return nil
	})
}

func (f *fake) DenyNode(_ context.Context, r *api.DenyNodeRequest) (*api.DenyNodeResponse, error) {
	out := &api.DenyNodeResponse{}
	return out, f.change(func() error {
		if out.Node = f.nodes[r.GetNode()]; out.Node == nil {
			return fault.New(fault.NotFound, "no such node: %s", r.GetNode())
		}
		delete(f.nodes, r.GetNode())
		return nil
	})
}

// wait answers the join of a machine that is let in when it has asked so often. Meanwhile the managers are away for a while.
func (f *fake) wait(out *api.JoinSwarmResponse) error {
	f.approveAfter--
	switch {
	case f.approveAfter > 5:
		out.NodeId, out.Pending, out.KeyFingerprint = "node9", true, fingerprint
	case f.approveAfter > 0: // each is repeated once
		return fault.New(fault.Unavailable, "the swarm has no leader")
	default:
		out.Role = api.Role_ROLE_WORKER
	}
	return nil
}
