package raftnet_test

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// tap counts the data of snapshots that arrive anywhere in a network, and can cut the streams that carry them.
type tap struct {
	mu       sync.Mutex
	received int
	streams  int
	cutAfter int  // bytes of one stream after which it is cut; 0 is never
	cuts     int  // how many streams are still to be cut
	old      bool // managers know only the method that can't resume
	whole    int  // streams of that method
}

func (c *tap) intercept(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c.mu.Lock()
	old := c.old
	switch info.FullMethod {
	case api.Raft_ResumeSnapshot_FullMethodName:
		if old {
			c.mu.Unlock()
			return status.Error(codes.Unimplemented, "unknown method ResumeSnapshot")
		}
		c.streams++
	case api.Raft_SendSnapshot_FullMethodName:
		c.whole++
	}
	c.mu.Unlock()
	return handler(server, &tapped{ServerStream: stream, tap: c})
}

type tapped struct {
	grpc.ServerStream
	tap  *tap
	seen int // data of this stream
}

func (s *tapped) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	request, ok := m.(*api.ResumeSnapshotRequest)
	if !ok {
		return nil
	}
	s.tap.mu.Lock()
	defer s.tap.mu.Unlock()
	if s.tap.cuts > 0 && s.seen >= s.tap.cutAfter {
		s.tap.cuts--
		return status.Error(codes.Unavailable, "cut")
	}
	s.seen += len(request.GetData())
	s.tap.received += len(request.GetData())
	return nil
}

// large makes a state of a few MiB, and returns about how many bytes.
func large(t *testing.T, m *node, mebibytes int) int {
	t.Helper()
	for i := range mebibytes {
		storetest.Create(t, m.store, &api.Secret{Id: fmt.Sprint("s", i), Spec: &api.SecretSpec{
			Annotations: &api.Annotations{Name: fmt.Sprint(i)}, Data: make([]byte, 1<<20-1<<10),
		}})
	}
	return mebibytes << 20
}

func TestSnapshot_GoesOnWhereItWasCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		size := large(t, m1, 6)
		n.tap.mu.Lock()
		n.tap.cutAfter, n.tap.cuts = 1<<20, 3 // each stream brings some
		n.tap.mu.Unlock()
		m2 := n.join("m2", m1)
		n.same(0, m1, m2)
		n.tap.mu.Lock()
		defer n.tap.mu.Unlock()
		if n.tap.cuts != 0 || n.tap.streams != 4 {
			t.Errorf("%d streams, %d not cut", n.tap.streams, n.tap.cuts)
		}
		if n.tap.received > size+size/20 {
			t.Errorf("%d bytes were sent of a state of %d: it did not go on where it was", n.tap.received, size)
		}
	})
}

// A stream that breaks at once, again and again, is given up, and raft is told so: it tries again by itself.
func TestSnapshot_IsGivenUpWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		large(t, m1, 2)
		n.tap.mu.Lock()
		n.tap.cuts = 10
		n.tap.mu.Unlock()
		n.same(0, m1, n.join("m2", m1))
	})
}

// Managers of a version that can't resume get snapshots by the method that they know.
func TestSnapshot_ReachesManagersThatCannotResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.tap.old = true
		m1 := n.first()
		large(t, m1, 3)
		n.same(0, m1, n.join("m2", m1))
		if n.tap.whole == 0 || n.tap.received > 0 {
			t.Errorf("%d streams, %d bytes resumed", n.tap.whole, n.tap.received)
		}
	})
}

// A snapshot takes the time that the rate allows, while heartbeats and writes pass it.
func TestSnapshot_IsBoundedInRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.rate = 1 << 18
		m1 := n.first()
		m2 := n.join("m2", m1)
		large(t, m1, 5)
		term := m1.store.Status().Term
		began := time.Now()
		m3 := n.join("m3", m1)
		if took := time.Since(began); took < 15*time.Second || took > 25*time.Second {
			t.Errorf("5 MiB at 256 KiB/s took %v", took)
		}
		n.write(m1, 0, 5)
		n.same(5, m1, m2, m3)
		if now := m1.store.Status(); now.Term != term || !now.Self {
			t.Errorf("leadership moved meanwhile: %+v", now.Leadership)
		}
	})
}

// sender speaks ResumeSnapshot by hand.
type sender struct {
	t      *testing.T
	client api.RaftClient
	from   uint64
	to     uint64
}

// begin opens a stream with a snapshot of an index whose data are announced, and returns the offset that the receiver names.
func (s sender) begin(term, index uint64, data []byte) (grpc.BidiStreamingClient[api.ResumeSnapshotRequest, api.ResumeSnapshotResponse], uint64, error) {
	s.t.Helper()
	stream, err := s.client.ResumeSnapshot(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	head, err := proto.Marshal(&raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: &s.from, To: &s.to, Term: &term,
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: proto.Uint64(1), ConfState: &raftpb.ConfState{Voters: []uint64{s.from}}}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	digest := sha256.Sum256(data)
	if err := stream.Send(&api.ResumeSnapshotRequest{Message: head, Sha256: digest[:], Size: uint64(len(data))}); err != nil {
		s.t.Fatal(err)
	}
	answer, err := stream.Recv()
	return stream, answer.GetOffset(), err
}

func TestResumeSnapshot_KeepsOneSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		m2 := n.join("m2", m1)
		s := sender{t, n.client("m1", m2), m1.store.Status().RaftID, m2.store.Status().RaftID}
		data := []byte("0123456789")
		part := func(term, index uint64, data, chunk []byte) uint64 {
			t.Helper()
			stream, offset, err := s.begin(term, index, data)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&api.ResumeSnapshotRequest{Data: chunk}); err != nil {
				t.Fatal(err)
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
				t.Errorf("a part of a snapshot: %v", err)
			}
			return offset
		}
		for _, step := range []struct {
			name        string
			term, index uint64
			data        []byte
			want        uint64
		}{
			{"the first", 2, 900, data, 0},
			{"the same goes on", 2, 900, data, 2},
			{"also of a later leader", 3, 900, data, 4},
			{"another index begins anew", 3, 901, data, 0},
			{"other data begin anew", 3, 901, []byte("9876543210"), 0},
			{"and what they replaced, too", 3, 901, data, 0},
		} {
			if got := part(step.term, step.index, step.data, []byte("01")); got != step.want {
				t.Errorf("%s: it holds %d bytes, want %d", step.name, got, step.want)
			}
		}
		if _, _, err := s.begin(2, 902, data); status.Code(err) != codes.Unavailable {
			t.Errorf("a leader of an earlier term: %v", err)
		}
		time.Sleep(6 * time.Minute)
		if got := part(3, 901, data, nil); got != 0 {
			t.Errorf("it holds %d bytes after 6 minutes", got)
		}
	})
}

func TestResumeSnapshot_Refuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		m2 := n.join("m2", m1)
		s := sender{t, n.client("m1", m2), m1.store.Status().RaftID, m2.store.Status().RaftID}

		stream, _, err := s.begin(2, 900, []byte("short"))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&api.ResumeSnapshotRequest{Data: []byte("longer than announced")}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("more data than announced: %v", err)
		}

		stream, _, err = s.begin(2, 900, []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		other, offset, err := s.begin(2, 900, []byte("data"))
		if err != nil || offset != 0 {
			t.Fatal(offset, err)
		}
		if err := stream.Send(&api.ResumeSnapshotRequest{Data: []byte("da")}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("a stream whose place another took: %v", err)
		}
		if err := other.Send(&api.ResumeSnapshotRequest{Data: []byte("dato")}); err != nil {
			t.Fatal(err)
		}
		if err := other.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("other data than announced: %v", err)
		}

		for name, first := range map[string]*api.ResumeSnapshotRequest{
			"no digest":     {Message: snapshotHead(t)},
			"data at once":  {Message: snapshotHead(t), Sha256: make([]byte, 32), Data: []byte("x")},
			"too large":     {Message: snapshotHead(t), Sha256: make([]byte, 32), Size: 1<<30 + 1},
			"no snapshot":   {Message: []byte("garbage"), Sha256: make([]byte, 32)},
			"no message":    {Sha256: make([]byte, 32)},
			"other message": {Message: heartbeat(t), Sha256: make([]byte, 32)},
		} {
			stream, err := s.client.ResumeSnapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(first); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := m2.store.Update(t.Context(), "", func(store.Tx) error { return nil }); err == nil {
			t.Error("m2 leads")
		}
	})
}

func snapshotHead(t *testing.T) []byte {
	t.Helper()
	encoded, err := proto.Marshal(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), Snapshot: &raftpb.Snapshot{}})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func heartbeat(t *testing.T) []byte {
	t.Helper()
	encoded, err := proto.Marshal(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum()})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}
