package raftnet_test

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/catest"
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
		if got := to.received(); !slices.Equal(got, []uint64{1, 2}) {
			t.Errorf("the messages of the terms %v arrived, want 1 and 2", got)
		}
	})
}

// serve answers at an address with a server of the test's own.
func (n *network) serve(address string, server api.RaftServer) *grpc.Server {
	answering := grpc.NewServer()
	api.RegisterRaftServer(answering, server)
	listener := catest.Listen()
	n.mu.Lock()
	n.listeners[address] = listener
	n.mu.Unlock()
	go answering.Serve(listener)
	n.t.Cleanup(answering.Stop)
	return answering
}

// inbox remembers the terms of the messages that arrive.
type inbox struct {
	api.UnimplementedRaftServer

	mu    sync.Mutex
	terms []uint64
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
		b.terms = append(b.terms, m.GetTerm())
		b.mu.Unlock()
	}
}

func (b *inbox) received() []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.terms)
}

// nobody hears what the transport reports.
type nobody struct{ store.Sink }

func (nobody) Unreachable(uint64) {}

func (nobody) Removed() {}
