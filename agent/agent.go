package agent

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/agent/exec"
	"github.com/skep-io/skep/agent/executor"
	"github.com/skep-io/skep/agent/identity"
	"github.com/skep-io/skep/agent/images"
	"github.com/skep-io/skep/agent/learn"
	"github.com/skep-io/skep/agent/logforward"
	"github.com/skep-io/skep/agent/logs"
	"github.com/skep-io/skep/agent/metrics"
	"github.com/skep-io/skep/agent/network"
	"github.com/skep-io/skep/agent/secret"
	"github.com/skep-io/skep/agent/session"
	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/agent/volume"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/logfile"
	"github.com/skep-io/skep/runtime/systrace"
)

// Config is what an Agent needs.
type Config struct {
	// Identity is this node's; never nil.
	Identity *ca.Identity
	// Managers are addresses (host:port) of managers to begin with. Those of the last run are known already.
	Managers []string
	// DataDir is the daemon's data directory.
	DataDir string
	// Images is this node's image store, and Runtime a way to its container supervisor; never nil. They remain the caller's.
	Images  *image.Store
	Runtime *client.Client
	// UsernsBase is the first user and group id of the node that containers may have; 0 is executor.DefaultUsernsBase.
	UsernsBase uint32
	// Bridge and BridgeSubnet are the containers' bridge and its IPv4 subnet; zero values are network's defaults.
	Bridge       string
	BridgeSubnet netip.Prefix
	// CDISpecDirs are where CDI files are, those of a later one counting more; nil is executor's default.
	CDISpecDirs []string
	// Hostname, Version and Labels describe the node; PeerAddress (host:port) is where it serves other nodes.
	Hostname, Version, PeerAddress string
	// LocalAddress (host:port) is where this node reaches itself: the peer address may be one that only others can reach, such as
	// that of a router before it. Empty is the peer address.
	LocalAddress string
	Labels       map[string]string
	// Generic is what the node has of generic resources.
	Generic []*api.GenericResource
	// Registered is told, when a session begins and when any of it changes, of this node's record, the managers and the root
	// certificate; Disconnected of the end of a session, or why there is none. They must not block. Either may be nil.
	Registered   func(*api.SessionResponse)
	Disconnected func(error)
	// AlonePatience is how long a node waits, from its start on, for a manager to tell its tasks, before it starts those again that the
	// restart of the machine ended; 0 is 10 s.
	AlonePatience time.Duration
	// Logger is used for what an administrator must know; nil is silence.
	Logger *slog.Logger
}

// agentDir is the agent's own directory in the data directory.
const agentDir = "agent"

// Agent is a node's side of the swarm. Make one with New.
type Agent struct {
	// constant after New
	cfg        Config
	log        *slog.Logger
	secrets    *secret.Holder
	vault      *secret.Vault
	network    *network.Network
	identities *identity.Keeper
	supervisor *executor.Supervisor
	executor   *executor.Executor
	session    *session.Client
	tasks      *task.Manager
	peers      *images.Peer
	blobs      *images.Server
	logs       logs.Reader
	logWatcher *logfile.Watcher
	forwarder  *logforward.Forwarder
	exec       exec.Server
	learn      learn.Server
	volumes    volume.Server
	metrics    *metrics.Collector
	// wake has room for one signal: what tasks wait for may be there. So has seal: what the vault keeps may be to change; and refusal:
	// a manager refused this node.
	wake, seal, refusal chan struct{}
	// assigning is held while assignments are taken in, or secrets come from the vault.
	assigning sync.Mutex
	// leave is closed by Leave; left is closed when no session can follow.
	leave, left chan struct{}
	leaveOnce   sync.Once
	// assigned is closed when a manager has told all tasks of this node.
	assigned     chan struct{}
	assignedOnce sync.Once

	mu sync.Mutex
	// The fields below are guarded by mu.

	// sessionID is the last session's.
	sessionID string
	// registered says that there is a session.
	registered bool
	// refused says that a manager refused this node, and that none told its tasks since.
	refused bool
	// absent says of secrets why they didn't come from the vault, while no manager is in reach.
	absent map[string]string
	// marks has a channel for each point in a task's life that somebody waits for.
	marks map[mark]chan struct{}
}

// mark is a point in the life of a task: the state, or any after it.
type mark struct {
	id    string
	state api.TaskState
}

// New opens what the agent keeps on the disk. Close it after Run has ended, or instead of Run.
func New(cfg Config) (*Agent, error) {
	a := &Agent{
		cfg: cfg, log: cfg.Logger, secrets: &secret.Holder{}, blobs: images.NewServer(cfg.Images),
		wake: make(chan struct{}, 1), seal: make(chan struct{}, 1), refusal: make(chan struct{}, 1), leave: make(chan struct{}), left: make(chan struct{}), marks: map[mark]chan struct{}{},
		assigned: make(chan struct{}),
	}
	a.cfg.AlonePatience = cmp.Or(a.cfg.AlonePatience, alonePatience)
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	dir := filepath.Join(cfg.DataDir, agentDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the agent: %w", err)
	}
	if err := errors.Join(a.newNetwork(), a.newSession(dir), a.newIdentities(), a.newVault(dir), a.recallRefusal()); err != nil {
		return nil, err
	}
	var err error
	if a.logWatcher, err = logfile.NewWatcher(); err != nil {
		return nil, err
	}
	a.metrics = metrics.New(metrics.Config{
		Tasks:    func() map[string]*api.Task { return a.tasks.Tasks() },
		Statuses: func() map[string]*api.TaskStatus { return a.tasks.Statuses() },
		Stats:    func(ctx context.Context, id string) (*api.TaskStats, error) { return a.executor.Stats(ctx, id) },
	})
	if err := a.newExecutor(); err != nil {
		return nil, err
	}
	a.tasks, err = task.Open(task.Config{Dir: dir, Executor: a.executor, Report: a.report, Logger: a.log})
	if err != nil {
		return nil, err
	}
	a.newForwarder()
	a.logs = logs.Reader{
		Path:     a.executor.LogPath,
		Prepared: func(id string) <-chan struct{} { return a.reached(mark{id, api.TaskState_TASK_STATE_READY}) },
		Ended:    a.ended,
		Watcher:  a.logWatcher,
	}
	answer := (&server{a: a}).answer
	a.exec.Runtime, a.exec.User, a.exec.Answer = cfg.Runtime, a.executor.User, answer
	a.volumes.Tasks, a.volumes.Statuses, a.volumes.Answer = a.tasks.Tasks, a.tasks.Statuses, answer
	a.volumes.Mounted = a.executor.VolumesOf
	a.learn.Open, a.learn.Processes, a.learn.Answer = openRecorder, a.executor.Processes, answer
	return a, nil
}

// ended returns a channel that is closed once a task writes no more.
func (a *Agent) ended(id string) <-chan struct{} {
	return a.reached(mark{id, api.TaskState_TASK_STATE_COMPLETE})
}

func (a *Agent) newForwarder() {
	a.forwarder = logforward.New(logforward.Config{
		Path: a.executor.LogPath, Ended: a.ended, Expand: a.executor.Expand, Watcher: a.logWatcher, Hostname: a.cfg.Hostname, Logger: a.log,
	})
}

// forwardLogs sends on what tasks write, those of the daemon's last run among them.
func (a *Agent) forwardLogs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.forwarder.Run(ctx) })
	g.Go(func() error {
		select {
		case <-a.tasks.Adopted():
		case <-ctx.Done():
			return nil
		}
		for _, t := range a.tasks.Tasks() {
			a.forwarder.Follow(t)
		}
		return nil
	})
	return g.Wait()
}

// openRecorder makes a recorder of system calls.
func openRecorder() (learn.Recorder, error) {
	r, err := systrace.Open()
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (a *Agent) newNetwork() (err error) {
	a.network, err = network.New(network.Config{
		Dir: filepath.Join(a.cfg.DataDir, "network"), Bridge: a.cfg.Bridge, Subnet: a.cfg.BridgeSubnet, Logger: a.log,
	})
	if err != nil {
		return err
	}
	return a.network.Check()
}

func (a *Agent) newSession(dir string) (err error) {
	a.session, err = session.New(session.Config{
		Dir: dir, Managers: a.cfg.Managers, Dial: a.dialManager, Describe: a.describe, Handler: handler{a}, Logger: a.log,
		TLS: a.tls,
	})
	return err
}

// tls is what this node says of what it and its tasks prove themselves with.
func (a *Agent) tls() *api.NodeTLS {
	said := a.cfg.Identity.TLS()
	said.WorkloadIssuerKeyDigests = a.identities.Issuers()
	return said
}

func (a *Agent) newIdentities() (err error) {
	id := a.cfg.Identity
	a.identities, err = identity.New(identity.Config{
		Dir: filepath.Join(a.cfg.DataDir, "identity"), ClusterID: id.ClusterID(), Logger: a.log,
		Roots: func() ([]*x509.Certificate, <-chan struct{}) {
			changed := id.Watch()
			return id.Current().Roots(), changed
		},
		Ask: func(ctx context.Context, requests []*api.WorkloadRequest) ([]*api.WorkloadAnswer, error) {
			return a.session.IssueWorkloads(ctx, requests)
		},
		Changed: func() { a.session.DescriptionChanged() },
	})
	return err
}

func (a *Agent) newExecutor() (err error) {
	nodeID := a.cfg.Identity.NodeID()
	a.peers = &images.Peer{Store: a.cfg.Images, NodeID: nodeID, Locate: a.session.Locate, Dial: a.dialNode, Logger: a.log}
	a.supervisor = executor.NewSupervisor(a.cfg.Runtime, a.log)
	volumes, err := volume.New(filepath.Join(a.cfg.DataDir, "volumes"), a.session.DescriptionChanged)
	if err != nil {
		return err
	}
	a.volumes.Store = volumes
	a.executor, err = executor.New(executor.Config{
		Dir: filepath.Join(a.cfg.DataDir, "containers"), Private: []string{a.cfg.DataDir}, CDI: a.cfg.CDISpecDirs, Runtime: a.supervisor, Images: imagesOf{a.peers}, Network: a.network,
		Secrets: secretsOf{a}, Identities: a.identities, Volumes: volumes, NodeID: nodeID, Hostname: a.cfg.Hostname, UsernsBase: a.cfg.UsernsBase, Logger: a.log,
		Created: a.created, Launched: a.metrics.Launched,
	})
	return err
}

// created takes in that a task's container is made.
func (a *Agent) created(t *api.Task, pid int) {
	a.learn.Created(t, pid)
	a.forwarder.Follow(t)
}

// Close closes what New opened.
func (a *Agent) Close() error {
	a.secrets.Clear()
	return errors.Join(a.tasks.Close(), a.logWatcher.Close(), a.identities.Close(), a.network.Close())
}

// Run works until ctx ends, and then returns nil. Containers go on running after it.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		a.supervisor.Run, a.identities.Run, a.tasks.Run, a.logWatcher.Run, a.forwardLogs, a.runSession, a.watchImages, a.watchIdentity, a.wakeTasks, a.cleanVolumes, a.startAlone, a.keepSecrets,
	} {
		g.Go(func() error { return part(ctx) })
	}
	return g.Wait()
}

// runSession keeps in touch with managers until ctx ends or the node leaves the swarm.
func (a *Agent) runSession(ctx context.Context) error {
	defer close(a.left)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ended sync.WaitGroup
	defer ended.Wait()
	ended.Go(func() {
		defer cancel()
		select {
		case <-a.leave:
		case <-ctx.Done():
		}
	})
	return a.session.Run(ctx)
}

// cleanVolumes ends removals of volumes that the end of the daemon cut short.
func (a *Agent) cleanVolumes(context.Context) error {
	if err := a.volumes.Store.Clean(); err != nil {
		a.log.Warn("what is left of removed volumes can't be removed", "error", err)
	}
	return nil
}

// watchImages tells managers when the images of this node change.
func (a *Agent) watchImages(ctx context.Context) error {
	for {
		changed := a.cfg.Images.Changed()
		select {
		case <-changed:
			a.session.DescriptionChanged()
		case <-ctx.Done():
			return nil
		}
	}
}

// watchIdentity tells managers when this node's certificate or the roots that it trusts change.
func (a *Agent) watchIdentity(ctx context.Context) error {
	for {
		changed := a.cfg.Identity.Watch()
		select {
		case <-changed:
			a.session.DescriptionChanged()
			a.sealUp() // the key may be another one
		case <-ctx.Done():
			return nil
		}
	}
}

// wakeTasks makes waiting tasks try again when there is a reason to.
func (a *Agent) wakeTasks(ctx context.Context) error {
	for {
		select {
		case <-a.wake:
		case <-ctx.Done():
			return nil
		}
		if err := a.tasks.Wake(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// Leave ends the session and all tasks, and removes all that they had, the network included. Run must be running; it goes on
// until its context ends. When ctx ends before, what is left stays as it is.
func (a *Agent) Leave(ctx context.Context) error {
	a.leaveOnce.Do(func() { close(a.leave) })
	select {
	case <-a.left:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := a.tasks.Assign(ctx, true, nil, nil); err != nil {
		return fmt.Errorf("end tasks: %w", err)
	}
	if err := a.tasks.Empty(ctx); err != nil {
		return err
	}
	a.secrets.Clear()
	a.forgetRefusal() // the next swarm has not refused it
	return errors.Join(a.vault.Clear(), a.network.Remove())
}

// Adopted returns a channel that is closed once the containers of the daemon's last run are taken over, with leases on their
// images: before that, no image may be removed.
func (a *Agent) Adopted() <-chan struct{} { return a.tasks.Adopted() }

// Managers returns the managers that this node knows, host:port.
func (a *Agent) Managers() []string { return a.session.Managers() }

// Uses reports whether this node's session is with the manager on a node.
func (a *Agent) Uses(nodeID string) bool { return a.session.Uses(nodeID) }

// Doubt has the session with the manager on a node ask at once whether it is there: others can't reach its machine.
func (a *Agent) Doubt(nodeID string) { a.session.Doubt(nodeID) }

// Metrics are this node's tasks, for Prometheus.
func (a *Agent) Metrics() []prometheus.Collector {
	return []prometheus.Collector{a.metrics, a.forwarder}
}

// Audit returns what this node knows of the audit log, and whether it refuses a manager.
func (a *Agent) Audit() session.AuditState { return a.session.Audit() }

// Announce tells the managers what this node has, such as a new image, and returns once they know.
func (a *Agent) Announce(ctx context.Context) error { return a.session.Describe(ctx) }

// Running returns the number of tasks whose process runs.
func (a *Agent) Running() int {
	n := 0
	for _, s := range a.tasks.Statuses() {
		if s.GetState() == api.TaskState_TASK_STATE_RUNNING {
			n++
		}
	}
	return n
}

// Register registers the services that other nodes use.
func (a *Agent) Register(r grpc.ServiceRegistrar) {
	api.RegisterAgentServer(r, &server{a: a})
	api.RegisterNodeTasksServer(r, &a.exec)
	api.RegisterNodeLearningServer(r, &a.learn)
	api.RegisterNodeVolumesServer(r, &a.volumes)
}

// report takes in a task's new status.
func (a *Agent) report(id string, s *api.TaskStatus) {
	a.session.Report(id, s)
	if s.GetState() > api.TaskState_TASK_STATE_RUNNING {
		a.sealUp()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for m, c := range a.marks {
		if m.id == id && s.GetState() >= m.state {
			close(c)
			delete(a.marks, m)
		}
	}
}

// reached returns a channel that is closed once a task has come to a point in its life, or is not this node's.
func (a *Agent) reached(m mark) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	// report, which runs after the status changed, can't come between the look at the status and the entry.
	if s := a.tasks.Status(m.id); s == nil || s.GetState() >= m.state {
		c := make(chan struct{})
		close(c)
		return c
	}
	if _, ok := a.marks[m]; !ok {
		a.marks[m] = make(chan struct{})
	}
	return a.marks[m]
}
