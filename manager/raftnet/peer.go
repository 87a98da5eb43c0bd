package raftnet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// peer sends messages to one member.
type peer struct {
	// Constant after newPeer.
	member    *api.Member
	dial      DialFunc
	sink      store.Sink
	logger    *slog.Logger
	queue     chan letter
	snapshots chan *raftpb.Message
	rate      *rate.Limiter // of snapshots, in bytes; all peers share it
	cancel    context.CancelFunc
}

func newPeer(m *api.Member, dial DialFunc, sink store.Sink, limiter *rate.Limiter, logger *slog.Logger) *peer {
	return &peer{
		member: m, dial: dial, sink: sink, rate: limiter, logger: logger,
		queue: make(chan letter, queueLength), snapshots: make(chan *raftpb.Message, 1),
	}
}

// put queues a message, or drops it. It does not block. It encodes at once, because the library goes on using what messages
// point to.
func (p *peer) put(m *raftpb.Message) {
	if m.GetType() == raftpb.MsgSnap {
		select {
		case p.snapshots <- m:
		default: // another one is under way
		}
		return
	}
	encoded, err := proto.Marshal(m)
	if err != nil {
		p.logger.Error("raft message can't be encoded", "error", err)
		return
	}
	select {
	case p.queue <- newLetter(m, encoded):
	default: // raft sends it again
	}
}

// run sends until ctx ends.
func (p *peer) run(ctx context.Context) {
	conn, err := p.dial(p.member.GetNodeId(), p.member.GetAddress(), dialOptions()...)
	if err != nil { // a matter of configuration, not of reachability
		p.logger.Error("raft peer can't be dialed", "node", p.member.GetNodeId(), "error", err)
		return
	}
	defer conn.Close()
	client := api.NewRaftClient(conn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.runSnapshots(ctx)
	}()
	p.runMessages(ctx, client)
	<-done
}

func (p *peer) runMessages(ctx context.Context, client api.RaftClient) {
	pause, reachable := minBackoff, true
	for ctx.Err() == nil {
		sent, err := p.stream(ctx, client)
		if ctx.Err() != nil {
			return
		}
		if sent {
			pause, reachable = minBackoff, true
		}
		if reachable {
			p.logger.Warn("raft peer is unreachable", "node", p.member.GetNodeId(), "address", p.member.GetAddress(), "error", err)
			reachable = false
		}
		p.failed(err)
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, maxBackoff)
		p.drop()
	}
}

// failed tells the store about an error of a stream.
func (p *peer) failed(err error) {
	if isRemoved(err) {
		p.sink.Removed()
	}
	p.sink.Unreachable(p.member.GetRaftId())
}

func (p *peer) drop() {
	for {
		select {
		case <-p.queue:
		default:
			return
		}
	}
}

// sleep returns false when ctx ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// stream opens a stream and sends the queue until it breaks; sent is true when the other side took a message.
func (p *peer) stream(ctx context.Context, client api.RaftClient) (sent bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := client.Send(ctx)
	if err != nil {
		return false, err
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.RecvMsg(new(api.SendResponse)) }()
	watchdog := time.AfterFunc(sendTimeout, func() { cancel(errStuck) })
	defer watchdog.Stop()
	watchdog.Stop() // runs only while a message is being sent
	send := func(l letter) error {
		watchdog.Reset(sendTimeout)
		defer watchdog.Stop()
		return stream.Send(&api.SendRequest{Message: l.encoded})
	}
	wait := time.NewTimer(noticeDelay)
	defer wait.Stop()
	for {
		select {
		case err := <-ended: // noticed without a message: the next one may be a vote that nobody sends again
			return sent, err
		case l := <-p.queue:
			if err := p.post(l, wait, send); err != nil { // io.EOF says no more than that the stream has ended
				return sent, <-ended
			}
			sent = true
		}
	}
}

// errStuck ends a stream whose other end takes nothing.
var errStuck = errors.New("the member does not read")

// isRemoved reports whether a member refused this one because it was removed.
func isRemoved(err error) bool {
	s, ok := status.FromError(err)
	return ok && s.Code() == codes.PermissionDenied && s.Message() == store.ErrRemoved.Error()
}

// Announce tells the leader, through any manager, where a member is and what its program understands. It returns store.ErrRemoved
// when the member was removed.
func Announce(ctx context.Context, conn grpc.ClientConnInterface, member *api.Member) error {
	_, err := api.NewRaftClient(conn).UpdateMember(ctx, &api.UpdateMemberRequest{
		RaftId: member.GetRaftId(), NodeId: member.GetNodeId(), Address: member.GetAddress(), Protocol: member.GetProtocol(),
	})
	if isRemoved(err) {
		return store.ErrRemoved
	}
	return err
}
