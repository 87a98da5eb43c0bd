package control_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/storetest"
)

func (s *swarm) createJoinGrant(t *testing.T, spec *api.JoinGrantSpec) (*api.JoinGrant, token.Token) {
	t.Helper()
	response, err := s.CreateJoinGrant(t.Context(), &api.CreateJoinGrantRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := token.Parse(response.GetToken())
	if err != nil {
		t.Fatal(err)
	}
	return response.GetGrant(), secret
}

// waitingNode puts a node into the store that came by a grant and waits for approval.
func (s *swarm) waitingNode(t *testing.T, id string) *api.JoinGrant {
	t.Helper()
	grant := &api.JoinGrant{
		Id: "grant-" + id, Spec: &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 1, RequireApproval: true},
		Uses: []*api.JoinGrantUse{{NodeId: id, KeyFingerprint: "SHA256:" + id}},
	}
	n := node(id, api.Role_ROLE_WORKER)
	n.Status.State = api.NodeState_NODE_STATE_UNKNOWN
	n.Approval = &api.Approval{State: api.ApprovalState_APPROVAL_STATE_PENDING, KeyFingerprint: "SHA256:" + id, GrantId: grant.GetId()}
	storetest.Create(t, s.store, grant, n)
	return grant
}

func TestCreateJoinGrant_ShowsItsSecretOnceAndKeepsAHash(t *testing.T) {
	s := newSwarm(t)
	before := time.Now()
	grant, secret := s.createJoinGrant(t, &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER})
	if d := grant.GetExpiresAt().AsTime().Sub(before); grant.GetSpec().GetMaxUses() != 1 || d < 30*time.Minute || d > 31*time.Minute {
		t.Errorf("defaults: %v", grant)
	}
	stored := storetest.Get[*api.JoinGrant](t, s.store, grant.GetId())
	if !secret.SecretHash().Equal(stored.GetSecretHash()) || stored.GetId() != secret.SecretHash().GrantID() {
		t.Error("the stored grant is not found by its token")
	}
	if secret.Digest() != (token.Digest{1}) {
		t.Error("the token pins another root")
	}
	text, err := protojson.Marshal(stored)
	if err != nil || strings.Contains(string(text), secret.Reveal()[60:]) {
		t.Errorf("the store holds the secret: %v", err)
	}
	list, err := s.ListJoinGrants(t.Context(), &api.ListJoinGrantsRequest{})
	if err != nil || len(list.GetGrants()) != 1 || grant.GetSecretHash() != nil || list.GetGrants()[0].GetSecretHash() != nil {
		t.Errorf("%v, %v: want one grant, and no hash in any answer", list, err)
	}
}

func TestCreateJoinGrant_ARepetitionReplacesWhatNobodyHasSeen(t *testing.T) {
	s := newSwarm(t)
	request := &api.CreateJoinGrantRequest{Spec: &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER}}
	first, err := s.CreateJoinGrant(withRequestID(t, "1"), request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.CreateJoinGrant(withRequestID(t, "1"), request)
	if err != nil || again.GetToken() == first.GetToken() {
		t.Fatalf("repetition: %v", err)
	}
	grants := storetest.List[*api.JoinGrant](t, s.store)
	if len(grants) != 1 || grants[0].GetId() != again.GetGrant().GetId() {
		t.Errorf("grants %v, want the second alone", grants)
	}
}

func TestCreateJoinGrant_ReportsAllProblems(t *testing.T) {
	s := newSwarm(t)
	_, err := s.CreateJoinGrant(t.Context(), &api.CreateJoinGrantRequest{Spec: &api.JoinGrantSpec{
		Ttl: durationpb.New(time.Millisecond), MaxUses: 1001, NodeName: "n7", From: "10.1.2.3/8", NodeLabels: map[string]string{" ": ""},
	}})
	for _, text := range []string{"role: must be", "ttl: must be 1s to 2160h", "max_uses: at most 1000", "node_name: one name is for one node", "from: must be a CIDR", "empty key"} {
		wantFault(t, err, fault.Invalid, text)
	}
	for what, spec := range map[string]*api.JoinGrantSpec{
		"from: must be":      {Role: api.Role_ROLE_WORKER, From: "10.0.0.1"},
		"node_name: must be": {Role: api.Role_ROLE_WORKER, NodeName: "a b"},
		"is missing":         nil,
	} {
		_, err := s.CreateJoinGrant(t.Context(), &api.CreateJoinGrantRequest{Spec: spec})
		wantFault(t, err, fault.Invalid, what)
	}
}

func TestRemoveJoinGrant_TakesThoseWhoWaitWithIt(t *testing.T) {
	s := newSwarm(t)
	grant := s.waitingNode(t, "n1")
	joined, _ := s.createJoinGrant(t, &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER})
	if _, err := s.RemoveJoinGrant(t.Context(), &api.RemoveJoinGrantRequest{JoinGrant: "grant"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetNode(t.Context(), &api.GetNodeRequest{Node: "n1"}); err == nil {
		t.Error("a node goes on waiting with a grant that was revoked")
	}
	_, err := s.RemoveJoinGrant(t.Context(), &api.RemoveJoinGrantRequest{JoinGrant: grant.GetId()})
	wantFault(t, err, fault.NotFound, "join grant "+grant.GetId()+" not found")
	if grants := storetest.List[*api.JoinGrant](t, s.store); len(grants) != 1 || grants[0].GetId() != joined.GetId() {
		t.Errorf("grants %v", grants)
	}
}

func TestApproveNode_LetsInWhoWaits(t *testing.T) {
	s := newSwarm(t)
	s.waitingNode(t, "n1")
	_, err := s.ApproveNode(t.Context(), &api.ApproveNodeRequest{Node: "n1", KeyFingerprint: "SHA256:other"})
	wantFault(t, err, fault.Precondition, "the key of node n1 is another one: SHA256:n1")
	for range 2 { // the second does nothing
		got, err := s.ApproveNode(withRequestID(t, "1"), &api.ApproveNodeRequest{Node: "host-n1", KeyFingerprint: "SHA256:n1"})
		if err != nil || got.GetNode().GetApproval().GetKeyFingerprint() != "SHA256:n1" {
			t.Fatalf("%v, %v", got, err)
		}
	}
	if state := storetest.Get[*api.Node](t, s.store, "n1").GetApproval().GetState(); state != api.ApprovalState_APPROVAL_STATE_APPROVED {
		t.Errorf("state %v", state)
	}
	_, err = s.DenyNode(t.Context(), &api.DenyNodeRequest{Node: "n1"})
	wantFault(t, err, fault.Precondition, "is in the swarm already: `skep node rm --force n1`")
	_, err = s.ApproveNode(t.Context(), &api.ApproveNodeRequest{Node: "worker1"})
	wantFault(t, err, fault.Precondition, "did not wait for approval")
}

func TestDenyNode_RemovesItAndRemembers(t *testing.T) {
	s := newSwarm(t)
	grant := s.waitingNode(t, "n1")
	got, err := s.DenyNode(t.Context(), &api.DenyNodeRequest{Node: "n1"})
	if err != nil || got.GetNode().GetApproval().GetKeyFingerprint() != "SHA256:n1" {
		t.Fatalf("%v, %v", got, err)
	}
	if nodes := storetest.List[*api.Node](t, s.store); slices.ContainsFunc(nodes, func(n *api.Node) bool { return n.GetId() == "n1" }) {
		t.Error("a denied node is still there")
	}
	if uses := storetest.Get[*api.JoinGrant](t, s.store, grant.GetId()).GetUses(); len(uses) != 1 || !uses[0].GetDenied() {
		t.Errorf("uses %v", uses)
	}
}

func TestWaitingNode_CanOnlyBeDecidedAbout(t *testing.T) {
	s := newSwarm(t)
	s.waitingNode(t, "n1")
	_, err := s.UpdateNode(t.Context(), &api.UpdateNodeRequest{NodeId: "n1", Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_MANAGER}})
	wantFault(t, err, fault.Precondition, "node n1 waits for approval: `skep node approve n1`")
	_, err = s.RemoveNode(t.Context(), &api.RemoveNodeRequest{Node: "n1", Force: true})
	wantFault(t, err, fault.Precondition, "`skep node deny n1` removes it")
}

func TestWaitingNode_TakesNoTasks(t *testing.T) {
	s := newSwarm(t)
	s.waitingNode(t, "n1")
	response, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(func(spec *api.ServiceSpec) {
		spec.Task.Placement = &api.Placement{Constraints: []string{"node.hostname==host-n1"}}
	})})
	if err != nil || len(response.GetWarnings()) != 1 || !strings.Contains(response.GetWarnings()[0], "no node satisfies the constraints") {
		t.Errorf("%v, %v", response.GetWarnings(), err)
	}
}
