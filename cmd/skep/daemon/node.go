package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/skep-io/skep/agent"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/gossip"
	"github.com/skep-io/skep/manager"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
)

// Names in the data directory.
const (
	// storeDir is the cluster store.
	storeDir = "raft"
	// backupDir holds the scheduled backups of a swarm that names no other directory.
	backupDir = "backups"
	// formerStoreDir is where a rejoin keeps the store that it replaces.
	formerStoreDir = "raft.former"
)

// keepaliveTime is how soon a node notices that a peer's machine is gone, when nothing else is sent.
const keepaliveTime = 5 * time.Second

// node is this machine as a member of a swarm: an agent, a manager while its certificate says so, and what keeps its identity
// current.
type node struct {
	// Constant after newNode.
	daemon   *Daemon
	logger   *slog.Logger
	keys     *nodeKeys
	identity *ca.Identity
	// founding is what the store of a new swarm begins with, or nil.
	founding *caserver.Founding
	// first says that the node was the first manager of its swarm when it started: of a new one, or of one from a backup.
	first bool
	// quit is closed when the node is to stop.
	quit     chan struct{}
	quitOnce sync.Once
	// done is closed when run has returned.
	done chan struct{}
	// ready is closed when the node takes part in the swarm.
	ready     chan struct{}
	readyOnce sync.Once
	// grouped is closed when this manager has a store: the group took it in.
	grouped     chan struct{}
	groupedOnce sync.Once
	// voting is closed when this manager has the state of the group, and a vote.
	voting     chan struct{}
	votingOnce sync.Once
	// refused is closed when the managers refuse to have this one among them, for a reason that time does not mend.
	refused     chan struct{}
	refusedOnce sync.Once
	renewer     *ca.Renewer
	// gossip is made before the agent.
	gossip *gossip.Gossip

	// mu guards the rest.
	mu         sync.Mutex
	membership membership
	kek        seal.Key
	source     seal.Source
	// holds is what holds the node's own key, on a worker too, where there is no kek in memory.
	holds seal.Source
	// store is that of this manager, or nil: opened before the node runs, so that its errors reach the user.
	store *store.Store
	agent *agent.Agent
	// listener is where other nodes reach this one, once it listens.
	listener net.Listener
	// manager is what runs on store, or nil.
	manager *manager.Manager
	// expired is why a certificate that has expired is not renewed, as far as it was tried.
	expired error
	// founded says that the membership of the first manager is on the disk.
	founded bool
	// problem is why this manager is not in the group yet, or nil.
	problem error
	// removed says that the group removed this manager, whose certificate still says that it is one.
	removed bool
	// launched says that run will return, or has.
	launched bool
}

// errStopped is why a node's context ends when it leaves.
var errStopped = errors.New("the node leaves its swarm")

func (d *Daemon) newNode(m membership, keys *nodeKeys, identity *ca.Identity, kek seal.Key, source seal.Source) *node {
	n := &node{
		daemon: d, logger: d.logger, keys: keys, identity: identity,
		done: make(chan struct{}), quit: make(chan struct{}), ready: make(chan struct{}), voting: make(chan struct{}),
		refused: make(chan struct{}), grouped: make(chan struct{}), membership: m, kek: kek, source: source, holds: source,
	}
	n.renewer = ca.NewRenewer(ca.RenewerConfig{Identity: identity, Renew: n.renew, Save: keys.Save, Logger: n.logger})
	return n
}

// stop ends the node and waits until it has closed what it opened.
func (n *node) stop() {
	n.quitOnce.Do(func() { close(n.quit) })
	n.mu.Lock()
	launched := n.launched
	n.mu.Unlock()
	if launched {
		<-n.done
		return
	}
	if err := n.release(); err != nil {
		n.logger.Warn("close a node that did not start", "error", err)
	}
}

// release closes what was opened for a node and not taken over by its parts.
func (n *node) release() error {
	n.mu.Lock()
	listener, s := n.listener, n.store
	n.listener, n.store = nil, nil
	n.mu.Unlock()
	var err error
	if listener != nil {
		if err = listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	return errors.Join(err, discard(s))
}

// discard closes a store that nobody ran; nil is none.
func discard(s *store.Store) error {
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.Run(ctx)
}

// listen opens the node's address for other nodes.
func (d *Daemon) listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.New(fault.Precondition, "listen for other nodes: %w: free the address, or give another --listen-addr", err)
	}
	return listener, nil
}

// run takes part in the swarm until ctx ends or the node stops. An error says what broke.
func (n *node) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer func() { err = errors.Join(err, n.release()) }()
	n.mu.Lock()
	listener := n.listener
	n.mu.Unlock()
	if listener == nil {
		if listener, err = n.daemon.listen(n.membership.ListenAddress); err != nil {
			return err
		}
	}
	// The agent comes last: it alone must be closed.
	if err = n.makeGossip(); err == nil {
		err = n.makeAgent()
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-n.quit:
			cancel(errStopped)
		case <-ctx.Done():
		}
		return nil
	})
	group.Go(func() error { return n.serve(ctx, listener) })
	group.Go(func() error { return n.renewer.Run(ctx) })
	group.Go(func() error { return n.followRole(ctx) })
	group.Go(func() error { return n.agent.Run(ctx) })
	if n.membership.AdvertiseOwn { // others would probe the router in vain
		group.Go(func() error { n.gossip.Run(ctx); return nil })
	}
	return errors.Join(group.Wait(), n.agent.Close())
}

// serve answers other nodes.
func (n *node) serve(ctx context.Context, listener net.Listener) error {
	return serve(ctx, n.daemon.networkServer(n.agent, grpc.Creds(introducing{n.identity.ServerCredentials()})), newDoorkeeper(listener))
}

// networkServer makes the server for other nodes.
func (d *Daemon) networkServer(a *agent.Agent, options ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(slices.Concat([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTime}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
	}, d.interceptors(), options)...)
	a.Register(server)
	for _, desc := range []*grpc.ServiceDesc{
		&api.Control_ServiceDesc, &api.CA_ServiceDesc, &api.Dispatcher_ServiceDesc, &api.Raft_ServiceDesc,
		&api.Audit_ServiceDesc, &api.Tasks_ServiceDesc,
	} {
		d.managed.offer(server, desc)
	}
	return server
}

// dial returns a connection to a node, which must prove to be it: nodeID, or any manager for ca.OUManager. It connects when used.
func (n *node) dial(name, address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return n.dialAs(n.identity.ClientCredentials(name), address, options...)
}

func (n *node) dialAs(creds credentials.TransportCredentials, address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options,
		grpc.WithTransportCredentials(creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTime, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	)
	n.mu.Lock()
	if address == n.membership.AdvertiseAddress {
		address = localAddress(n.membership.ListenAddress)
	}
	n.mu.Unlock()
	return grpc.NewClient("passthrough:///"+address, options...)
}

// managers returns host:port of the managers that this node knows, itself first when it is one.
func (n *node) managers() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	if n.store != nil {
		out = append(out, n.membership.AdvertiseAddress)
	}
	return append(out, n.membership.Managers...)
}

// eachManager calls fn with a connection to one manager after the other until it succeeds.
func (n *node) eachManager(ctx context.Context, fn func(context.Context, *grpc.ClientConn) error) error {
	return n.eachManagerAs(ctx, n.identity.ClientCredentials(ca.OUManager), fn)
}

func (n *node) eachManagerAs(
	ctx context.Context, creds credentials.TransportCredentials, fn func(context.Context, *grpc.ClientConn) error,
) error {
	var errs []error
	for _, address := range n.managers() {
		conn, err := n.dialAs(creds, address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		err = fault.FromStatus(fn(ctx, conn))
		if closeErr := conn.Close(); err == nil {
			return closeErr
		}
		errs = append(errs, fmt.Errorf("%s: %w", address, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return fault.New(fault.Unavailable, "no manager is known")
	}
	return errors.Join(errs...)
}
