package raftnet

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// DialFunc makes a connection to a manager, which must prove to be the node. opts come before the function's own options.
type DialFunc func(nodeID, address string, opts ...grpc.DialOption) (*grpc.ClientConn, error)

const (
	// queueLength is the messages that wait for one member: a few election time-outs of heartbeats and full windows.
	queueLength = 1024
	// minBackoff and maxBackoff are the pauses after failures; the longest is shorter than an election time-out, so that a
	// member that comes back does not start an election because nobody reached it.
	minBackoff = 50 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
	// dialTimeout bounds one try to connect.
	dialTimeout = 2 * time.Second
	// userTimeout is how long sent data may stay without acknowledgement: longer than an election, as a shorter silence is
	// normal on a busy network.
	userTimeout = 3 * time.Second
	// sendTimeout is how long one message may wait for a member that does not read: then the stream is given up.
	sendTimeout = 5 * time.Second
)

// DefaultSnapshotRate is the bytes of snapshots that a manager sends in a second, to all members together: half of what a link of
// 1 Gbit/s carries. The other half is for the log and the heartbeats. The largest snapshot takes 16 s.
const DefaultSnapshotRate = 64 << 20

// TransportConfig is what NewTransport needs.
type TransportConfig struct {
	Dial   DialFunc
	Logger *slog.Logger
	// SnapshotRate bounds the bytes of snapshots that are sent in a second; 0 is DefaultSnapshotRate.
	SnapshotRate int
}

// Transport sends messages to members. It implements store.Transport.
type Transport struct {
	dial   DialFunc
	logger *slog.Logger
	rate   *rate.Limiter // of snapshots, in bytes

	mu      sync.Mutex
	members []*api.Member             // guarded by mu; the messages are immutable
	peers   map[uint64]*peer          // guarded by mu; by raft id
	start   func(m *api.Member) *peer // guarded by mu; nil unless Run is running
}

// NewTransport returns a transport that does nothing yet. The store runs it.
func NewTransport(cfg TransportConfig) *Transport {
	limit := cmp.Or(cfg.SnapshotRate, DefaultSnapshotRate)
	return &Transport{
		dial: cfg.Dial, logger: cfg.Logger, rate: rate.NewLimiter(rate.Limit(limit), chunkSize), peers: map[uint64]*peer{},
	}
}

// Run works until ctx ends.
func (t *Transport) Run(ctx context.Context, sink store.Sink) error {
	var wg sync.WaitGroup
	t.mu.Lock()
	t.start = func(m *api.Member) *peer {
		p := newPeer(m, t.dial, sink, t.rate, t.logger)
		peerCtx, cancel := context.WithCancel(ctx)
		p.cancel = cancel
		wg.Go(func() { p.run(peerCtx) })
		return p
	}
	t.update()
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	t.start = nil
	t.update()
	t.mu.Unlock()
	wg.Wait()
	return nil
}

// SetMembers says who the members are.
func (t *Transport) SetMembers(members []*api.Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = members
	t.update()
}

// farewell is how long the messages that are on their way to a removed member have to get there: the last says that it was removed, and else
// it learns that only from an election that it asks for.
const farewell = 20 * time.Millisecond

// update starts and stops peers so that they are the members. Called with mu.
func (t *Transport) update() {
	keep := map[uint64]*api.Member{}
	if t.start != nil {
		for _, m := range t.members {
			keep[m.GetRaftId()] = m
		}
	}
	for id, p := range t.peers {
		switch m := keep[id]; {
		case m == nil && t.start != nil:
			time.AfterFunc(farewell, p.cancel)
		case m == nil || m.GetAddress() != p.member.GetAddress():
			p.cancel()
		default:
			continue
		}
		delete(t.peers, id)
	}
	for id, m := range keep {
		if t.peers[id] == nil {
			t.peers[id] = t.start(m)
		}
	}
}

// Send queues messages, or drops them.
func (t *Transport) Send(messages []*raftpb.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range messages {
		if p := t.peers[m.GetTo()]; p != nil {
			p.put(m)
		}
	}
}

// dialOptions make connections come back soon after a failure: gRPC's own pauses grow to two minutes, and TCP's on a
// connection whose packets are lost do too.
func dialOptions() []grpc.DialOption {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: setUserTimeout}
	return []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minBackoff, Multiplier: 2, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: dialTimeout,
		}),
	}
}

// setUserTimeout makes the kernel give a connection up whose data nobody acknowledges.
func setUserTimeout(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	return errors.Join(err, failed)
}
