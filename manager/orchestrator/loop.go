package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// retryDelay is how long a key waits after the store was too busy to take its effects: long enough for others to get done.
const retryDelay = 100 * time.Millisecond

const (
	// restFactor is how much longer than it looks a loop rests: each of them takes a fifth of a processor at most.
	restFactor = 4
	// maxRest is how long it rests at most: what happened meanwhile, such as the end of a node, waits for no longer.
	maxRest = time.Second
	// unhurried is how long a service is not looked at for changes that its core does not heed, and unhurriedFactor how much longer than its
	// last look took, if that is longer, but maxUnhurried at most.
	unhurried       = 5 * time.Second
	unhurriedFactor = 50
	maxUnhurried    = 30 * time.Second
	// maxPiece is how many effects are written before the loop sees what happened meanwhile: a watch that nobody follows for too long has to
	// start anew, and the loop then has to look at everything.
	maxPiece = 4000
)

// Config is what a Loop needs. The zero value of each optional field is safe.
type Config struct {
	// Store is the cluster's state. Required.
	Store *store.Store
	// Log gets what hinders the loop; nil discards it.
	Log *slog.Logger
}

// Loop feeds a Core from the store and commits its effects.
type Loop struct {
	// Constant after New.
	name   string
	core   Core
	bySlot bool
	// only selects the services that the core is asked about; nil is all.
	only func(*api.Service) bool
	// everyNode selects the services that are asked about when any node changes; nil is none.
	everyNode func(*api.Service) bool
	// heeds selects the changes of tasks that may make the core decide otherwise; nil is all.
	heeds func(v View, old, now *api.Task) bool
	store *store.Store
	log   *slog.Logger
	// Owned by Run: watch is what the loop follows, looked how long it has looked at services since it rested, and looks how long the last
	// look at each service took, where heeds selects.
	watch  *store.Watcher
	looked time.Duration
	looks  map[key]time.Duration
}

// Option changes what New makes.
type Option func(*Loop)

// BySlot makes the loop ask its core about each slot on its own, instead of about whole services: for cores whose decisions
// about a slot depend on nothing else, so that one task's news cost the same in a service of any size.
func BySlot() Option { return func(l *Loop) { l.bySlot = true } }

// Only has the loop look at no other services than those that which selects; it must take a service that is nil, one that was removed.
// Looking at a service costs as much as it has tasks.
func Only(which func(*api.Service) bool) Option { return func(l *Loop) { l.only = which } }

// EveryNode makes the loop ask its core about services that are to run on every node, those that which selects, when a node changes, or
// comes, although none of their tasks are there. Their views have [View.Eligible]. which must take a service that is nil.
func EveryNode(which func(*api.Service) bool) Option { return func(l *Loop) { l.everyNode = which } }

// Heeds has the loop look at a service soon for no other changes of its tasks than those that which selects, and at the rest in some seconds: a
// look costs as much as the service has tasks, so that the cost of all looks grew with their square if each task that starts asked for one.
// which gets a view of the task's slot as it is now, and the task before and after the change; it had none before, or none after it. What it
// does not select may be seen late, but is seen.
func Heeds(which func(v View, old, now *api.Task) bool) Option {
	return func(l *Loop) { l.heeds = which }
}

// New returns a loop for a core; name is what logs call it. It starts nothing.
func New(name string, core Core, cfg Config, options ...Option) (*Loop, error) {
	if cfg.Store == nil {
		return nil, fmt.Errorf("%s: the config has no store", name)
	}
	l := &Loop{name: name, core: core, store: cfg.Store, log: cfg.Log}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.log = l.log.With("loop", name)
	for _, option := range options {
		option(l)
	}
	return l, nil
}

// Run does the loop's work until ctx ends, and then returns nil. It returns an error that matches store.ErrNotLeader when
// this manager does not lead any more, and any other error when the store fails.
func (l *Loop) Run(ctx context.Context) error {
	if err := store.Follow(ctx, l.run); err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	return nil
}

// run works from a fresh snapshot until ctx or the watch ends.
func (l *Loop) run(ctx context.Context) error {
	watch, err := l.store.Watch(ctx, 0, object.KindCluster, object.KindNode, object.KindService, object.KindTask)
	if err != nil {
		return err
	}
	l.watch, l.looks = watch, map[key]time.Duration{}
	q := newQueue()
	if err := l.markAll(q, watch.Snapshot()); err != nil {
		return err
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.looked = 0
		if err := l.work(ctx, q); err != nil {
			return err
		}
		rested := time.Now().Add(restAfter(l.looked))
		if len(q.dirty) == 0 { // none of what came during the work
			if err := l.await(ctx, q, timer); err != nil {
				return err
			}
		}
		if err := rest(ctx, rested); err != nil {
			return err
		}
		if err := l.drain(q); err != nil {
			return err
		}
	}
}

// await waits until the watch has news, or a key gets dirty by itself.
func (l *Loop) await(ctx context.Context, q *queue, timer *time.Timer) error {
	timer.Reset(max(q.untilNext(time.Now()), 1)) // one of zero crashes simulations: go.dev/issue/78156
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.watch.Ready():
	case <-timer.C:
	}
	return nil
}

// restAfter is how long the loop rests after looks that took long. A look at a service costs as much as it has tasks, and while many of them
// start, each one that does asks for another look: what changes meanwhile is seen in one. The time that Raft takes for a commit costs no
// processor.
func restAfter(looked time.Duration) time.Duration {
	if looked < time.Millisecond {
		return 0
	}
	return min(restFactor*looked, maxRest)
}

// rest waits until a time.
func rest(ctx context.Context, until time.Time) error {
	left := time.Until(until)
	if left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// drain marks what all waiting batches touched.
func (l *Loop) drain(q *queue) error {
	var changes []store.Change
	for {
		batch, ok, err := l.watch.TryNext()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		changes = append(changes, batch.Changes...)
	}
	if len(changes) == 0 {
		return nil
	}
	return l.store.View(func(tx store.ReadTx) error {
		r := newReader(tx, nil)
		for _, change := range changes {
			if err := l.mark(q, r, change); err != nil {
				return err
			}
		}
		return nil
	})
}

// mark makes the keys dirty that a change can matter for; r reads a state that has the change.
func (l *Loop) mark(q *queue, r *reader, change store.Change) error {
	switch o := change.Object.(type) {
	case *api.Task:
		return l.markChange(q, r, change)
	case *api.Service:
		return l.markService(q, r.tx, o.GetId())
	case *api.Node:
		old, _ := change.Old.(*api.Node)
		if l.everyNode != nil && !sameForServices(old, o) {
			if err := l.markEveryNode(q, r.tx); err != nil {
				return err
			}
		}
		if change.Action == store.ActionUpdate && sameForTasks(old, o) {
			return nil
		}
		tasks, err := store.List[*api.Task](r.tx, store.ByNode(o.GetId()))
		for _, t := range tasks {
			l.markTask(q, t)
		}
		return err
	case *api.Cluster:
		old, _ := change.Old.(*api.Cluster)
		if old.GetSpec().GetTaskHistoryLimit() == o.GetSpec().GetTaskHistoryLimit() &&
			slices.Equal(old.GetSpec().GetRequiredIsolation(), o.GetSpec().GetRequiredIsolation()) {
			return nil
		}
		return l.markAll(q, r.tx)
	default:
		return nil
	}
}

// markChange marks the key of a task that changed, or has it looked at some time if the core does not heed the change.
func (l *Loop) markChange(q *queue, r *reader, change store.Change) error {
	now, _ := change.Object.(*api.Task)
	old, _ := change.Old.(*api.Task)
	k := l.keyOf(now)
	if l.heeds == nil || q.dirty[k] {
		q.mark(k)
		return nil
	}
	v, err := r.view(now.GetServiceId(), max(now.GetSlot(), 1))
	if err != nil {
		return err
	}
	if change.Action == store.ActionDelete {
		old, now = now, nil
	}
	switch {
	case l.only != nil && !l.only(v.Service): // nobody would look
	case l.heeds(v, old, now):
		q.mark(k)
	default:
		q.wakeBy(k, time.Now().Add(min(max(unhurried, unhurriedFactor*l.looks[k]), maxUnhurried)))
	}
	return nil
}

// sameForTasks reports whether a node's change is none for its tasks: heartbeats and lists of images are not.
func sameForTasks(a, b *api.Node) bool {
	return a.GetStatus().GetState() == b.GetStatus().GetState() && a.GetSpec().GetAvailability() == b.GetSpec().GetAvailability() && sameFit(a, b) &&
		proto.Equal(a.GetSpec().GetDrainTimeout(), b.GetSpec().GetDrainTimeout()) &&
		proto.Equal(a.GetStatus().GetDrainBeganAt(), b.GetStatus().GetDrainBeganAt())
}

// sameForServices reports whether a node's change is none for the services that are to run on every node.
func sameForServices(a, b *api.Node) bool {
	return sameForTasks(a, b) && proto.Equal(a.GetSpec(), b.GetSpec()) && proto.Equal(a.GetDescription(), b.GetDescription()) && proto.Equal(a.GetApproval(), b.GetApproval())
}

// markEveryNode marks the services that may run on any node.
func (l *Loop) markEveryNode(q *queue, tx store.ReadTx) error {
	services, err := store.List[*api.Service](tx)
	for _, s := range services {
		if l.everyNode(s) {
			q.mark(key{service: s.GetId()})
		}
	}
	return err
}

func (l *Loop) markTask(q *queue, t *api.Task) { q.mark(l.keyOf(t)) }

func (l *Loop) keyOf(t *api.Task) key {
	k := key{service: t.GetServiceId()}
	if l.bySlot {
		k.slot = t.GetSlot()
	}
	return k
}

func (l *Loop) markService(q *queue, tx store.ReadTx, id string) error {
	if !l.bySlot {
		q.mark(key{service: id})
		return nil
	}
	tasks, err := store.List[*api.Task](tx, store.ByService(id))
	for _, t := range tasks {
		l.markTask(q, t)
	}
	return err
}

func (l *Loop) markAll(q *queue, tx store.ReadTx) error {
	services, err := store.List[*api.Service](tx)
	if err != nil {
		return err
	}
	for _, s := range services {
		if !l.bySlot {
			q.mark(key{service: s.GetId()})
		}
	}
	// Tasks may outlive their service.
	tasks, err := store.List[*api.Task](tx)
	for _, t := range tasks {
		l.markTask(q, t)
	}
	return err
}

// work asks the core about all dirty keys and commits what it wants, until none is dirty or the store is too busy.
func (l *Loop) work(ctx context.Context, q *queue) error {
	q.expire(time.Now())
	wanted, first, err := l.survey(q)
	if err != nil {
		return err
	}
	for len(wanted) > 0 {
		rest, left, err := l.commit(ctx, wanted, first)
		first = nil
		if err == nil && left != nil {
			rest, err = rest[1:], l.finish(ctx, q, left)
		}
		if errors.Is(err, store.ErrConflict) {
			l.log.Warn("store is too busy, trying again", "error", err)
			for _, k := range wanted {
				q.wakeAt(k, time.Now().Add(retryDelay))
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.drain(q); err != nil {
			return err
		}
		wanted = rest
	}
	return nil
}

// survey asks the core about dirty keys on a snapshot, which costs no write, and returns those that want one; and what was decided for the
// first of these.
func (l *Loop) survey(q *queue) (wanted []key, first *decided, err error) {
	defer l.look(time.Now())
	dirty := q.take()
	err = l.store.View(func(tx store.ReadTx) error {
		r := newReader(tx, l.everyNode)
		for _, k := range dirty {
			concerned, err := l.concerned(tx, k)
			if err != nil {
				return err
			}
			if !concerned {
				q.wakeAt(k, time.Time{})
				continue
			}
			began := time.Now()
			v, err := r.view(k.service, k.slot)
			if err != nil {
				return err
			}
			effects, wake := l.core(time.Now(), v)
			if len(effects) > 0 && first == nil {
				first = &decided{tx.Index(), v, effects}
			}
			if len(effects) > 0 {
				wanted = append(wanted, k)
			}
			// What a commit changes comes back through the watch; this one is for keys that only wait.
			q.wakeAt(k, wake)
			l.took(k, v, began)
		}
		return nil
	})
	return wanted, first, err
}

// concerned reports whether the core is asked about a key.
func (l *Loop) concerned(tx store.ReadTx, k key) (bool, error) {
	if l.only == nil {
		return true, nil
	}
	s, err := store.Get[*api.Service](tx, k.service)
	if errors.Is(err, store.ErrNotFound) {
		s, err = nil, nil
	}
	return err == nil && l.only(s), err
}

// took notes how long a look at a service took, as long as it is there.
func (l *Loop) took(k key, v View, began time.Time) {
	switch {
	case l.heeds == nil:
	case v.Service == nil && len(v.Tasks) == 0:
		delete(l.looks, k)
	default:
		l.looks[k] = time.Since(began)
	}
}

// look notes that the loop has looked at services since it began to.
func (l *Loop) look(began time.Time) { l.looked += time.Since(began) }

// decided is what a core wanted for a view of the store after an entry of its log.
type decided struct {
	at      store.Index
	view    View
	effects []Effect
}

// commit applies the effects for as many of keys as fit into one transaction and returns the keys that are left; and of the effects for the
// first of these those that are left, if they all stand. first, if not nil, is what was decided for the first of keys: as long as the store is
// as it was, there is no need to look at a large service once more.
func (l *Loop) commit(ctx context.Context, keys []key, first *decided) (rest []key, left *decided, err error) {
	err = l.store.Update(ctx, "", func(tx store.Tx) error {
		w := writer{tx: tx, now: time.Now()}
		defer l.look(w.now)
		rest, left = nil, nil
		for i, k := range keys {
			d := first
			if i > 0 || d == nil || d.at != tx.Index() {
				if d, err = l.decide(tx, w.now, k); err != nil {
					return err
				}
			}
			applied, err := w.applyAll(d.view, d.effects)
			if err != nil {
				return err
			}
			if applied < len(d.effects) {
				rest = keys[i:]
				if effects := d.effects[applied:]; !slices.ContainsFunc(effects, func(e Effect) bool { return !e.Stands }) {
					left = &decided{d.at, d.view, effects}
				}
				return nil
			}
		}
		return nil
	})
	return rest, left, err
}

// decide asks the core about a key, with what a transaction did for others before.
func (l *Loop) decide(tx store.Tx, now time.Time, k key) (*decided, error) {
	v, err := newReader(tx, l.everyNode).view(k.service, k.slot)
	if err != nil {
		return nil, err
	}
	effects, _ := l.core(now, v)
	return &decided{tx.Index(), v, effects}, nil
}

// finish applies effects that stand, in as many transactions as it takes. It ends early when the service is not what the core saw any more:
// that news is on its way.
func (l *Loop) finish(ctx context.Context, q *queue, d *decided) error {
	for piece := range slices.Chunk(d.effects, maxPiece) {
		_, err := l.store.BatchIndependent(ctx, len(piece), func(tx store.Tx, i int) error {
			w := writer{tx: tx, now: time.Now()}
			return w.applyStanding(d.view, piece[i])
		})
		if errors.Is(err, errChanged) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.drain(q); err != nil {
			return err
		}
	}
	return nil
}
