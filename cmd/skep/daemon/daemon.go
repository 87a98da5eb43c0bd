package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/store/seal"
)

// errNotManager, errNotMember and errMember are Docker's words for what a node's state forbids.
var (
	errNotManager = fault.New(fault.Precondition,
		"This node is not a swarm manager. Use \"skep swarm init\" or \"skep swarm join\" to connect this node to swarm and try again, or run the command on a manager.")
	errWorker = fault.New(fault.Precondition,
		"This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.")
	errNotYet = fault.New(fault.Unavailable,
		"This node is a manager that does not take part yet: it starts, or waits for the other managers. Try again soon.")
	errGone = fault.New(fault.Precondition,
		"This manager was removed from the swarm. If it was only demoted, it goes on as a worker in a moment; "+
			"if the node was removed, run \"skep swarm leave --force\", and join it again.")
	errNotMember = fault.New(fault.Precondition, "This node is not part of a swarm")
	errMember    = fault.New(fault.Precondition,
		"This node is already part of a swarm. Use \"skep swarm leave\" to leave this swarm and join another one.")
	errLocked = fault.New(fault.Precondition,
		"Swarm is encrypted and needs to be unlocked before it can be used. Please use \"skep swarm unlock\" to unlock it.")
)

// Daemon is this machine's node. Make one with New and call Run once.
type Daemon struct {
	api.UnimplementedDaemonServer

	// Constant after New.
	cfg        Config
	logger     *slog.Logger
	disk       disk
	own        ownKey
	images     *image.Store
	supervisor supervisor
	runtime    *client.Client
	managed    *managedServices
	authorizer *authz.Authorizer
	people     *authz.People
	// start hands a node to Run, which owns its goroutines.
	start chan *node
	// fallen has room for one signal: the node stopped by itself, or could not come back, and may be tried again.
	fallen chan struct{}
	// resumed is closed once the daemon knows which node this machine is by its disk.
	resumed     chan struct{}
	resumedOnce sync.Once

	// changing orders changes of state: init, join, leave, unlock.
	changing sync.Mutex

	// mu guards the rest. It is held for moments only.
	mu sync.Mutex
	// current is the node, or nil while this machine is in no swarm, or can't come back to its own.
	current *node
	// joining ends the join that is under way; nil while there is none.
	joining context.CancelCauseFunc
	// applicant is the key of a join that is under way, waits, or failed half way; or nil.
	applicant *applicant
	// locked says that the node waits for its unlock key. Once it was given, unlock keeps it, for a node that stops by itself.
	locked bool
	unlock seal.Key
	// broken is why the node does not run, or nil.
	broken error
}

// New opens everything that the daemon needs. Run closes it.
func New(ctx context.Context, cfg Config) (*Daemon, error) {
	if os.Geteuid() != 0 {
		return nil, fault.New(fault.PermissionDenied, "skep daemon must run as root: it makes namespaces, mounts and cgroups")
	}
	disk, err := openDisk(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	images, err := image.Open(disk.path("images"), image.WithLogger(cfg.Logger))
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		cfg: cfg, logger: cfg.Logger, disk: disk, own: ownKey{disk: disk, provider: cfg.KeyProvider, credentials: cfg.Credentials},
		images: images, start: make(chan *node), fallen: make(chan struct{}, 1), resumed: make(chan struct{}),
	}
	d.managed, d.people = newManagedServices(d.absence), authz.NewPeople()
	d.authorizer = authz.New(authz.Config{
		ClusterID: d.clusterID, Nodes: nodeRecords{d.managed, d.revoked}, Users: userRecords{d.managed},
		OnRefusal: func(ctx context.Context, r authz.Refusal) {
			d.logger.WarnContext(ctx, "refused a call", "method", r.Method, "caller", r.Caller.Kind.String(), "node", r.Caller.NodeID, "user", r.Caller.User,
				"address", r.Caller.Address)
			d.managed.refused(r)
		},
	})
	if err := d.loadBuiltin(ctx); err != nil {
		return nil, errors.Join(err, images.Close())
	}
	d.supervisor = supervisor{
		program: cfg.Runtime, dir: disk.path("runtime"), cgroupParent: cfg.CgroupParent, logger: cfg.Logger,
	}
	if d.runtime, err = d.supervisor.connect(ctx); err != nil {
		return nil, errors.Join(err, images.Close())
	}
	return d, nil
}

// Run serves until ctx ends. Containers go on after it.
func (d *Daemon) Run(ctx context.Context) error {
	defer func() {
		if err := errors.Join(d.runtime.Close(), d.images.Close()); err != nil {
			d.logger.Warn("close", "error", err)
		}
	}()
	creds, err := d.peopleCredentials()
	if err != nil {
		return err
	}
	listener, err := listenUnix(d.cfg.Socket)
	if err != nil {
		return err
	}
	forPeople, err := d.listenPeople()
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	forMetrics, err := d.listenMetrics()
	if err != nil {
		for _, l := range append(forPeople, listener) {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// Whoever asks earlier waits, and is not told that this machine is in no swarm.
	onceResumed := func(serve func() error) {
		group.Go(func() error {
			select {
			case <-d.resumed:
			case <-ctx.Done():
			}
			return serve()
		})
	}
	onceResumed(func() error { return d.serveLocal(ctx, listener) })
	for _, l := range forPeople {
		onceResumed(func() error { return serve(ctx, d.localServer(grpc.Creds(creds)), newDoorkeeper(l)) })
	}
	group.Go(func() error { return d.serveMetrics(ctx, forMetrics) })
	group.Go(func() error { return d.runNodes(ctx) })
	group.Go(func() error { d.keepUp(ctx); return nil })
	group.Go(func() error { d.supervisor.keepKeeper(ctx); return nil })
	group.Go(func() error { d.supervisor.keep(ctx, d.runtime); return nil })
	return group.Wait()
}

// runNodes runs each node that is started, one after the other: a node that left its swarm may join another.
func (d *Daemon) runNodes(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-d.start:
			d.ended(n, n.run(ctx))
		}
	}
}

// node returns the node that runs, or says why there is none.
func (d *Daemon) node() (*node, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.current != nil:
		return d.current, nil
	case d.locked:
		return nil, errLocked
	case d.broken != nil:
		return nil, fault.New(fault.Precondition, "this node can't take part in its swarm: %w", d.broken)
	}
	return nil, errNotMember
}

// absence says why this node does not answer as a manager.
func (d *Daemon) absence() error {
	n, err := d.node()
	switch {
	case errors.Is(err, errNotMember):
		return errNotManager
	case err != nil:
		return err
	case n.isRemoved():
		return errGone
	case n.identity.Role() == api.Role_ROLE_MANAGER:
		return errNotYet
	}
	return errWorker
}

// launch starts a node and makes it the current one.
func (d *Daemon) launch(ctx context.Context, n *node) error {
	d.mu.Lock()
	d.current, d.locked, d.broken = n, false, nil
	d.mu.Unlock()
	select {
	case d.start <- n:
		n.mu.Lock()
		n.launched = true
		n.mu.Unlock()
		return nil
	case <-ctx.Done():
		d.mu.Lock()
		d.current = nil
		d.mu.Unlock()
		return context.Cause(ctx)
	}
}

func (d *Daemon) clusterID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil {
		return ""
	}
	return d.current.identity.ClusterID()
}

// nodeRecords are the records of the manager of the moment. Where there is none a certificate counts for what it says, unless managers
// told this node otherwise.
type nodeRecords struct {
	managed *managedServices
	revoked func(nodeID string) (api.Role, bool)
}

// Node implements authz.Nodes.
func (r nodeRecords) Node(id string) (authz.Record, bool) {
	if nodes := r.managed.records(); nodes != nil {
		return nodes.Node(id)
	}
	if role, revoked := r.revoked(id); revoked {
		return authz.Record{Role: role, Revoked: role == api.Role_ROLE_UNSPECIFIED}, true
	}
	return authz.Record{Role: api.Role_ROLE_MANAGER}, true
}

// CatchUp implements authz.Nodes.
func (r nodeRecords) CatchUp(ctx context.Context) error {
	if nodes := r.managed.records(); nodes != nil {
		return nodes.CatchUp(ctx)
	}
	return nil
}
