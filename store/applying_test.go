package store

import (
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/raftcore"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// However much is committed at once, the loop hears of its peers between two entries: one that does not for as long as they all take is
// taken for dead, or takes its leader for dead.
func TestLoop_AppliesOneEntryAtATime(t *testing.T) {
	c := restarted(t)
	lead(t, c)
	const n = 5
	for range n {
		if err := c.step(raftcore.Propose{}); err != nil {
			t.Fatal(err)
		}
	}
	before := c.machine.index
	for len(c.applying) == 0 {
		persist(t, c)
	}
	if c.core.Commit() != before+n {
		t.Fatalf("committed up to %d, want %d", c.core.Commit(), before+n)
	}
	for i := range n + 1 {
		if got, want := c.machine.index, before+Index(i); got != want {
			t.Fatalf("applied up to %d, want %d", got, want)
		}
		if err := c.applyNext(); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.applying) > 0 {
		t.Error("something is left")
	}
}

// lead has a manager that is alone lead, and apply what it has.
func lead(t *testing.T, c *cluster) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	for c.readyTerm != c.core.Leader().Term || !c.core.Leader().Self {
		turn(t, c)
	}
}

// A snapshot lets the log be compacted. One of a state in the middle of an Apply would take from it what the core still looks for, when it
// becomes a candidate: changes of the members that are not applied.
func TestLoop_TakesNoSnapshotInTheMiddleOfAnApply(t *testing.T) {
	disk := Disk{FS: vfs.NewMem(), Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	if err := Bootstrap(disk, "c1", &api.Member{RaftId: 1, NodeId: "m1", Address: "m1:1"}); err != nil {
		t.Fatal(err)
	}
	c := opened(t, Config{Disk: disk})
	lead(t, c)
	const n = 3 * keepEntries
	for range n {
		if err := c.step(raftcore.Propose{}); err != nil {
			t.Fatal(err)
		}
		turn(t, c)
	}
	if err := c.wal.Close(); err != nil {
		t.Fatal(err)
	}

	c = opened(t, Config{Disk: disk, SnapshotInterval: 2 * keepEntries})
	t.Cleanup(func() {
		if err := c.wal.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.tick(); err != nil { // all of it is committed, and one Apply
		t.Fatal(err)
	}
	for range n - keepEntries/2 {
		if err := c.applyNext(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.tick(); err != nil {
		t.Fatal(err)
	}
	for len(c.captures) > 0 {
		taken := <-c.captures
		if err := c.writeCapture(taken); err != nil {
			t.Fatal(err)
		}
		if err := c.captured(taken); err != nil {
			t.Fatal(err)
		}
		persist(t, c)
	}
	if err := c.step(raftcore.Campaign{}); err != nil {
		t.Errorf("it can't lead any more: %v", err)
	}
	turn(t, c)
	if len(c.captures) != 1 {
		t.Errorf("%d snapshots once all is applied, want 1", len(c.captures))
	}
}

func opened(t *testing.T, cfg Config) *cluster {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s.cluster
}

// A leader's snapshot has its members. A change of before that is committed, but not applied when the snapshot comes, must not be made to
// them once more: this member would count other votes than the others do.
func TestLoop_AppliesEarlierChangesBeforeASnapshot(t *testing.T) {
	member := func(id uint64, learner bool) *api.Member {
		return &api.Member{RaftId: id, NodeId: fmt.Sprint("m", id), Address: "m:1", Learner: learner}
	}
	disk := Disk{FS: vfs.NewMem(), Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	if err := Prepare(disk, "c1", &api.JoinResponse{RaftId: 2, Members: []*api.Member{member(1, false), member(2, false)}}); err != nil {
		t.Fatal(err)
	}
	c := opened(t, Config{Disk: disk})
	t.Cleanup(func() {
		if err := c.wal.Close(); err != nil {
			t.Error(err)
		}
	})
	encoded := func(m proto.Message) []byte {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	receive := func(m *raftpb.Message) {
		m.From, m.To, m.Term = proto.Uint64(1), proto.Uint64(2), proto.Uint64(1)
		if err := c.step(raftcore.Receive{From: 1, Message: m}); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := func(index Index, members ...*api.Member) *raftpb.Message {
		var voters []uint64
		for _, m := range members {
			voters = append(voters, m.GetRaftId())
		}
		return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), Snapshot: &raftpb.Snapshot{
			Data:     encoded(&api.StoreSnapshot{ClusterId: "c1", Index: index, Members: members}),
			Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: proto.Uint64(1), ConfState: &raftpb.ConfState{Voters: voters}},
		}}
	}
	receive(snapshot(10, member(1, false), member(2, false)))
	turn(t, c)
	change := &raftpb.ConfChange{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: proto.Uint64(3), Context: encoded(member(3, true))}
	receive(&raftpb.Message{
		Type: raftpb.MsgApp.Enum(), Index: proto.Uint64(10), LogTerm: proto.Uint64(1), Commit: proto.Uint64(11),
		Entries: []*raftpb.Entry{{Term: proto.Uint64(1), Index: proto.Uint64(11), Type: raftpb.EntryConfChange.Enum(), Data: encoded(change)}},
	})
	persist(t, c)
	if len(c.applying) != 1 {
		t.Fatalf("%d applies wait, want 1", len(c.applying))
	}
	receive(snapshot(20, member(1, false), member(2, false), member(3, false))) // by now it votes
	turn(t, c)
	if c.machine.index != 20 {
		t.Errorf("the state is that of %d, want 20", c.machine.index)
	}
	again := &raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(1)} // changes nothing
	if state, err := c.core.Configure(again); err != nil || !slices.Equal(state.GetVoters(), []uint64{1, 2, 3}) {
		t.Errorf("%v vote, want 1, 2 and 3 (%v)", state.GetVoters(), err)
	}
}
