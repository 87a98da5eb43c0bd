package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/lsm"
)

const (
	// startPatience is how long the start of a task waits for its first SVID. After that it starts without, and gets it later:
	// managers that are away must not keep a task from running.
	startPatience = 5 * time.Second
	// askTimeout bounds one request to a manager.
	askTimeout = 10 * time.Second
	// alarmTime before an SVID ends a person must know: tries have failed for a good part of an hour.
	alarmTime = 10 * time.Minute
)

// Config is what a Keeper needs.
type Config struct {
	// Dir is the directory of the tasks' directories; it is made.
	Dir string
	// ClusterID is the trust domain of the SVIDs.
	ClusterID string
	// Roots returns the certificates that the swarm trusts now, and a channel that is closed when they may be others. Never nil.
	Roots func() ([]*x509.Certificate, <-chan struct{})
	// Ask asks a manager for SVIDs; it returns one answer for each request. Errors of the kind fault.Precondition say that
	// there won't be any for now. Never nil.
	Ask func(ctx context.Context, requests []*api.WorkloadRequest) ([]*api.WorkloadAnswer, error)
	// Changed is called when Issuers may return others, or nil. It must not block.
	Changed func()
	// Logger is used for what an administrator must know; nil is silence.
	Logger *slog.Logger
}

// Keeper keeps the identities of this node's tasks. Make one with New and run Run beside everything else.
type Keeper struct {
	// constant after New
	cfg Config
	log *slog.Logger
	// make and open give homes: directories in memory, but in tests.
	make func(path string, uid, gid uint32, labels lsm.Labels) (home, error)
	open func(path string) (home, error)
	// wake has room for one signal: the plan changed.
	wake chan struct{}
	// servers are those of the tasks.
	servers sync.WaitGroup

	mu sync.Mutex
	// The fields below are guarded by mu.
	plan  plan
	tasks map[string]*task
	roots []*x509.Certificate
}

// task is what the Keeper has of one task.
type task struct {
	// constant
	home   home
	server *grpc.Server

	// The fields below are guarded by the Keeper's mu.
	svid svid
	// changed is closed, and replaced, when the SVID or the roots are others.
	changed chan struct{}
	// answered is closed when it is known whether there is an SVID.
	answered     chan struct{}
	answeredOnce sync.Once
}

// New returns a Keeper that keeps nothing yet.
func New(cfg Config) (*Keeper, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of identities: %w", err)
	}
	k := &Keeper{
		cfg: cfg, log: cfg.Logger, make: makeDirectory, open: openDirectory, wake: make(chan struct{}, 1),
		plan: newPlan(), tasks: map[string]*task{},
	}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	k.roots, _ = cfg.Roots()
	return k, nil
}

// Close ends the service of all sockets. What the tasks have on their file systems stays for the next run.
func (k *Keeper) Close() error {
	k.mu.Lock()
	tasks := k.tasks
	k.tasks, k.plan = map[string]*task{}, newPlan()
	k.mu.Unlock()
	var errs []error
	for _, t := range tasks {
		t.server.Stop()
		errs = append(errs, t.home.close())
	}
	k.servers.Wait()
	return errors.Join(errs...)
}

// Provide gives a task an identity, and returns the directory on this node that its container is to see, read-only. It belongs to
// a user and a group, in ids of the node, and has the container's labels of SELinux. The first SVID comes later, see Await.
func (k *Keeper) Provide(id string, uid, gid uint32, labels lsm.Labels) (dir string, err error) {
	if err := k.Withdraw(id); err != nil { // what a start that was interrupted left
		return "", err
	}
	h, err := k.make(k.dir(id), uid, gid, labels)
	if err != nil {
		return "", fmt.Errorf("identity of task %s: %w", id, err)
	}
	if err := k.begin(id, h, svid{}); err != nil {
		return "", errors.Join(fmt.Errorf("identity of task %s: %w", id, err), h.remove())
	}
	return h.path(), nil
}

// Await waits a little for the first SVID of a task that has an identity, and succeeds if there is none by then. It returns an error only when
// ctx ends; the caller withdraws then.
func (k *Keeper) Await(ctx context.Context, id string) error {
	k.mu.Lock()
	t, ok := k.tasks[id]
	k.mu.Unlock()
	if !ok {
		return nil
	}
	late := time.NewTimer(startPatience)
	defer late.Stop()
	select {
	case <-t.answered:
	case <-late.C:
		k.log.Warn("a task starts without its identity, which no manager has given yet", "task", id)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (k *Keeper) dir(id string) string { return filepath.Join(k.cfg.Dir, id) }

// begin serves a task, with an SVID or without.
func (k *Keeper) begin(id string, h home, s svid) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := h.update(s, k.roots); err != nil {
		return err
	}
	l, err := h.listen()
	if err != nil {
		return err
	}
	t := &task{home: h, svid: s, changed: make(chan struct{}), answered: make(chan struct{})}
	t.server = k.newServer(t)
	k.servers.Go(func() { k.serve(id, t.server, l) })
	k.tasks[id] = t
	if s.valid(time.Now()) {
		k.plan.becomeAdopted(id, s.chain[0], rand.Float64())
	} else {
		k.plan.add(id, time.Now())
	}
	signal(k.wake)
	return nil
}

func (k *Keeper) serve(id string, s *grpc.Server, l net.Listener) {
	if err := s.Serve(limit(l)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		k.log.Error("the identity socket of a task is closed", "task", id, "error", err)
	}
}

// Withdraw takes a task's identity away. It succeeds when there is none.
func (k *Keeper) Withdraw(id string) error {
	k.mu.Lock()
	t, ok := k.tasks[id]
	delete(k.tasks, id)
	k.plan.remove(id)
	k.mu.Unlock()
	if !ok {
		return removeDirectory(k.dir(id))
	}
	k.issuersChanged()
	t.server.Stop()
	return t.home.remove()
}

// Adopt goes on serving the tasks of the last run of the daemon, and removes what is of tasks that aren't known (I15).
func (k *Keeper) Adopt(known []string) error {
	entries, err := os.ReadDir(k.cfg.Dir)
	if err != nil {
		return fmt.Errorf("list identities: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, k.adopt(e.Name(), slices.Contains(known, e.Name())))
	}
	return errors.Join(errs...)
}

func (k *Keeper) adopt(id string, known bool) error {
	k.mu.Lock()
	_, kept := k.tasks[id]
	k.mu.Unlock()
	if kept {
		return nil
	}
	if !known {
		return removeDirectory(k.dir(id))
	}
	h, err := k.open(k.dir(id))
	if errors.Is(err, errNotMounted) {
		return removeDirectory(k.dir(id)) // the machine was started anew, and its containers are gone
	}
	if err != nil {
		return err
	}
	if err := k.begin(id, h, k.acceptable(h.load())); err != nil {
		// The container runs on; it lacks an identity from the end of its SVID on.
		k.log.Error("the identity of a running task is not kept", "task", id, "error", err)
		return h.close()
	}
	return nil
}

// acceptable returns an SVID that was read back, if it is one of this swarm.
func (k *Keeper) acceptable(s svid) svid {
	if s.name.ClusterID != k.cfg.ClusterID {
		return svid{}
	}
	return s
}

// Retry has managers asked at once for what could not be had: one can be reached again. It doesn't block.
func (k *Keeper) Retry() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.plan.retry(time.Now())
	signal(k.wake)
}

// Run asks for SVIDs whenever it is time, until ctx ends, and then returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		roots, changed := k.cfg.Roots()
		k.trust(roots)
		k.renew(ctx)
		timer.Reset(max(k.pause(), 1))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-k.wake:
		case <-timer.C:
		}
	}
}

// idle is how long Run waits when there is nothing to wait for.
const idle = time.Hour

// pause is how long Run waits unless something happens.
func (k *Keeper) pause() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, ok := k.plan.next()
	if !ok {
		return idle
	}
	return time.Until(at)
}

// trust shows all tasks other roots, and has all SVIDs renewed: theirs may be by a root that is on its way out.
func (k *Keeper) trust(roots []*x509.Certificate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.EqualFunc(k.roots, roots, (*x509.Certificate).Equal) {
		return
	}
	k.roots = roots
	for id, t := range k.tasks {
		k.show(id, t, t.svid)
	}
	k.plan.renewAll(time.Now())
}

// show gives a task an SVID, in files and to those who listen. Called with mu held.
func (k *Keeper) show(id string, t *task, s svid) {
	if err := t.home.update(s, k.roots); err != nil {
		// The socket tells all the same.
		k.log.Error("the identity files of a task are stale", "task", id, "error", err)
	}
	t.svid = s
	close(t.changed)
	t.changed = make(chan struct{})
	k.issuersChanged()
}

func (k *Keeper) issuersChanged() {
	if k.cfg.Changed != nil {
		k.cfg.Changed()
	}
}

// Issuers returns the SHA-256 of each public key that signed an SVID which a task has now, in order.
func (k *Keeper) Issuers() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	var digests [][]byte
	for _, t := range k.tasks {
		if t.svid.valid(time.Now()) {
			digests = append(digests, ca.IssuerKeyDigest(t.svid.chain, k.roots))
		}
	}
	slices.SortFunc(digests, bytes.Compare)
	return slices.CompactFunc(digests, bytes.Equal)
}

// renew asks for what is due, in batches, until nothing is.
func (k *Keeper) renew(ctx context.Context) {
	for ctx.Err() == nil {
		k.mu.Lock()
		ids := k.plan.due(time.Now())
		k.mu.Unlock()
		if len(ids) == 0 {
			return
		}
		k.renewSome(ctx, ids)
	}
}

func (k *Keeper) renewSome(ctx context.Context, ids []string) {
	asked, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	b, err := newBatch(ids)
	if err == nil {
		b.answers, err = k.cfg.Ask(asked, b.requests)
	}
	if err == nil && len(b.answers) != len(ids) {
		err = fmt.Errorf("%d answers to %d requests for identities", len(b.answers), len(ids))
	}
	if ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.failed(ctx, ids, err)
		return
	}
	for i, id := range ids {
		k.take(id, b, i)
	}
}

// failed takes note of a request that got no answers. Called with mu held.
func (k *Keeper) failed(ctx context.Context, ids []string, err error) {
	now := time.Now()
	ends := k.plan.firstEnd(ids)
	level := slog.LevelWarn
	if !ends.IsZero() && ends.Sub(now) < alarmTime {
		level = slog.LevelError // a person must act: the tasks lose their identity
	}
	k.log.Log(ctx, level, "no identities from a manager", "tasks", len(ids), "first_ends", ends, "error", err)
	for _, id := range ids {
		t, ok := k.tasks[id]
		if !ok {
			continue
		}
		k.plan.becomeFailed(id, now, rand.Float64())
		if fault.KindOf(err) == fault.Precondition {
			t.answeredOnce.Do(func() { close(t.answered) })
		}
	}
}

// take takes in one answer of a batch. Called with mu held.
func (k *Keeper) take(id string, b batch, i int) {
	t, ok := k.tasks[id]
	if !ok {
		return // withdrawn meanwhile
	}
	defer t.answeredOnce.Do(func() { close(t.answered) })
	s, err := b.svid(i)
	if err == nil && s.name.ClusterID != k.cfg.ClusterID {
		err = fmt.Errorf("an identity of another swarm: %w", ca.ErrBadName)
	}
	if err != nil {
		k.log.Warn("no identity for a task", "task", id, "ends", k.plan.firstEnd([]string{id}), "error", err)
		k.plan.becomeRefused(id, time.Now())
		return
	}
	k.show(id, t, s)
	k.plan.becomeIssued(id, s.chain[0], time.Now(), rand.Float64())
	k.log.Debug("identity of a task", "task", id, "spiffe_id", s.name.SPIFFEID(), "ends", s.chain[0].NotAfter)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
