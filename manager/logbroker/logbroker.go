package logbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/logdriver"
	"github.com/skep-io/skep/internal/logselect"
	"github.com/skep-io/skep/manager/reach"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// maxHold is how long, with follow, a task that has just become silent holds back the lines of the others.
const maxHold = 100 * time.Millisecond

// lateness is how long a read that follows goes on after its end and after the last line, for lines that are under way.
const lateness = time.Second

// Config is what a Broker needs; all fields are required.
type Config struct {
	Store *store.Store
	Dial  reach.Dial
}

// Broker reads logs.
type Broker struct{ cfg Config }

// New returns a Broker.
func New(cfg Config) (*Broker, error) {
	if cfg.Store == nil || cfg.Dial == nil {
		return nil, errors.New("logbroker: Store and Dial are required")
	}
	return &Broker{cfg: cfg}, nil
}

// ReadLogs calls send with the lines of a service's tasks, or of one task, ordered by time, and with the gaps, as the package
// comment says. It returns the first error of send, or the cause of the end of ctx.
func (b *Broker) ReadLogs(ctx context.Context, request *api.ReadLogsRequest, send func(*api.ReadLogsResponse) error) error {
	if err := b.cfg.Store.Barrier(ctx); err != nil {
		return fault.Wrap(fault.Unavailable, fmt.Errorf("read the cluster's state: %w", err))
	}
	options := request.GetOptions()
	if options == nil {
		options = &api.LogOptions{Tail: -1}
	}
	wanted, err := logselect.New(options)
	if err != nil {
		return err
	}
	watcher, err := b.cfg.Store.Watch(ctx, 0, object.KindTask, object.KindService, object.KindNode)
	if err != nil {
		return err
	}
	target, err := find(watcher.Snapshot(), request.GetTarget())
	if err != nil {
		return err
	}
	whole, cancel := context.WithCancel(ctx)
	r := newRead(b.cfg, target, options, send)
	r.wanted = wanted
	defer r.wait()
	defer cancel()
	return r.run(whole, watcher)
}

// read is one call of ReadLogs. It belongs to its goroutine; sources only send to events.
type read struct {
	cfg     Config
	target  target
	options *api.LogOptions
	wanted  logselect.Selection
	send    func(*api.ReadLogsResponse) error
	events  chan event
	merge   *merge
	running sync.WaitGroup

	sources []*source
	byTask  map[string]*source // every task that was ever opened
	peers   map[string]*peer   // by node id
	gaps    map[string]bool    // by node id: one gap is enough
	// toldNone says that the reader knows of tasks whose lines nobody keeps.
	toldNone bool
	open     int       // sources that have not ended
	heard    time.Time // when the last event came
}

func newRead(cfg Config, target target, options *api.LogOptions, send func(*api.ReadLogsResponse) error) *read {
	hold := time.Duration(-1)
	if options.GetFollow() {
		hold = maxHold
	}
	return &read{
		cfg: cfg, target: target, options: options, send: send, events: make(chan event), merge: newMerge(hold),
		byTask: map[string]*source{}, peers: map[string]*peer{}, gaps: map[string]bool{},
	}
}

// wait waits for all goroutines and ends all connections.
func (r *read) wait() {
	r.running.Wait()
	for _, peer := range r.peers {
		peer.close()
	}
}

func (r *read) run(ctx context.Context, watcher *store.Watcher) error {
	if err := r.start(ctx, watcher.Snapshot(), r.options); err != nil {
		return err
	}
	timer := time.NewTimer(maxHold)
	defer timer.Stop()
	over := r.overTimer()
	defer over.Stop()
	for {
		wait, err := r.drain()
		if err != nil {
			return err
		}
		var news <-chan struct{} // never, without follow
		if r.options.GetFollow() {
			news = watcher.Ready()
		}
		if r.open == 0 && (news == nil || r.finished()) {
			return nil
		}
		timer.Stop()
		if wait >= 0 {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-r.events:
			err = r.handle(e)
		case <-timer.C:
		case <-over.C:
			rest := lateness - time.Since(r.heard)
			if rest <= 0 {
				return nil
			}
			over.Reset(rest)
		case <-news:
			err = r.follow(ctx, watcher)
		}
		if err != nil {
			return err
		}
	}
}

// overTimer fires when following may end by time, a little later than that, so that lines of before may arrive.
func (r *read) overTimer() *time.Timer {
	if !r.options.GetFollow() || r.wanted.Until.IsZero() {
		never := time.NewTimer(time.Hour)
		never.Stop()
		return never
	}
	return time.NewTimer(max(time.Until(r.wanted.Until), 0) + lateness)
}

// start opens a source for each task that has none yet.
func (r *read) start(ctx context.Context, tx store.ReadTx, options *api.LogOptions) error {
	list, leftOut, err := tasks(tx, r.target)
	if err != nil {
		return err
	}
	if leftOut > 0 && len(r.sources) == 0 {
		reason := fmt.Sprintf("%d older tasks are left out: only the newest %d are read; ask for one task by its id", leftOut, maxTasks)
		if err := r.gap("", reason); err != nil {
			return err
		}
	}
	if list, err = r.kept(list); err != nil {
		return err
	}
	for _, task := range list {
		if r.byTask[task.GetId()] != nil {
			continue
		}
		if err := r.openSource(ctx, tx, task, options); err != nil {
			return err
		}
	}
	return nil
}

// kept leaves out the tasks whose lines nobody keeps, and says so: by an error if that is all there are to begin with.
func (r *read) kept(list []*api.Task) ([]*api.Task, error) {
	kept := slices.DeleteFunc(slices.Clone(list), func(t *api.Task) bool {
		return logdriver.Name(t.GetSpec().GetLogDriver().GetName()) == logdriver.None
	})
	if len(kept) == len(list) || r.toldNone {
		return kept, nil
	}
	r.toldNone = true
	if name := list[0].GetServiceName(); len(kept) == 0 && len(r.sources) == 0 {
		return nil, fault.New(fault.Precondition, "the tasks of service %s keep no lines, because its log driver is none: "+
			"`skep service update --log-driver file %[1]s` replaces them by tasks that do", name)
	}
	return kept, r.send(&api.ReadLogsResponse{Event: &api.ReadLogsResponse_Gap{Gap: &api.LogGap{
		Reason: fmt.Sprintf("%d of the tasks have the log driver none, which keeps no lines", len(list)-len(kept)),
	}}})
}

// openSource opens the source of a task, or reports the gap that it leaves.
func (r *read) openSource(ctx context.Context, tx store.ReadTx, task *api.Task, options *api.LogOptions) error {
	s := &source{index: len(r.sources), task: task, wanted: r.wanted, more: make(chan struct{}, 1)}
	r.sources = append(r.sources, s)
	r.byTask[task.GetId()] = s
	node, err := store.Get[*api.Node](tx, task.GetNodeId())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return r.gap(task.GetNodeId(), reach.Removed.Error())
	case err != nil:
		return err
	case node.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN:
		return r.gap(node.GetId(), reach.Down.Error())
	}
	if s.peer = r.peers[node.GetId()]; s.peer == nil {
		s.peer = &peer{node: node, done: make(chan struct{})}
		r.peers[node.GetId()] = s.peer
		r.running.Go(func() { s.peer.connect(ctx, r.cfg.Dial) })
	}
	r.open++
	r.merge.open(s.index, time.Now())
	own, cancel := context.WithCancelCause(ctx)
	s.cancel = cancel
	r.running.Go(func() {
		defer cancel(nil)
		s.run(ctx, own, options, r.events)
	})
	return nil
}

// handle takes news of a source.
func (r *read) handle(e event) error {
	r.heard = time.Now()
	if e.line != nil {
		r.merge.push(e.source.index, e.line)
		return nil
	}
	r.merge.end(e.source.index)
	r.open--
	if e.err == nil {
		return nil
	}
	return r.gap(e.source.task.GetNodeId(), e.err.Error())
}

// drain sends what may be sent now, and returns how long the next line has to wait; negative is until something happens.
func (r *read) drain() (wait time.Duration, err error) {
	for {
		line, index, wait := r.merge.pop(time.Now())
		if line == nil {
			return wait, nil
		}
		s := r.sources[index]
		if err := r.send(&api.ReadLogsResponse{Event: &api.ReadLogsResponse_Line{Line: r.named(line, s)}}); err != nil {
			return 0, err
		}
		s.more <- struct{}{}
	}
}

// named completes a line with what only managers know. The line is the read's own.
func (r *read) named(line *api.LogLine, s *source) *api.LogLine {
	line.TaskId, line.NodeId = s.task.GetId(), s.task.GetNodeId()
	line.ServiceName, line.Slot = s.task.GetServiceName(), s.task.GetSlot()
	line.NodeHostname, line.Details = s.peer.node.GetDescription().GetHostname(), nil
	if r.options.GetDetails() {
		line.Details = s.task.GetSpec().GetContainer().GetLabels()
	}
	return line
}

// gap reports what is missing of a node, once.
func (r *read) gap(nodeID, reason string) error {
	if r.gaps[nodeID] {
		return nil
	}
	r.gaps[nodeID] = true
	return r.send(&api.ReadLogsResponse{Event: &api.ReadLogsResponse_Gap{Gap: &api.LogGap{NodeId: nodeID, Reason: reason}}})
}

// follow opens sources for tasks that are new, from their beginning, and ends those of nodes that are down.
func (r *read) follow(ctx context.Context, watcher *store.Watcher) error {
	news := false
	for {
		batch, ok, err := watcher.TryNext()
		if errors.Is(err, store.ErrResync) {
			return fault.New(fault.Unavailable, "the log stream fell behind the cluster's changes: read again")
		}
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		for _, change := range batch.Changes {
			switch o := change.Object.(type) {
			case *api.Node:
				r.nodeChanged(o, change.Action)
			case *api.Task:
				news = news || r.target.matches(o)
			}
		}
	}
	if !news {
		return nil
	}
	options := proto.CloneOf(r.options)
	options.Tail = -1
	return r.cfg.Store.View(func(tx store.ReadTx) error { return r.start(ctx, tx, options) })
}

// nodeChanged ends the sources of a node that can't send any more.
func (r *read) nodeChanged(node *api.Node, action store.Action) {
	if action != store.ActionDelete && node.GetStatus().GetState() != api.NodeState_NODE_STATE_DOWN {
		return
	}
	for _, s := range r.sources {
		if s.cancel != nil && s.task.GetNodeId() == node.GetId() {
			s.cancel(reach.Down)
		}
	}
}

// finished reports whether nothing can follow any more: the task has ended, or the service and all its tasks are gone.
func (r *read) finished() bool {
	if r.target.taskID != "" {
		return len(r.sources) > 0 || r.gone(func(tx store.ReadTx) error {
			_, err := store.Get[*api.Task](tx, r.target.taskID)
			return err
		})
	}
	return r.gone(func(tx store.ReadTx) error {
		_, err := store.Get[*api.Service](tx, r.target.serviceID)
		return err
	})
}

func (r *read) gone(get func(store.ReadTx) error) bool {
	return errors.Is(r.cfg.Store.View(get), store.ErrNotFound)
}
