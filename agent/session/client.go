package session

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// ErrNoManagers is returned when a Client is to be made that knows no manager.
var ErrNoManagers = errors.New("no manager's address is known: join the swarm with `skep swarm join`")

// RefusedError is returned when a manager answers the registration, or ends it, with that this node is not part of the swarm. It is not for other
// calls that a manager denies, nor for a certificate that isn't valid, which proves nothing either way.
type RefusedError struct{ err error }

// Refused returns err as a RefusedError.
func Refused(err error) error { return &RefusedError{err} }

// Error is the manager's answer.
func (e *RefusedError) Error() string { return e.err.Error() }

// Unwrap returns the manager's answer.
func (e *RefusedError) Unwrap() error { return e.err }

// Config is what a Client needs.
type Config struct {
	// Dir is an existing directory for the list of managers.
	Dir string
	// Managers are addresses (host:port) to begin with, beside those of the last run.
	Managers []string
	// Dial returns a connection to the manager at an address; it need not be established. Never nil.
	Dial func(address string) (*grpc.ClientConn, error)
	// Describe returns what this node says of itself. It must not block for long; never nil.
	Describe func() *api.NodeDescription
	// TLS returns what this node proves itself with and whom it trusts; never nil.
	TLS func() *api.NodeTLS
	// Handler is told what managers say; never nil.
	Handler Handler
	// Logger is used for what an administrator must know; nil is silence.
	Logger *slog.Logger
}

// Handler is told what managers say. Its methods are called by one goroutine per kind, one call at a time, and not after Run ended.
type Handler interface {
	// Registered is called when a session begins, and again when the node's record, the managers or the root certificate
	// change.
	Registered(r *api.SessionResponse)
	// Disconnected is called when a session ended or did not come about, with the reason.
	Disconnected(err error)
	// Assign takes in changes to what is assigned to this node; complete ones replace everything. After an error the session
	// ends, and the next one begins with a complete message. It owns the changes.
	Assign(ctx context.Context, complete bool, changes []*api.AssignmentChange) error
}

// Client is this node's side of the dispatcher. Make one with New and call Run once.
type Client struct {
	// constant after New
	cfg Config
	log *slog.Logger
	// reported and described have room for one signal each: there is something to send. So has unsaved: there is something to write.
	reported  chan struct{}
	described chan struct{}
	unsaved   chan struct{}

	mu sync.Mutex
	// The fields below are guarded by mu.
	remotes  *remotes
	reporter reporter
	witness  witness
	// writeManagers and writeWitness say that the files have not what is known.
	writeManagers, writeWitness bool
	// refused is why the last session did not come about or ended, if a manager was rolled back, or nil.
	refused *RollbackError
	// current is the session, or nil.
	current *session
	// managers has the addresses of the managers' nodes.
	managers map[string]string
}

// New returns a client that begins with a random one of the managers it knows. It returns ErrNoManagers when there is none.
func New(cfg Config) (*Client, error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	saved, err := loadManagers(cfg.Dir)
	if err != nil {
		log.Warn("the list of managers can't be read, going on with those given", "error", err)
	}
	saw, err := loadWitness(cfg.Dir)
	if err != nil {
		log.Error("this node does not know how far it saw the audit log: it can't notice a manager that was rolled back since", "error", err)
	}
	known := cleanAddresses(slices.Concat(saved, cfg.Managers))
	if len(known) == 0 {
		return nil, ErrNoManagers
	}
	return &Client{
		cfg: cfg, log: log, reported: make(chan struct{}, 1), described: make(chan struct{}, 1), unsaved: make(chan struct{}, 1),
		remotes: newRemotes(known, rand.IntN(len(known))), witness: saw,
	}, nil
}

// Managers returns the managers that this node knows, host:port.
func (c *Client) Managers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.remotes.addresses)
}

// Report tells managers the status of a task, now or as soon as one answers, unless a newer one waits to be told: of the states before
// RUNNING they hear a little later. It doesn't block.
func (c *Client) Report(id string, s *api.TaskStatus) {
	c.mu.Lock()
	c.reporter.add(time.Now(), id, s)
	c.mu.Unlock()
	signal(c.reported)
}

// DescriptionChanged makes the client send the node's description again, and its TLS with it. It doesn't block.
func (c *Client) DescriptionChanged() { signal(c.described) }

// Describe sends the node's description and returns once the managers have it, or why not.
func (c *Client) Describe(ctx context.Context) error {
	c.mu.Lock()
	s := c.current
	c.mu.Unlock()
	if s == nil {
		return fault.New(fault.Unavailable, "no manager can be reached to tell what this node has")
	}
	return fault.FromStatus(s.redescribe(ctx))
}

// Locate asks the manager of the session which nodes have an image.
func (c *Client) Locate(ctx context.Context, digest string) ([]*api.ImageHolder, error) {
	c.mu.Lock()
	s := c.current
	c.mu.Unlock()
	if s == nil {
		return nil, fault.New(fault.Unavailable, "no manager can be reached to ask which node has image %s", digest)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := s.client.LocateImage(ctx, &api.LocateImageRequest{Digest: digest})
	if err != nil {
		return nil, fault.FromStatus(err)
	}
	return r.GetHolders(), nil
}

// IssueWorkloads asks the manager of the session for the identities of tasks, one answer for each request. The error is of the kind
// fault.Precondition when the manager is of a version that has none.
func (c *Client) IssueWorkloads(ctx context.Context, requests []*api.WorkloadRequest) ([]*api.WorkloadAnswer, error) {
	c.mu.Lock()
	s := c.current
	c.mu.Unlock()
	if s == nil {
		return nil, fault.New(fault.Unavailable, "no manager can be reached to ask for the identities of tasks")
	}
	r, err := s.ca.IssueWorkloadCertificates(ctx, &api.IssueWorkloadCertificatesRequest{Requests: requests})
	if status.Code(err) == codes.Unimplemented {
		return nil, fault.New(fault.Precondition, "the manager gives tasks no identities: upgrade it")
	}
	if err != nil {
		return nil, fault.FromStatus(err)
	}
	return r.GetAnswers(), nil
}

// Run keeps a session until ctx ends, and then returns nil.
func (c *Client) Run(ctx context.Context) error {
	defer c.saving()()
	for ctx.Err() == nil {
		c.mu.Lock()
		a := c.remotes.attempt(rand.Float64())
		c.mu.Unlock()
		if !pause(ctx, a.pause) {
			return nil
		}
		begun := time.Now()
		err := c.session(ctx, a)
		if ctx.Err() != nil {
			return nil
		}
		lasted := time.Since(begun)
		if errors.Is(err, errLarge) {
			lasted = 0 // nothing came of it, however long it took to come
		}
		c.mu.Lock()
		c.remotes.ended(lasted)
		c.mu.Unlock()
		level := slog.LevelWarn
		if errors.As(err, new(*RollbackError)) {
			level = slog.LevelError
		}
		c.log.Log(ctx, level, "no session with a manager", "manager", a.address, "error", err)
		c.cfg.Handler.Disconnected(err)
	}
	return nil
}

// registered takes in what a manager says of the cluster.
func (c *Client) registered(r *api.SessionResponse) {
	var addresses []string
	for _, m := range r.GetManagers() {
		addresses = append(addresses, m.GetAddress())
	}
	addresses = cleanAddresses(addresses)
	c.mu.Lock()
	if len(addresses) > 0 && !slices.Equal(addresses, c.remotes.addresses) {
		c.writeManagers = true
		signal(c.unsaved)
	}
	c.remotes.set(addresses)
	if len(addresses) > 0 { // an empty list is none, as for remotes
		c.managers = map[string]string{}
		for _, m := range r.GetManagers() {
			c.managers[m.GetNodeId()] = m.GetAddress()
		}
	}
	c.mu.Unlock()
	c.cfg.Handler.Registered(r)
}

// Uses reports whether the session is with the manager on a node.
func (c *Client) Uses(nodeID string) bool { return c.sessionWith(nodeID) != nil }

// Doubt has the session ask at once whether its manager is there, if that is the one on a node, whose machine others can't reach. It ends
// within a second if not; without that it would only notice with its next heartbeat. Doubt doesn't block.
func (c *Client) Doubt(nodeID string) {
	if s := c.sessionWith(nodeID); s != nil {
		signal(s.doubts)
	}
}

func (c *Client) sessionWith(nodeID string) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if address := c.managers[nodeID]; c.current != nil && address != "" && c.current.manager == address {
		return c.current
	}
	return nil
}

// setCurrent makes s the session that Locate, IssueWorkloads and Doubt use; nil when there is none.
func (c *Client) setCurrent(s *session) {
	c.mu.Lock()
	c.current = s
	c.mu.Unlock()
}

// pause waits, and says whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
