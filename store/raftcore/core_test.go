package raftcore

import (
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func quiet() raft.Logger { return &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)} }

// member is a core and what its owner would keep.
type member struct {
	core    *Core
	storage *raft.MemoryStorage
	appends []*Append // not durable yet
	held    bool      // the disk does nothing
}

// script is a group that a test script drives by hand: nothing happens without a command.
type script struct {
	members map[uint64]*member
	network []*raftpb.Message
	cut     map[uint64]bool
	ticking bool // heartbeats are not worth printing
	out     strings.Builder
}

func newMember(t testing.TB, id uint64, voters ...uint64) *member {
	t.Helper()
	return newMemberOf(t, Config{ID: id, Applied: 1, Logger: quiet()}, voters...)
}

// newMemberOf completes a configuration by the storage of a member that has applied one entry.
func newMemberOf(t testing.TB, cfg Config, voters ...uint64) *member {
	t.Helper()
	storage := raft.NewMemoryStorage()
	err := storage.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(1), Term: proto.Uint64(1), ConfState: &raftpb.ConfState{Voters: voters},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := storage.SetHardState(&raftpb.HardState{Term: proto.Uint64(1), Commit: proto.Uint64(1)}); err != nil {
		t.Fatal(err)
	}
	cfg.Storage = storage
	core, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &member{core: core, storage: storage}
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

// step feeds an input and prints the effects.
func (s *script) step(id uint64, in Input) {
	m := s.members[id]
	effects, err := m.core.Step(in)
	if err != nil {
		s.printf("%d: %v", id, err)
	}
	s.send("send", effects.Send)
	for _, a := range effects.Appends {
		s.printf("%d append %s", id, describe(a))
		m.appends = append(m.appends, a)
	}
	for _, r := range effects.Reads {
		s.printf("%d read %d ready at %d", id, r.ID, r.Index)
	}
	for _, a := range effects.Applies {
		for _, e := range a.Entries {
			s.printf("%d apply %d/%d %q", id, e.GetTerm(), e.GetIndex(), e.GetData())
			if e.GetType() != raftpb.EntryNormal {
				s.configure(id, e)
			}
		}
		s.step(id, Applied{a})
	}
}

// configure makes a change of the membership effective.
func (s *script) configure(id uint64, e *raftpb.Entry) {
	v1, v2 := new(raftpb.ConfChange), new(raftpb.ConfChangeV2)
	var change interface {
		raftpb.ConfChangeI
		proto.Message
	} = v2
	if e.GetType() == raftpb.EntryConfChange {
		change = v1
	}
	if err := proto.Unmarshal(e.GetData(), change); err != nil {
		s.printf("error: %v", err)
	}
	state, err := s.members[id].core.Configure(change)
	s.printf("%d members: voters %v before %v learners %v %v", id, state.GetVoters(), state.GetVotersOutgoing(), state.GetLearners(), err)
}

func describe(a *Append) string {
	var parts []string
	if !raft.IsEmptyHardState(a.HardState) {
		parts = append(parts, fmt.Sprintf("term %d vote %d commit %d", a.HardState.GetTerm(), a.HardState.GetVote(), a.HardState.GetCommit()))
	}
	for _, e := range a.Entries {
		parts = append(parts, fmt.Sprintf("entry %d/%d", e.GetTerm(), e.GetIndex()))
	}
	if a.Snapshot != nil {
		parts = append(parts, fmt.Sprintf("snapshot %d", a.Snapshot.GetMetadata().GetIndex()))
	}
	for _, m := range a.Send {
		parts = append(parts, fmt.Sprintf("then %v to %d", m.GetType(), m.GetTo()))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func (s *script) send(how string, messages []*raftpb.Message) {
	for _, m := range messages {
		if !s.ticking || m.GetType() != raftpb.MsgHeartbeat {
			s.printf("%d %s %v to %d", m.GetFrom(), how, m.GetType(), m.GetTo())
		}
		s.network = append(s.network, m)
	}
}

// disk makes what waits at a member durable.
func (s *script) disk(id uint64) bool {
	m := s.members[id]
	if m.held || len(m.appends) == 0 {
		return false
	}
	appends := m.appends
	m.appends = nil
	for _, a := range appends {
		if err := m.storage.Append(a.Entries); err != nil {
			s.printf("error: %v", err)
		}
		s.send("durable, so", a.Send)
		s.step(id, Appended{a})
	}
	return true
}

// settle lets disks and network work until nothing moves.
func (s *script) settle() {
	for range 100 {
		moved := false
		for id := uint64(1); id <= uint64(len(s.members)); id++ {
			moved = s.disk(id) || moved
		}
		network := s.network
		s.network = nil
		for _, m := range network {
			moved = true
			if s.cut[m.GetFrom()] || s.cut[m.GetTo()] || s.members[m.GetTo()] == nil {
				continue
			}
			s.step(m.GetTo(), Receive{m.GetFrom(), proto.CloneOf(m)})
		}
		if !moved {
			return
		}
	}
	s.printf("does not settle")
}

func TestScript(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		cryptotest.SetGlobalRandom(t, 1)
		s := &script{members: map[uint64]*member{}, cut: map[uint64]bool{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			s.command(t, d)
			return s.out.String()
		})
	})
}

func (s *script) command(t *testing.T, d *datadriven.TestData) {
	var id uint64
	d.MaybeScanArgs(t, "id", &id)
	switch d.Cmd {
	case "group":
		var lease bool
		d.MaybeScanArgs(t, "insecure-lease-reads", &lease)
		for id := uint64(1); id <= 3; id++ {
			s.members[id] = newMemberOf(t, Config{ID: id, Applied: 1, Logger: quiet(), InsecureLeaseReads: lease}, 1, 2, 3)
		}
	case "campaign":
		s.step(id, Campaign{})
	case "propose":
		s.step(id, Propose{[]byte(d.Input)})
	case "read":
		s.step(id, Read{7})
	case "transfer":
		var to uint64
		d.ScanArgs(t, "to", &to)
		s.step(id, Transfer{to})
	case "unreachable":
		var node uint64
		d.ScanArgs(t, "node", &node)
		s.step(id, Unreachable{node})
	case "remove":
		var node uint64
		d.ScanArgs(t, "node", &node)
		s.step(id, ProposeChange{&raftpb.ConfChange{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: &node}})
	case "learner":
		var node uint64
		d.ScanArgs(t, "node", &node)
		s.members[node] = newMember(t, node, 1, 2, 3)
		s.step(id, ProposeChange{&raftpb.ConfChange{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: &node}})
	case "replace":
		var node, by uint64
		d.ScanArgs(t, "node", &node)
		d.ScanArgs(t, "by", &by)
		s.step(id, ProposeChange{&raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{
			{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: &by}, {Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: &node},
		}}})
	case "ticks":
		var n int
		d.ScanArgs(t, "n", &n)
		s.ticking = true
		for range n {
			s.step(id, Tick{})
		}
		s.ticking = false
	case "hold":
		s.members[id].held = true
	case "release":
		s.members[id].held = false
	case "cut":
		s.cut[id] = true
	case "heal":
		s.cut[id] = false
	case "settle":
		s.settle()
	case "quiet": // settle without printing
		s.settle()
		s.out.Reset()
	case "leaders":
		for id := uint64(1); id <= uint64(len(s.members)); id++ {
			leader := s.members[id].core.Leader()
			s.printf("%d: term %d leader %d self %v", id, leader.Term, leader.ID, leader.Self)
		}
	case "silence":
		progress := s.members[id].core.Progress()
		for other := uint64(1); other <= uint64(len(s.members)); other++ {
			s.printf("%d of %d: heard %v", id, other, progress[other].Active)
		}
		s.printf("settled %v", s.members[id].core.Settled())
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
}

func TestCheck_RefusesWhatNoPeerSends(t *testing.T) {
	u := proto.Uint64
	tests := []struct {
		name string
		from uint64
		m    *raftpb.Message
	}{
		{"another sender", 3, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: u(2), To: u(1), Term: u(2)}},
		{"itself", 1, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: u(1), To: u(1), Term: u(2)}},
		{"a local thread", math.MaxUint64, &raftpb.Message{Type: raftpb.MsgStorageAppendResp.Enum(), From: u(math.MaxUint64), To: u(1), Term: u(2)}},
		{"another receiver", 2, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: u(2), To: u(3), Term: u(2)}},
		{"no term", 2, &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: u(2), To: u(1)}},
		{"a proposal", 2, &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: u(2), To: u(1), Term: u(2)}},
		{"hup", 2, &raftpb.Message{Type: raftpb.MsgHup.Enum(), From: u(2), To: u(1), Term: u(2)}},
		{"an acknowledgement of nothing", 2, &raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: u(2), To: u(1), Term: u(2), Index: u(9)}},
		{"a gap", 2, &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: u(2), To: u(1), Term: u(2), Index: u(1), LogTerm: u(1), Entries: []*raftpb.Entry{{Index: u(3), Term: u(2)}}}},
		{"a nil entry", 2, &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: u(2), To: u(1), Term: u(2), Entries: []*raftpb.Entry{nil}}},
		{"an empty snapshot", 2, &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: u(2), To: u(1), Term: u(2)}},
		{"a read without context", 2, &raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), From: u(2), To: u(1)}},
		{"responses", 2, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: u(2), To: u(1), Term: u(2), Responses: []*raftpb.Message{{}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMember(t, 1, 1, 2, 3)
			if _, err := m.core.Step(Receive{test.from, test.m}); !errors.Is(err, ErrRefused) {
				t.Errorf("got %v", err)
			}
			if _, err := m.core.Step(Campaign{}); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// A member whose disk lost what it had acknowledged must stop: it would count for a majority that does not have the entries.
func TestCheck_StopsWhenAcknowledgedEntriesAreGone(t *testing.T) {
	m := newMember(t, 1, 1, 2, 3)
	_, err := m.core.Step(Receive{2, &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: proto.Uint64(2), To: proto.Uint64(1), Term: proto.Uint64(2), Commit: proto.Uint64(9),
	}})
	if !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "its disk lost some") {
		t.Errorf("got %v", err)
	}
	if _, err := m.core.Step(Tick{}); !errors.Is(err, ErrBroken) {
		t.Errorf("afterwards: %v", err)
	}
}

// FuzzReceive: whatever a peer sends, the core never panics, and never applies what was not committed.
func FuzzReceive(f *testing.F) {
	u := proto.Uint64
	for _, m := range []*raftpb.Message{
		{Type: raftpb.MsgApp.Enum(), Term: u(2), Index: u(1), LogTerm: u(1), Commit: u(2), Entries: []*raftpb.Entry{{Index: u(2), Term: u(2), Data: []byte("x")}}},
		{Type: raftpb.MsgSnap.Enum(), Term: u(3), Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: u(7), Term: u(2), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}}},
		{Type: raftpb.MsgVote.Enum(), Term: u(3), Index: u(5), LogTerm: u(2)},
		{Type: raftpb.MsgAppResp.Enum(), Term: u(2), Index: u(1)},
		{Type: raftpb.MsgHeartbeat.Enum(), Term: u(2), Commit: u(1)},
	} {
		encoded, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded, encoded, true)
	}
	f.Fuzz(func(t *testing.T, first, second []byte, lead bool) {
		m := newMember(t, 1, 1, 2, 3)
		if lead {
			for _, in := range []Input{
				Campaign{},
				Receive{2, &raftpb.Message{Type: raftpb.MsgPreVoteResp.Enum(), From: u(2), To: u(1), Term: u(2)}},
				Receive{2, &raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), From: u(2), To: u(1), Term: u(2)}},
			} {
				m.feed(in)
			}
		}
		for _, encoded := range [][]byte{first, second} {
			message := &raftpb.Message{}
			if len(encoded) > 1<<16 || proto.Unmarshal(encoded, message) != nil {
				return
			}
			message.From, message.To = u(2), u(1)
			m.feed(Receive{2, message})
		}
		m.feed(Tick{})
	})
}

// feed steps an input and makes everything durable and applied at once.
func (m *member) feed(in Input) {
	effects, err := m.core.Step(in)
	if errors.Is(err, ErrBroken) {
		return
	}
	for _, a := range effects.Appends {
		if a.Snapshot != nil {
			_ = m.storage.ApplySnapshot(a.Snapshot) // too old ones are refused
		}
		if len(a.Entries) > 0 && m.storage.Append(a.Entries) != nil {
			return
		}
		m.feed(Appended{a})
	}
	for _, a := range effects.Applies {
		m.feed(Applied{a})
	}
}
