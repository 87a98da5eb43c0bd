package control_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func setNode(t *testing.T, s *swarm, id string, change func(*api.Node)) {
	t.Helper()
	err := s.store.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[*api.Node](tx, id)
		if err != nil {
			return err
		}
		n := proto.CloneOf(old)
		change(n)
		return tx.Update(n)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCreateSecret_Refuses(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "taken")
	for _, tt := range []struct {
		name string
		spec *api.SecretSpec
		kind fault.Kind
		want string
	}{
		{"nothing", nil, fault.Invalid, "name must be provided"},
		{"bad name", secretSpec("a/b", []byte("x")), fault.Invalid, "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed"},
		{"long name", secretSpec(string(bytes.Repeat([]byte("a"), 65)), []byte("x")), fault.Invalid, "invalid name, only 64"},
		{"no data", secretSpec("a", nil), fault.Invalid, "secret data must be 1 to 512000 bytes, got 0"},
		{"512001 bytes", secretSpec("a", make([]byte, 512001)), fault.Invalid, "secret data must be 1 to 512000 bytes, got 512001"},
		{"taken name", secretSpec("taken", []byte("x")), fault.AlreadyExists, "secret taken already exists"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.CreateSecret(t.Context(), &api.CreateSecretRequest{Spec: tt.spec})
			wantFault(t, err, tt.kind, tt.want)
		})
	}
	if _, err := s.CreateSecret(t.Context(), &api.CreateSecretRequest{Spec: secretSpec("max", make([]byte, 512000))}); err != nil {
		t.Errorf("the largest secret: %v", err)
	}
}

func TestSecret_DataNeverLeave(t *testing.T) {
	s := newSwarm(t)
	canary := []byte("canary-7f3a")
	created, err := s.CreateSecret(t.Context(), &api.CreateSecretRequest{Spec: secretSpec("db", canary)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.GetSecret(t.Context(), &api.GetSecretRequest{Secret: "db"})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.ListSecrets(t.Context(), &api.ListSecretsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := s.GetCluster(t.Context(), &api.GetClusterRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, answer := range []proto.Message{created, got, list, cluster} {
		wire, err := proto.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range [][]byte{canary, []byte("SKPTKN"), []byte("root key")} {
			if bytes.Contains(wire, secret) {
				t.Errorf("%s carries %q", answer.ProtoReflect().Descriptor().FullName(), secret)
			}
		}
	}
	stored := storetest.Get[*api.Secret](t, s.store, created.GetSecret().GetId())
	if !bytes.Equal(stored.GetSpec().GetData(), canary) {
		t.Error("the stored secret has other data")
	}
}

func TestRemoveSecret_RefusesOneInUse(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "db")
	use := func(spec *api.ServiceSpec) { spec.Task.Container.Secrets = []*api.SecretReference{{SecretName: "db"}} }
	s.createService(t, web(use))
	_, err := s.RemoveSecret(t.Context(), &api.RemoveSecretRequest{Secret: "db"})
	wantFault(t, err, fault.Precondition, "secret 'db' is in use by the following service: web")
	s.createService(t, web(use, func(spec *api.ServiceSpec) { spec.Annotations.Name = "api" }))
	_, err = s.RemoveSecret(t.Context(), &api.RemoveSecretRequest{Secret: "db"})
	wantFault(t, err, fault.Precondition, "secret 'db' is in use by the following services: api, web")
	for _, name := range []string{"web", "api"} {
		if _, err := s.RemoveService(t.Context(), &api.RemoveServiceRequest{Service: name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.RemoveSecret(t.Context(), &api.RemoveSecretRequest{Secret: "db"}); err != nil {
		t.Error(err)
	}
}

// A config differs from a secret in that people may read it.
func TestConfig_IsShownAndKeptWhileInUse(t *testing.T) {
	s := newSwarm(t)
	data := bytes.Repeat([]byte("x"), 1000*1024)
	create := func(name string, data []byte) error {
		_, err := s.CreateConfig(t.Context(), &api.CreateConfigRequest{Spec: &api.ConfigSpec{Annotations: &api.Annotations{Name: name}, Data: data}})
		return err
	}
	if err := create("site", data); err != nil {
		t.Fatal(err)
	}
	wantFault(t, create("site", data), fault.AlreadyExists, "config site already exists")
	wantFault(t, create("large", append(data, 'x')), fault.Invalid, "config data must be 1 to 1024000 bytes, got 1024001")
	wantFault(t, create("empty", nil), fault.Invalid, "config data must be 1 to 1024000 bytes, got 0")
	wantFault(t, create("-", data), fault.Invalid, "invalid name")
	got, err := s.GetConfig(t.Context(), &api.GetConfigRequest{Config: "site"})
	if err != nil || !bytes.Equal(got.GetConfig().GetSpec().GetData(), data) {
		t.Errorf("got %d bytes, %v", len(got.GetConfig().GetSpec().GetData()), err)
	}
	list, err := s.ListConfigs(t.Context(), &api.ListConfigsRequest{})
	if err != nil || len(list.GetConfigs()) != 1 || len(list.GetConfigs()[0].GetSpec().GetData()) != 0 {
		t.Errorf("got %d configs, %v; want one, without its data", len(list.GetConfigs()), err)
	}
	s.createService(t, web(func(spec *api.ServiceSpec) {
		spec.Task.Container.Configs = []*api.SecretReference{{SecretName: "site", Target: &api.SecretTarget{Name: "/etc/site"}}}
	}))
	_, err = s.RemoveConfig(t.Context(), &api.RemoveConfigRequest{Config: "site"})
	wantFault(t, err, fault.Precondition, "config 'site' is in use by the following service: web")
	if _, err := s.RemoveService(t.Context(), &api.RemoveServiceRequest{Service: "web"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveConfig(t.Context(), &api.RemoveConfigRequest{Config: "site"}); err != nil {
		t.Error(err)
	}
}

// What a node can't hand to its runtime at once is refused before any node has it.
func TestCreateService_BoundsItsSecretsAndConfigs(t *testing.T) {
	s := newSwarm(t)
	var references []*api.SecretReference
	for i := range 16 {
		name := fmt.Sprint("c", i)
		_, err := s.CreateConfig(t.Context(), &api.CreateConfigRequest{Spec: &api.ConfigSpec{
			Annotations: &api.Annotations{Name: name}, Data: make([]byte, 1000*1024),
		}})
		if err != nil {
			t.Fatal(err)
		}
		references = append(references, &api.SecretReference{SecretName: name})
	}
	use := func(n int) func(*api.ServiceSpec) {
		return func(spec *api.ServiceSpec) { spec.Task.Container.Configs = references[:n] }
	}
	_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(use(16))})
	wantFault(t, err, fault.Invalid, "its secrets and configs have 16384000 bytes, at most 15728640 are allowed")
	s.createService(t, web(use(15)))
}

func TestUpdateNode_Demotion(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members []store.MemberStatus
		want    string
	}{
		{"the last", []store.MemberStatus{member("m1", true, true)}, "attempting to demote the last manager of the swarm"},
		{
			"the last with a vote", []store.MemberStatus{
				member("m1", true, true), {Member: &api.Member{NodeId: "m2", Learner: true}, Reachable: true},
			}, "attempting to demote the last manager of the swarm",
		},
		{"the other is down", []store.MemberStatus{member("m1", true, true), member("m2", false, false)}, "would result in a loss of quorum: it leaves 0 of 1 managers reachable, and 1 are needed"},
		{"one of two others is down", []store.MemberStatus{member("m1", true, true), member("m2", false, true), member("m3", false, false)}, "would result in a loss of quorum: it leaves 1 of 2 managers reachable, and 2 are needed"},
		{"both others stay", []store.MemberStatus{member("m1", true, true), member("m2", false, true), member("m3", false, true)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSwarm(t)
			s.status.Members = tt.members
			for _, m := range tt.members {
				storetest.Create(t, s.store, node(m.Member.GetNodeId(), api.Role_ROLE_MANAGER))
			}
			old := storetest.Get[*api.Node](t, s.store, "m1")
			response, err := s.UpdateNode(t.Context(), &api.UpdateNodeRequest{
				NodeId: "m1", Version: old.GetMeta().GetVersion(), Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_WORKER},
			})
			if tt.want != "" {
				wantFault(t, err, fault.Precondition, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			spec := response.GetNode().GetSpec()
			if spec.GetDesiredRole() != api.Role_ROLE_WORKER || spec.GetAvailability() != api.Availability_AVAILABILITY_ACTIVE {
				t.Errorf("got spec %v", spec)
			}
		})
	}
}

func TestUpdateNode_CountsManagersThatLeaveAlready(t *testing.T) {
	s := newSwarm(t)
	s.status.Members = []store.MemberStatus{member("m1", true, true), member("m2", false, true)}
	leaving := node("m2", api.Role_ROLE_MANAGER)
	leaving.Spec.DesiredRole = api.Role_ROLE_WORKER
	storetest.Create(t, s.store, node("m1", api.Role_ROLE_MANAGER), leaving)
	_, err := s.UpdateNode(t.Context(), &api.UpdateNodeRequest{
		NodeId: "m1", Version: storetest.Get[*api.Node](t, s.store, "m1").GetMeta().GetVersion(),
		Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_WORKER},
	})
	wantFault(t, err, fault.Precondition, "attempting to demote the last manager of the swarm")
}

func TestRemoveNode(t *testing.T) {
	for _, tt := range []struct {
		name, node string
		state      api.NodeState
		force      bool
		want       string
	}{
		{"ready", "worker1", api.NodeState_NODE_STATE_READY, false, "node worker1 is not down and can't be removed"},
		{"ready by force", "host-worker1", api.NodeState_NODE_STATE_READY, true, ""},
		{"down", "worker1", api.NodeState_NODE_STATE_DOWN, false, ""},
		{"manager", "m1", api.NodeState_NODE_STATE_READY, true, "node m1 is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSwarm(t)
			storetest.Create(t, s.store, node("m1", api.Role_ROLE_MANAGER))
			setNode(t, s, "worker1", func(n *api.Node) { n.Status.State = tt.state })
			_, err := s.RemoveNode(t.Context(), &api.RemoveNodeRequest{Node: tt.node, Force: tt.force})
			if tt.want != "" {
				wantFault(t, err, fault.Precondition, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			revoked := storetest.List[*api.Cluster](t, s.store)[0].GetRevocations()
			if len(revoked) != 1 || revoked[0].GetNodeId() != "worker1" || revoked[0].GetRole() != api.Role_ROLE_UNSPECIFIED {
				t.Errorf("revoked: %v", revoked)
			}
		})
	}
}

// Others remember a removed node as long as one of its certificates may live, also one of a time when they lived longer.
func TestRemoveNode_IsRememberedWhileItsCertificatesLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		expiry := func(d time.Duration) {
			t.Helper()
			cluster := storetest.List[*api.Cluster](t, s.store)[0]
			spec := proto.CloneOf(cluster.GetSpec())
			spec.CertExpiry = durationpb.New(d)
			_, err := s.UpdateCluster(t.Context(), &api.UpdateClusterRequest{Spec: spec, Version: cluster.GetMeta().GetVersion()})
			if err != nil {
				t.Fatal(err)
			}
		}
		remove := func(id string) []*api.Revocation {
			t.Helper()
			if _, err := s.RemoveNode(t.Context(), &api.RemoveNodeRequest{Node: id, Force: true}); err != nil {
				t.Fatal(err)
			}
			return storetest.List[*api.Cluster](t, s.store)[0].GetRevocations()
		}
		storetest.Create(t, s.store, node("worker2", api.Role_ROLE_WORKER))
		expiry(100 * 24 * time.Hour)
		expiry(time.Hour)
		revoked := remove("worker1")
		if left := time.Until(revoked[0].GetExpiresAt().AsTime()); left < 100*24*time.Hour {
			t.Errorf("remembered for %v", left)
		}
		time.Sleep(101 * 24 * time.Hour)
		if revoked = remove("worker2"); len(revoked) != 1 || revoked[0].GetNodeId() != "worker2" {
			t.Errorf("after its certificates expired: %v", revoked)
		}
	})
}

// A manager that is dead is removed by force in one step; one that answers, or whose vote is needed, is not.
func TestRemoveNode_DeadManager(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members []store.MemberStatus
		force   bool
		want    string
	}{
		{"by force", []store.MemberStatus{member("m1", true, true), member("m2", false, true), member("m3", false, false)}, true, ""},
		{
			"without force",
			[]store.MemberStatus{member("m1", true, true), member("m2", false, true), member("m3", false, false)},
			false,
			"can be removed with --force",
		},
		{
			"it answers",
			[]store.MemberStatus{member("m1", true, true), member("m2", false, true), member("m3", false, true)},
			true,
			"must be demoted to worker before removal",
		},
		{
			"another is dead, too",
			[]store.MemberStatus{member("m1", true, true), member("m2", false, false), member("m3", false, false)},
			true,
			"it leaves 1 of 2 managers reachable, and 2 are needed",
		},
		{"its new disk is not there yet", []store.MemberStatus{
			member("m1", true, true), member("m2", false, true), member("m3", false, false),
			{Member: &api.Member{RaftId: 9, NodeId: "m3", Learner: true}, Reachable: true},
		}, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSwarm(t)
			s.status.Members = tt.members
			for _, m := range []string{"m1", "m2", "m3"} {
				storetest.Create(t, s.store, node(m, api.Role_ROLE_MANAGER))
			}
			_, err := s.RemoveNode(t.Context(), &api.RemoveNodeRequest{Node: "m3", Force: tt.force})
			if tt.want != "" {
				wantFault(t, err, fault.Precondition, tt.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNodes_SayWhoLeads(t *testing.T) {
	s := newSwarm(t)
	s.status.Members = []store.MemberStatus{member("m1", true, true), member("m2", false, false)}
	storetest.Create(t, s.store, node("m1", api.Role_ROLE_MANAGER), node("m2", api.Role_ROLE_MANAGER))
	response, err := s.ListNodes(t.Context(), &api.ListNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]*api.ManagerStatus{}
	for _, n := range response.GetNodes() {
		got[n.GetId()] = n.GetManagerStatus()
	}
	want := map[string]*api.ManagerStatus{
		"m1":      {RaftId: 2, Address: "m1:2377", Leader: true, Reachability: api.Reachability_REACHABILITY_REACHABLE},
		"m2":      {RaftId: 2, Address: "m2:2377", Reachability: api.Reachability_REACHABILITY_UNREACHABLE},
		"worker1": nil,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("manager status (-want +got):\n%s", diff)
	}
}

func TestUpdateCluster(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec *api.ClusterSpec
		want string
	}{
		{"short certificates", &api.ClusterSpec{SnapshotInterval: 1, CertExpiry: durationpb.New(59 * time.Minute)}, "cert_expiry: minimum certificate expiry time is: 1h0m0s"},
		{"an hour", &api.ClusterSpec{SnapshotInterval: 1, CertExpiry: durationpb.New(time.Hour)}, ""},
		{"no heartbeat", &api.ClusterSpec{SnapshotInterval: 1, DispatcherHeartbeat: durationpb.New(0)}, "dispatcher_heartbeat: minimum heartbeat period is: 100ms"},
		{"the longest heartbeat", &api.ClusterSpec{SnapshotInterval: 1, DispatcherHeartbeat: durationpb.New(5 * time.Minute)}, ""},
		{"rare heartbeat", &api.ClusterSpec{SnapshotInterval: 1, DispatcherHeartbeat: durationpb.New(time.Hour)}, "dispatcher_heartbeat: maximum heartbeat period is: 5m0s, got 1h0m0s"},
		{"no snapshots", &api.ClusterSpec{}, "snapshot_interval: must be at least 1 log entry, such as the default: 10000"},
		{"backups too often", &api.ClusterSpec{SnapshotInterval: 1, BackupInterval: durationpb.New(59 * time.Minute)}, "backup_interval: minimum time between scheduled backups is: 1h0m0s"},
		{"backups every hour", &api.ClusterSpec{SnapshotInterval: 1, BackupInterval: durationpb.New(time.Hour), BackupDir: "/var/backups"}, ""},
		{"backups somewhere", &api.ClusterSpec{SnapshotInterval: 1, BackupDir: "backups"}, `backup_dir: must be an absolute path without . and .., such as /var/backups/skep, got "backups"`},
		{"backups above", &api.ClusterSpec{SnapshotInterval: 1, BackupDir: "/var/../etc"}, "backup_dir: must be an absolute path"},
		{"backups for ever", &api.ClusterSpec{SnapshotInterval: 1, BackupRetention: 10001}, "backup_retention: at most 10000 backups are kept"},
		{"isolation of no name", &api.ClusterSpec{SnapshotInterval: 1, RequiredIsolation: []string{"smack"}}, `required_isolation: unknown isolation "smack": write some of apparmor, landlock`},
		{"isolation twice", &api.ClusterSpec{SnapshotInterval: 1, RequiredIsolation: []string{"userns", "userns"}}, "required_isolation: userns is there twice"},
		{"an audit log of nothing", &api.ClusterSpec{SnapshotInterval: 1, AuditRetention: 1000}, "audit_retention: the audit log must have 1 MiB to 1 GiB"},
		{"an audit log without end", &api.ClusterSpec{SnapshotInterval: 1, AuditRetention: 1<<30 + 1}, "audit_retention: the audit log must have 1 MiB to 1 GiB"},
		{"nothing", nil, "spec: the cluster's spec is missing"},
		{"another name", &api.ClusterSpec{SnapshotInterval: 1, Annotations: &api.Annotations{Name: "mine"}}, "renaming the cluster is not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSwarm(t)
			version := storetest.Get[*api.Cluster](t, s.store, "cluster").GetMeta().GetVersion()
			_, err := s.UpdateCluster(t.Context(), &api.UpdateClusterRequest{Version: version, Spec: tt.spec})
			if tt.want != "" {
				wantFault(t, err, fault.Invalid, tt.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUpdateCluster_AutolockHandsOutTheKeyOnce(t *testing.T) {
	s := newSwarm(t)
	update := func(autolock bool) string {
		spec := control.DefaultClusterSpec()
		spec.Autolock = autolock
		version := storetest.Get[*api.Cluster](t, s.store, "cluster").GetMeta().GetVersion()
		response, err := s.UpdateCluster(t.Context(), &api.UpdateClusterRequest{Version: version, Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		return response.GetUnlockKey()
	}
	key := func(rotate bool) (string, error) {
		response, err := s.GetUnlockKey(t.Context(), &api.GetUnlockKeyRequest{Rotate: rotate})
		return response.GetUnlockKey(), err
	}
	if _, err := key(true); err == nil {
		t.Error("rotated the key of a swarm that is not autolocked")
	}
	first := update(true)
	if got, err := key(false); first == "" || got != first || err != nil {
		t.Errorf("got key %q, %v, want the one that the update returned", got, err)
	}
	if again := update(true); again != "" {
		t.Error("an update that leaves autolock on returned a key")
	}
	if rotated, err := key(true); err != nil || rotated == first || rotated == "" {
		t.Errorf("rotation: %q, %v", rotated, err)
	}
	update(false)
	if got, err := key(false); got != "" || err != nil {
		t.Errorf("after autolock was turned off: %q, %v", got, err)
	}
}

func TestGetJoinToken_RotatesOneRole(t *testing.T) {
	s := newSwarm(t)
	s.status.NodeID = "m1"
	s.status.Members = []store.MemberStatus{member("m1", true, true)}
	get := func(role api.Role, rotate bool, requestID string) string {
		response, err := s.GetJoinToken(withRequestID(t, requestID), &api.GetJoinTokenRequest{Role: role, Rotate: rotate})
		if err != nil {
			t.Fatal(err)
		}
		if response.GetManagerAddress() != "m1:2377" {
			t.Errorf("address: got %q", response.GetManagerAddress())
		}
		return response.GetToken()
	}
	worker, manager := get(api.Role_ROLE_WORKER, false, "1"), get(api.Role_ROLE_MANAGER, false, "2")
	rotated := get(api.Role_ROLE_WORKER, true, "3")
	if rotated == worker || rotated[:58] != worker[:58] {
		t.Error("the rotated token must have the same root and another secret")
	}
	if get(api.Role_ROLE_WORKER, true, "3") != rotated {
		t.Error("a retry rotated again")
	}
	if get(api.Role_ROLE_MANAGER, false, "4") != manager {
		t.Error("rotating the worker token changed the manager token")
	}
	_, err := s.GetJoinToken(t.Context(), &api.GetJoinTokenRequest{})
	wantFault(t, err, fault.Invalid, "role: must be worker or manager")
}

func TestListTasks_Filters(t *testing.T) {
	s := newSwarm(t)
	for i := range 8 {
		storetest.Create(t, s.store, &api.Task{Id: fmt.Sprint("t", i), ServiceId: fmt.Sprint("s", i%2), NodeId: fmt.Sprint("n", i/4)})
	}
	for _, tt := range []struct {
		services, nodes, want []string
	}{
		{nil, nil, []string{"t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"}},
		{[]string{"s0"}, nil, []string{"t0", "t2", "t4", "t6"}},
		{nil, []string{"n1", "n1"}, []string{"t4", "t5", "t6", "t7"}},
		{[]string{"s1"}, []string{"n0"}, []string{"t1", "t3"}},
		{[]string{"none"}, nil, nil},
	} {
		response, err := s.ListTasks(t.Context(), &api.ListTasksRequest{ServiceIds: tt.services, NodeIds: tt.nodes})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, task := range response.GetTasks() {
			got = append(got, task.GetId())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("services %v, nodes %v (-want +got):\n%s", tt.services, tt.nodes, diff)
		}
	}
}

func TestListTasks_SaysWhomCertificatesName(t *testing.T) {
	s := newSwarm(t)
	stored := &api.Task{Id: "t1", ServiceId: "s1", ServiceName: "web", Slot: 3}
	storetest.Create(t, s.store, stored)
	response, err := s.ListTasks(t.Context(), &api.ListTasksRequest{})
	if err != nil || len(response.GetTasks()) != 1 {
		t.Fatalf("%v, %v", response, err)
	}
	cluster, err := s.GetCluster(t.Context(), &api.GetClusterRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := response.GetTasks()[0].GetSpiffeId(), "spiffe://"+cluster.GetCluster().GetId()+"/service/web/task/3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if kept := storetest.Get[*api.Task](t, s.store, "t1"); kept.GetSpiffeId() != "" {
		t.Errorf("it is stored: %s", kept.GetSpiffeId())
	}
}

func TestWatchService_FollowsUntilItIsRemoved(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web())
	stream, err := s.WatchService(t.Context(), &api.WatchServiceRequest{ServiceId: "web"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetService().GetId() != service.GetId() || len(first.GetTasks()) != 0 {
		t.Fatalf("first: %v, %v", first, err)
	}
	storetest.Create(t, s.store, &api.Task{Id: "other", ServiceId: "another"})
	storetest.Create(t, s.store, &api.Task{Id: "mine", ServiceId: service.GetId()})
	second, err := stream.Recv()
	if err != nil || len(second.GetTasks()) != 1 || second.GetTasks()[0].GetId() != "mine" {
		t.Fatalf("second: %v, %v", second, err)
	}
	err = s.store.Update(t.Context(), "", func(tx store.Tx) error { return tx.Delete(object.KindService, service.GetId()) })
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantFault(t, err, fault.NotFound, "was removed")
}

func TestWatchService_OfNoService(t *testing.T) {
	stream, err := newSwarm(t).WatchService(t.Context(), &api.WatchServiceRequest{ServiceId: "nope"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Recv(); errors.Is(err, io.EOF) {
		t.Fatal("the stream ended without a reason")
	}
	wantFault(t, err, fault.NotFound, "service nope not found")
}

func TestGetBackupKey_IsMadeOnceAndRotated(t *testing.T) {
	s := newSwarm(t) // of a version without backup keys
	key := func(rotate bool, requestID string) string {
		response, err := s.GetBackupKey(withRequestID(t, requestID), &api.GetBackupKeyRequest{Rotate: rotate})
		if err != nil {
			t.Fatal(err)
		}
		return response.GetBackupKey()
	}
	first := key(false, "1")
	if first == "" || key(false, "2") != first {
		t.Errorf("the key is %q, and then another", first)
	}
	rotated := key(true, "3")
	if rotated == first || key(false, "4") != rotated {
		t.Error("the key was not rotated")
	}
	if key(true, "3") != rotated {
		t.Error("a retry rotated again")
	}
	if response, err := s.GetCluster(t.Context(), &api.GetClusterRequest{}); err != nil || response.GetCluster().GetBackupKey() != "" {
		t.Errorf("the cluster shows its backup key: %v", err) // C1
	}
}

func TestNoteBackup_RemembersTheNewest(t *testing.T) {
	s := newSwarm(t)
	note := func(cluster string, hour int64, index uint64) error {
		_, err := s.NoteBackup(t.Context(), &api.NoteBackupRequest{
			ClusterId: cluster, Verified: &api.BackupRecord{CreatedAt: &timestamppb.Timestamp{Seconds: hour * 3600}, Index: index},
		})
		return err
	}
	wantFault(t, note("another", 1, 1), fault.Precondition, "the backup is of swarm another")
	wantFault(t, note("cluster", 1, 1000), fault.Precondition, "this swarm has only come to")
	wantFault(t, note("cluster", 1, 0), fault.Invalid, "must name a backup")
	for _, hour := range []int64{5, 9, 7} {
		if err := note("cluster", hour, 1); err != nil {
			t.Fatal(err)
		}
	}
	response, err := s.GetCluster(t.Context(), &api.GetClusterRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := response.GetCluster().GetBackup().GetVerified().GetCreatedAt().GetSeconds(); got != 9*3600 {
		t.Errorf("the newest is of hour %d", got/3600)
	}
}
