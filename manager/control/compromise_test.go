package control_test

import (
	"slices"
	"strings"
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
	if !proto.Equal(before, theCluster(t, s)) || storetest.Get[*api.Node](t, s.store, "worker1").GetCompromise() != nil {
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

// managed is a rooted swarm with three managers, of which m1 leads, and autolock.
func managed(t *testing.T) *swarm {
	t.Helper()
	s, _ := newRootedSwarm(t)
	busy(t, s)
	root := theCluster(t, s).GetRootCa()
	for i, id := range []string{"m1", "m2", "m3"} {
		storetest.Create(t, s.store, node(id, api.Role_ROLE_MANAGER))
		s.say(t, id, &api.RootCA{Certificate: root.GetCertificate()})
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
	return s
}

// replaced reports what of a manager's knowledge is another one now.
func replaced(before, after *api.Cluster) (what []string) {
	for _, row := range []struct {
		name    string
		changed bool
	}{
		{"worker token", after.GetJoinTokens().GetWorker() != before.GetJoinTokens().GetWorker()},
		{"manager token", after.GetJoinTokens().GetManager() != before.GetJoinTokens().GetManager()},
		{"backup key", after.GetBackupKey() != before.GetBackupKey()},
		{"unlock key", after.GetUnlockKey() != before.GetUnlockKey()},
		{"data keys", after.GetDataKeyGeneration() != before.GetDataKeyGeneration()},
		{"root", after.GetRootCa().GetRotation() != nil},
	} {
		if row.changed {
			what = append(what, row.name)
		}
	}
	return what
}

// A manager had everything. It gets the log until it is out of the group, so what is new is written after that, and if need be by a
// second try.
func TestCompromiseNode_ReplacesAllThatAManagerKnewOnceItGetsNoMore(t *testing.T) {
	s := managed(t)
	before := theCluster(t, s)
	planned, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m3", DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	s.removeMember = func(uint64) error { return store.ErrQuorum }
	_, err = s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m3"})
	wantFault(t, err, fault.Precondition, "run the command again then")
	if n := storetest.Get[*api.Node](t, s.store, "m3"); n.GetCompromise() == nil || n.GetSpec().GetDesiredRole() != api.Role_ROLE_WORKER {
		t.Errorf("not shut out: %v", n)
	}
	if what := replaced(before, theCluster(t, s)); len(what) != 0 {
		t.Errorf("replaced while the manager still gets the log: %v", what)
	}

	var asked uint64
	s.removeMember = func(raftID uint64) error {
		asked = raftID
		if what := replaced(before, theCluster(t, s)); len(what) != 0 {
			t.Errorf("replaced before the manager is out of the group: %v", what)
		}
		return nil
	}
	setNode(t, s, "m3", func(n *api.Node) { n.Role = api.Role_ROLE_WORKER }) // the role manager was faster
	got, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m3"})
	if err != nil {
		t.Fatal(err)
	}
	if asked != 3 || !proto.Equal(planned, got) || !slices.Equal(got.GetSecrets(), []string{"db", "other"}) {
		t.Errorf("member %d; planned %v, did %v", asked, planned, got)
	}
	if what := replaced(before, theCluster(t, s)); len(what) != 6 || len(got.GetChanged()) != 6 {
		t.Errorf("replaced %v, said %v", what, got.GetChanged())
	}
	_, err = s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m3"})
	wantFault(t, err, fault.Precondition, "shut out already")
}

// Where the root can't be replaced at once, as by an external CA or with a node that can't follow, people are told.
func TestCompromiseNode_SaysThatTheRootIsToBeReplaced(t *testing.T) {
	s := managed(t)
	setNode(t, s, "worker1", func(n *api.Node) { n.Tls = nil })
	got, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m2"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(got.GetRemaining(), "\n"), "skep swarm ca --rotate") || theCluster(t, s).GetRootCa().GetRotation() != nil {
		t.Errorf("left to do: %q", got.GetRemaining())
	}
}

// The manager that leads can't do it to itself, nor to one without which the others could decide nothing.
func TestCompromiseNode_KeepsTheQuorum(t *testing.T) {
	s := managed(t)
	_, err := s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m1"})
	wantFault(t, err, fault.Precondition, "leads the swarm")
	s.status.Members[1].Reachable = false
	_, err = s.CompromiseNode(t.Context(), &api.CompromiseNodeRequest{Node: "m3"})
	wantFault(t, err, fault.Precondition, "loss of quorum")
}
