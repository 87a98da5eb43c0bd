package backup_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/backup"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
)

// headerOf returns the header that a backup of a state would have.
func headerOf(t *testing.T, state *api.StoreSnapshot) *api.BackupHeader {
	t.Helper()
	var b strings.Builder
	header, err := backup.Write(&b, state, backup.FromKey(seal.NewKey()), time.Now(), "1")
	if err != nil {
		t.Fatal(err)
	}
	return header
}

func TestCheck_FindsNothingInAWholeState(t *testing.T) {
	state := newState(t)
	if problems := backup.Check(headerOf(t, state), state); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
}

// What may go first in a running swarm is nothing wrong.
func TestCheck_AllowsWhatIsOnItsWayOut(t *testing.T) {
	state := newState(t)
	state.Objects = slices.DeleteFunc(state.Objects, func(o *api.StoredObject) bool {
		return o.GetService() != nil || o.GetSecret() != nil || o.GetNode() != nil
	})
	replacement := proto.CloneOf(state.Members[0]) // of a manager that lost its disk
	replacement.RaftId, replacement.Learner = 8, true
	state.Members = append(state.Members, replacement)
	if problems := backup.Check(headerOf(t, state), state); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
}

func TestCheck_NamesWhatIsWrong(t *testing.T) {
	for what, test := range map[string]struct {
		change func(*api.StoreSnapshot)
		want   string
	}{
		"an unknown kind": {func(s *api.StoreSnapshot) { s.Objects = append(s.Objects, &api.StoredObject{}) }, "of a kind that this version does not know"},
		"an id":           {func(s *api.StoreSnapshot) { first[*api.Task](s).Id = "x" }, `task "x": its id is not one`},
		"an id twice": {func(s *api.StoreSnapshot) {
			s.Objects = append(s.Objects, object.Wrap(proto.CloneOf(first[*api.Task](s))))
		}, "it is there twice"},
		"a name twice": {func(s *api.StoreSnapshot) {
			twin := proto.CloneOf(first[*api.Secret](s))
			twin.Id = object.NewID()
			s.Objects = append(s.Objects, object.Wrap(twin))
		}, `has its name "db", too`},
		"no name":    {func(s *api.StoreSnapshot) { first[*api.Service](s).Spec.Annotations = nil }, "it has no name"},
		"no version": {func(s *api.StoreSnapshot) { first[*api.Node](s).Meta = nil }, "its version is 0"},
		"a version from the future": {func(s *api.StoreSnapshot) {
			first[*api.Node](s).Meta.Version = s.Index + 1
		}, "and the backup is of index"},
		"an unknown field": {func(s *api.StoreSnapshot) {
			unknown := protowire.AppendVarint(protowire.AppendTag(nil, 2000, protowire.VarintType), 1)
			first[*api.Service](s).Spec.Task.ProtoReflect().SetUnknown(unknown)
		}, "fields that this version does not know"},
		"an object too large": {func(s *api.StoreSnapshot) {
			first[*api.Secret](s).Spec.Data = make([]byte, store.MaxObjectSize)
		}, "are the most"},
		"an audit entry": {func(s *api.StoreSnapshot) { first[*api.AuditSegment](s).Entries[20] ^= 1 }, "the audit log is broken"},
		"the beginning of the audit log": {func(s *api.StoreSnapshot) {
			first[*api.AuditSegment](s).Previous[0] ^= 1
		}, "the log does not begin as that of this cluster"},
		"a gap in the audit log": {func(s *api.StoreSnapshot) {
			next := proto.CloneOf(first[*api.AuditSegment](s))
			next.Id, next.First = object.SequenceID(3), 3
			s.Objects = append(s.Objects, object.Wrap(next))
		}, "it does not go on from entry 1"},
		"another cluster": {func(s *api.StoreSnapshot) { s.ClusterId = object.NewID() }, "the state is of cluster"},
		"no cluster object": {func(s *api.StoreSnapshot) {
			s.Objects = slices.DeleteFunc(s.Objects, func(o *api.StoredObject) bool { return o.GetCluster() != nil })
		}, "there are 0 cluster objects"},
		"no spec": {func(s *api.StoreSnapshot) { first[*api.Cluster](s).Spec = nil }, "it has no spec"},
		"the CA of another": {func(s *api.StoreSnapshot) {
			first[*api.Cluster](s).RootCa.Key = newCluster(t, "x").RootCa.Key
		}, "root CA:"},
		"the CA and its key of another": {func(s *api.StoreSnapshot) {
			first[*api.Cluster](s).RootCa = newCluster(t, "x").RootCa
		}, "the join token of workers is for another root CA"},
		"no token":   {func(s *api.StoreSnapshot) { first[*api.Cluster](s).JoinTokens.Manager = "" }, "the join token of managers is none"},
		"backup key": {func(s *api.StoreSnapshot) { first[*api.Cluster](s).BackupKey = "x" }, "its backup key is none"},
		"unlock key": {func(s *api.StoreSnapshot) { first[*api.Cluster](s).Spec.Autolock = true }, "its unlock key is none"},
		"a secret that is missing": {func(s *api.StoreSnapshot) {
			s.Objects = slices.DeleteFunc(s.Objects, func(o *api.StoredObject) bool { return o.GetSecret() != nil })
		}, "(db) is not there"},
		"a secret of another name": {func(s *api.StoreSnapshot) {
			first[*api.Secret](s).Spec.Annotations.Name = "other"
		}, `is called "other" there and "db" here`},
		"an empty secret":   {func(s *api.StoreSnapshot) { first[*api.Secret](s).Spec.Data = nil }, "it has no value"},
		"a task of nothing": {func(s *api.StoreSnapshot) { first[*api.Task](s).ServiceId = "" }, "it belongs to no service"},
		"a task nowhere":    {func(s *api.StoreSnapshot) { first[*api.Task](s).NodeId = "" }, "on no node"},
		"a task newer than its service": {func(s *api.StoreSnapshot) {
			first[*api.Task](s).SpecVersion = 9
		}, "it has spec version 9"},
		"a role":           {func(s *api.StoreSnapshot) { first[*api.Node](s).Role = 0 }, "it has the role 0"},
		"no voter":         {func(s *api.StoreSnapshot) { s.Members[0].Learner = true }, "no member that votes"},
		"a removed member": {func(s *api.StoreSnapshot) { s.RemovedRaftIds = append(s.RemovedRaftIds, 7) }, "member 7: it was removed"},
		"two votes of a node": {func(s *api.StoreSnapshot) {
			twin := proto.CloneOf(s.Members[0])
			twin.RaftId = 8
			s.Members = append(s.Members, twin)
		}, "has another member that votes"},
		"a member twice":        {func(s *api.StoreSnapshot) { s.Members = append(s.Members, s.Members[0]) }, "member 7: it is there twice"},
		"a kind's version":      {func(s *api.StoreSnapshot) { s.KindVersions[0].Version = 0 }, "the last change to clusters is at index 0"},
		"a future request":      {func(s *api.StoreSnapshot) { s.OwnRequests[0].Index = s.Index + 1 }, "it was applied at index"},
		"a member from nowhere": {func(s *api.StoreSnapshot) { s.Members[0].Address = "" }, "member 7: its raft id, node or address is missing"},
	} {
		state := newState(t)
		test.change(state)
		problems := backup.Check(headerOf(t, state), state)
		if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, test.want) }) {
			t.Errorf("%s: got %q, want …%s…", what, problems, test.want)
		}
	}
}

func TestCheck_ComparesWithTheHeader(t *testing.T) {
	state := newState(t)
	header := headerOf(t, state)
	header.Counts[2].Objects++
	header.Counts = append(header.Counts, &api.BackupCount{Kind: 99, Objects: 1})
	problems := backup.Check(header, state)
	if len(problems) != 2 || problems[0] != "there are 1 services, and the header says 2" || !strings.Contains(problems[1], "1 objects of kind 99") {
		t.Errorf("got %q", problems)
	}
}

func TestSucceed(t *testing.T) {
	state := newState(t)
	header, old := headerOf(t, state), first[*api.Node](state)
	tokens := proto.CloneOf(first[*api.Cluster](state).GetJoinTokens())
	heir := &api.Node{Id: object.NewID(), Role: api.Role_ROLE_MANAGER, Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_MANAGER}}
	key := seal.NewKey().UnlockKey()
	if err := backup.Succeed(state, backup.Succession{Header: header, Node: heir, UnlockKey: key, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if old.GetRole() != api.Role_ROLE_WORKER || old.GetSpec().GetDesiredRole() != api.Role_ROLE_WORKER {
		t.Errorf("the former manager: %v", old)
	}
	cluster := first[*api.Cluster](state)
	if cluster.GetUnlockKey() != key || !cluster.GetSpec().GetAutolock() || !proto.Equal(cluster.GetJoinTokens(), tokens) {
		t.Error("the cluster is not locked, or has other tokens")
	}
	if !proto.Equal(cluster.GetBackup().GetVerified(), backup.Record(header)) {
		t.Errorf("the backup is not noted: %v", cluster.GetBackup())
	}
	// What comes out is a whole state itself.
	if problems := backup.Check(headerOf(t, state), state); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
	if state.GetIndex() != header.GetIndex()+1 || heir.GetMeta().GetVersion() != state.GetIndex() {
		t.Errorf("index %d after %d", state.GetIndex(), header.GetIndex())
	}
}

// A token that was used up after the backup must not be good once more.
func TestSucceed_RevokesJoinGrants(t *testing.T) {
	s, _ := newStore(t)
	storetest.Create(t, s,
		&api.JoinGrant{Id: "grant", Spec: &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 1}},
		&api.Node{
			Id: "waits", Role: api.Role_ROLE_WORKER, Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_WORKER},
			Approval: &api.Approval{State: api.ApprovalState_APPROVAL_STATE_PENDING, GrantId: "grant"},
		})
	state := stateOf(t, s)
	heir := &api.Node{Id: object.NewID(), Role: api.Role_ROLE_MANAGER, Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_MANAGER}}
	if err := backup.Succeed(state, backup.Succession{Header: headerOf(t, state), Node: heir, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, stored := range state.GetObjects() {
		o := object.Unwrap(stored)
		if _, grant := o.(*api.JoinGrant); grant || o.GetId() == "waits" {
			t.Errorf("outlived the restore: %v", o)
		}
	}
	if problems := backup.Check(headerOf(t, state), state); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
}
