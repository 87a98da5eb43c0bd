package raftnet_test

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/raftnet"
	"github.com/skep-io/skep/store"
)

// A member was away for a moment, and another had nothing to say to it meanwhile. Its next message, often a request for a vote,
// arrives: nobody would send it again before another election time-out.
func TestTransport_LosesNothingAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		to := &inbox{}
		server := n.serve("m2:2377", to)
		transport := raftnet.NewTransport(raftnet.TransportConfig{Dial: n.dialAs("m1"), Logger: slog.New(slog.DiscardHandler)})
		go transport.Run(t.Context(), nobody{})
		transport.SetMembers([]*api.Member{{RaftId: 2, NodeId: "m2", Address: "m2:2377"}})
		send := func(term uint64) {
			transport.Send([]*raftpb.Message{{Type: raftpb.MsgVote.Enum(), To: new(uint64(2)), Term: new(term)}})
			time.Sleep(time.Second) // of the bubble: longer than any pause
		}
		time.Sleep(time.Second)
		send(1)
		server.Stop()
		n.serve("m2:2377", to)
		time.Sleep(time.Second)
		send(2)
		if got := to.received(); len(got) != 2 || got[0].GetTerm() != 1 || got[1].GetTerm() != 2 {
			t.Errorf("%v arrived, want the messages of terms 1 and 2", got)
		}
	})
}

// connected returns a transport with a stream to one member, which remembers what arrives.
func connected(t *testing.T) (*raftnet.Transport, *inbox) {
	t.Helper()
	n, to := newNetwork(t), &inbox{}
	n.serve("m2:2377", to)
	transport := raftnet.NewTransport(raftnet.TransportConfig{Dial: n.dialAs("m1"), Logger: slog.New(slog.DiscardHandler)})
	go transport.Run(t.Context(), nobody{})
	transport.SetMembers([]*api.Member{{RaftId: 2, NodeId: "m2", Address: "m2:2377"}})
	time.Sleep(time.Second) // of the bubble: until the stream is there
	return transport, to
}

// appending is a MsgApp of term 3 that follows the entry at index with as many more.
func appending(index, commit uint64, entries int) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), To: new(uint64(2)), Term: new(uint64(3)), Index: &index, Commit: &commit}
	for range entries {
		m.Entries = append(m.Entries, &raftpb.Entry{Data: []byte("x")})
	}
	return m
}

// A message that says no more than what is committed is left out if another one follows at once that says so, too, and only then.
func TestTransport_LeavesOutNoticesThatOthersSayToo(t *testing.T) {
	otherTerm := appending(5, 5, 1)
	otherTerm.Term = new(uint64(4))
	for name, c := range map[string]struct {
		messages []*raftpb.Message
		arrive   []int
	}{
		"alone":             {[]*raftpb.Message{appending(5, 5, 0)}, []int{0}},
		"before entries":    {[]*raftpb.Message{appending(5, 5, 0), appending(5, 5, 1)}, []int{1}},
		"several":           {[]*raftpb.Message{appending(5, 5, 0), appending(5, 6, 0), appending(6, 7, 0)}, []int{2}},
		"behind entries":    {[]*raftpb.Message{appending(4, 4, 1), appending(5, 5, 0)}, []int{0, 1}},
		"entries stay":      {[]*raftpb.Message{appending(4, 4, 1), appending(5, 5, 1)}, []int{0, 1}},
		"less committed":    {[]*raftpb.Message{appending(5, 5, 0), appending(5, 4, 1)}, []int{0, 1}},
		"an earlier place":  {[]*raftpb.Message{appending(5, 5, 0), appending(4, 5, 1)}, []int{0, 1}},
		"another term":      {[]*raftpb.Message{appending(5, 5, 0), otherTerm}, []int{0, 1}},
		"of another kind":   {[]*raftpb.Message{appending(5, 5, 0), {Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(2)), Term: new(uint64(3))}}, []int{0, 1}},
		"two with a notice": {[]*raftpb.Message{appending(5, 5, 0), appending(4, 5, 1), appending(6, 6, 0), appending(6, 6, 2)}, []int{0, 1, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				transport, to := connected(t)
				transport.Send(c.messages)
				time.Sleep(time.Second)
				got := to.received()
				var want []*raftpb.Message
				for _, i := range c.arrive {
					want = append(want, c.messages[i])
				}
				if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// serve answers at an address with a server of the test's own.
func (n *network) serve(address string, server api.RaftServer) *grpc.Server {
	answering := grpc.NewServer()
	api.RegisterRaftServer(answering, server)
	listener := grpctest.Listen()
	n.mu.Lock()
	n.listeners[address] = listener
	n.mu.Unlock()
	grpctest.Serve(n.t, answering, listener)
	return answering
}

// However many notices follow each other, the first is not held up for longer than it may be.
func TestTransport_HoldsNoNoticeForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, to := connected(t)
		for i := range uint64(20) {
			transport.Send([]*raftpb.Message{appending(i, i, 0)})
			time.Sleep(400 * time.Microsecond)
		}
		if got := len(to.received()); got < 5 {
			t.Errorf("%d of 20 notices in 8 ms had arrived", got)
		}
	})
}

// A member that is removed still gets what was on its way: it says so.
func TestTransport_DeliversTheLastMessagesToAMemberThatIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, to := connected(t)
		transport.Send([]*raftpb.Message{appending(5, 5, 0)})
		transport.SetMembers(nil)
		transport.Send([]*raftpb.Message{appending(6, 6, 0)})
		time.Sleep(time.Second)
		if got := to.received(); len(got) != 1 || got[0].GetCommit() != 5 {
			t.Errorf("%v arrived, want what was sent before it was removed", got)
		}
	})
}

// inbox remembers the messages that arrive.
type inbox struct {
	api.UnimplementedRaftServer

	mu       sync.Mutex
	messages []*raftpb.Message
}

func (b *inbox) Send(stream grpc.ClientStreamingServer[api.SendRequest, api.SendResponse]) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		m := &raftpb.Message{}
		if err := proto.Unmarshal(request.GetMessage(), m); err != nil {
			return err
		}
		b.mu.Lock()
		b.messages = append(b.messages, m)
		b.mu.Unlock()
	}
}

func (b *inbox) received() []*raftpb.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages)
}

// nobody hears what the transport reports.
type nobody struct{ store.Sink }

func (nobody) Unreachable(uint64) {}

func (nobody) Removed() {}
