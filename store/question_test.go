package store_test

import (
	"bytes"
	"context"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// sent is a transport that keeps what it should send.
type sent struct{ messages []*raftpb.Message }

func (*sent) Run(context.Context, store.Sink) error { return nil }
func (*sent) SetMembers([]*api.Member)              {}
func (s *sent) Send(messages []*raftpb.Message)     { s.messages = append(s.messages, messages...) }

// TestBarrier_IsNeverAskedTwiceInTheSameWords concerns I1: the leader took the first question after a restart for the first one
// of the life before, whose answer was on its way, and the read was stale. The simulation found it.
func TestBarrier_IsNeverAskedTwiceInTheSameWords(t *testing.T) {
	disk := store.Disk{FS: vfs.NewMem(), Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	joined := &api.JoinResponse{RaftId: 2, Members: []*api.Member{{RaftId: 1, NodeId: "m1"}, {RaftId: 2, NodeId: "m2", Learner: true}}}
	if err := store.Prepare(disk, "c1", joined); err != nil {
		t.Fatal(err)
	}
	first, second := question(t, disk), question(t, disk)
	if len(first) == 0 || bytes.Equal(first, second) {
		t.Errorf("the first question of one life is %x, that of the next %x", first, second)
	}
}

// question starts a follower and returns what it asks the leader for its first barrier.
func question(t *testing.T, disk store.Disk) []byte {
	t.Helper()
	transport := &sent{}
	s, err := store.Open(store.Config{Disk: disk, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Play()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	heartbeat := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: proto.Uint64(1), To: proto.Uint64(2), Term: proto.Uint64(1)}
	if err := p.Receive(1, heartbeat); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Barrier(); err != nil {
		t.Fatal(err)
	}
	for _, m := range transport.messages {
		if m.GetType() == raftpb.MsgReadIndex {
			return m.GetEntries()[0].GetData()
		}
	}
	t.Fatal("it asks nothing")
	return nil
}
