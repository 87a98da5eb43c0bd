package control_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// busy makes worker1 run a task with a secret, beside a secret that no task has.
func busy(t *testing.T, s *swarm) {
	t.Helper()
	spec := &api.TaskSpec{Container: &api.ContainerSpec{
		Image: "app:1", Secrets: []*api.SecretReference{{SecretId: "s1", SecretName: "db"}},
	}}
	storetest.Create(t, s.store,
		&api.Secret{Id: "s1", Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: "db"}, Data: []byte("x")}},
		&api.Secret{Id: "s2", Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: "other"}, Data: []byte("y")}},
		&api.Task{Id: "t1", ServiceId: "web", ServiceName: "web", Slot: 1, NodeId: "worker1", Spec: spec},
	)
}

func theCluster(t *testing.T, s *swarm) *api.Cluster {
	t.Helper()
	return storetest.List[*api.Cluster](t, s.store)[0]
}

func TestCompromiseNode_ShutsAWorkerOut(t *testing.T) {
	s := newSwarm(t)
	busy(t, s)
	before := theCluster(t, s)
	planned, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "host-worker1", DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, theCluster(t, s)) || storetest.Get[*api.Node](t, s.store, "worker1").GetCompromisedAt() != nil {
		t.Error("a dry run changed something")
	}
	got, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "worker1"})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(planned, got) {
		t.Errorf("planned %v, did %v", planned, got)
	}
	if got.GetManager() || !slices.Equal(got.GetSecrets(), []string{"db"}) || !slices.Equal(got.GetTasks(), []string{"web.1"}) ||
		!slices.Equal(got.GetIdentities(), []string{"spiffe://cluster/service/web/task/1"}) {
		t.Errorf("got %v", got)
	}
	n, after := storetest.Get[*api.Node](t, s.store, "worker1"), theCluster(t, s)
	if n.GetStatus().GetState() != api.NodeState_NODE_STATE_DOWN || n.GetSpec().GetAvailability() != api.Availability_AVAILABILITY_DRAIN {
		t.Errorf("node %v", n)
	}
	if r := after.GetRevocations(); len(r) != 1 || r[0].GetNodeId() != "worker1" || r[0].GetRole() != api.Role_ROLE_UNSPECIFIED {
		t.Errorf("revoked: %v", r)
	}
	if after.GetJoinTokens().GetWorker() == before.GetJoinTokens().GetWorker() || after.GetJoinTokens().GetManager() != before.GetJoinTokens().GetManager() {
		t.Error("a worker knows the token of workers, and no other")
	}

	_, err = s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "worker1"})
	wantFault(t, err, fault.Precondition, "shut out already")
	_, err = s.UpdateNode(t.Context(), &api.UpdateNodeRequest{NodeId: "worker1", Version: n.GetMeta().GetVersion(), Spec: n.GetSpec()})
	wantFault(t, err, fault.Precondition, "let it join as another node")
	if _, err := s.RemoveNode(t.Context(), &api.RemoveNodeRequest{Node: "worker1"}); err != nil {
		t.Errorf("remove it: %v", err)
	}
}

// A manager had everything: all that can be changed by itself is, and all secrets are named. The one that leads can't do it to itself.
func TestCompromiseNode_ChangesAllThatAManagerKnew(t *testing.T) {
	s := newSwarm(t)
	busy(t, s)
	for i, id := range []string{"m1", "m2", "m3"} {
		storetest.Create(t, s.store, node(id, api.Role_ROLE_MANAGER))
		s.status.Members = append(s.status.Members, store.MemberStatus{
			Member: &api.Member{RaftId: uint64(i + 1), NodeId: id}, Reachable: true, Leader: id == "m1",
		})
	}
	s.status.NodeID = "m1"
	cluster := theCluster(t, s)
	spec := proto.CloneOf(cluster.GetSpec())
	spec.Autolock = true
	if _, err := s.UpdateCluster(t.Context(), &api.UpdateClusterRequest{Spec: spec, Version: cluster.GetMeta().GetVersion()}); err != nil {
		t.Fatal(err)
	}
	before := theCluster(t, s)
	_, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m1"})
	wantFault(t, err, fault.Precondition, "leads the swarm")
	s.status.Members[1].Reachable = false
	_, err = s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m3"})
	wantFault(t, err, fault.Precondition, "loss of quorum")
	s.status.Members[1].Reachable = true

	got, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m3"})
	if err != nil {
		t.Fatal(err)
	}
	if !got.GetManager() || !slices.Equal(got.GetSecrets(), []string{"db", "other"}) || len(got.GetChanged()) != 5 {
		t.Errorf("got %v", got)
	}
	after := theCluster(t, s)
	for what, same := range map[string]bool{
		"the token of workers":  after.GetJoinTokens().GetWorker() == before.GetJoinTokens().GetWorker(),
		"the token of managers": after.GetJoinTokens().GetManager() == before.GetJoinTokens().GetManager(),
		"the backup key":        after.GetBackupKey() == before.GetBackupKey(),
		"the unlock key":        after.GetUnlockKey() == before.GetUnlockKey(),
		"the data keys":         after.GetDataKeyGeneration() == before.GetDataKeyGeneration(),
	} {
		if same {
			t.Errorf("%s stayed", what)
		}
	}
	if n := storetest.Get[*api.Node](t, s.store, "m3"); n.GetSpec().GetDesiredRole() != api.Role_ROLE_WORKER {
		t.Errorf("it is to stay a %v", n.GetSpec().GetDesiredRole())
	}
}

// It knows the token that it came by, too, which may be good for more nodes.
func TestCompromiseNode_RevokesTheGrantItCameBy(t *testing.T) {
	s := newSwarm(t)
	waiting := s.waitingNode(t, "n1")
	_, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "n1"})
	wantFault(t, err, fault.Precondition, "`skep node deny n1`")
	grant := &api.JoinGrant{Id: "grant", Spec: &api.JoinGrantSpec{MaxUses: 9}, Uses: []*api.JoinGrantUse{{NodeId: "worker1"}}}
	storetest.Create(t, s.store, grant)
	got, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "worker1"})
	if err != nil || !slices.Contains(got.GetChanged(), "the join token grant that it came by, which is revoked") {
		t.Errorf("%v, %v", got, err)
	}
	if left := storetest.List[*api.JoinGrant](t, s.store); len(left) != 1 || left[0].GetId() != waiting.GetId() {
		t.Errorf("grants %v", left)
	}
}
