package dispatcher

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// listener is a stream that is woken when the assignment of its node may have changed.
type listener struct {
	wake chan struct{} // has room for one
	// Guarded by Dispatcher.mu: what changed since the stream looked. all is anything, tasks are some tasks, by id.
	all   bool
	tasks map[string]bool
}

// signal wakes the stream for a task, or without one for anything. Called with Dispatcher.mu.
func (l *listener) signal(task string) {
	if task == "" {
		l.all = true
	} else {
		l.tasks[task] = true
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// listen registers a stream. The caller calls the returned function when the stream ends.
func (d *Dispatcher) listen(nodeID string) (*listener, func()) {
	l := &listener{wake: make(chan struct{}, 1), all: true, tasks: map[string]bool{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listeners[nodeID] == nil {
		d.listeners[nodeID] = map[*listener]bool{}
	}
	d.listeners[nodeID][l] = true
	return l, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.listeners[nodeID], l)
		if len(d.listeners[nodeID]) == 0 {
			delete(d.listeners, nodeID)
		}
	}
}

// changed returns the tasks that changed since the last call, in order; all says that anything may have.
func (d *Dispatcher) changed(l *listener) (tasks []string, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	tasks, all = slices.Sorted(maps.Keys(l.tasks)), l.all
	l.all = false
	clear(l.tasks)
	return tasks, all
}

// follow wakes streams whenever the store changes for them, until ctx ends.
func (d *Dispatcher) follow(ctx context.Context) error {
	if err := store.Follow(ctx, d.followFrom); err != nil {
		return fmt.Errorf("dispatcher: follow the store: %w", err)
	}
	return nil
}

func (d *Dispatcher) followFrom(ctx context.Context) error {
	watch, err := d.cfg.Store.Watch(ctx, 0, object.KindCluster, object.KindNode, object.KindTask, object.KindSecret,
		object.KindConfig)
	if err != nil {
		return err
	}
	d.wakeAll()
	for {
		b, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		for _, change := range b.Changes {
			if err := d.wakeFor(change); err != nil {
				return err
			}
		}
	}
}

// wakeFor wakes the streams for which a change can matter.
func (d *Dispatcher) wakeFor(change store.Change) error {
	switch o := change.Object.(type) {
	case *api.Task:
		if old, _ := change.Old.(*api.Task); change.Action != store.ActionUpdate || !sameForNode(old, o) {
			d.wakeAssignments(o.GetNodeId(), o.GetId())
		}
	case *api.Secret:
		return d.wakeUsers(store.ByReferencedSecret(o.GetId()))
	case *api.Config:
		return d.wakeUsers(store.ByReferencedConfig(o.GetId()))
	case *api.Node:
		old, _ := change.Old.(*api.Node)
		if o.GetRole() == api.Role_ROLE_MANAGER || old.GetRole() == api.Role_ROLE_MANAGER {
			d.wakeSessions() // all hear of managers
			return nil
		}
		d.wakeSession(o.GetId())
	case *api.Cluster:
		d.wakeSessions()
		d.wakeLead()
	}
	return nil
}

// wakeUsers wakes the streams of the nodes of tasks.
func (d *Dispatcher) wakeUsers(by store.By) error {
	return d.cfg.Store.View(func(tx store.ReadTx) error {
		tasks, err := store.List[*api.Task](tx, by)
		for _, t := range tasks {
			d.wakeAssignments(t.GetNodeId(), "")
		}
		return err
	})
}

// wakeAssignments wakes the streams of a node for one of its tasks, or without one for anything.
func (d *Dispatcher) wakeAssignments(nodeID, task string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.listeners[nodeID] {
		l.signal(task)
	}
}

func (d *Dispatcher) wakeSession(nodeID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sessions.byNode[nodeID]; s != nil {
		s.signal()
	}
}

func (d *Dispatcher) wakeSessions() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sessions.byNode {
		s.signal()
	}
}

// wakeLead makes the leader look at the cluster object, now or when it begins to lead.
func (d *Dispatcher) wakeLead() {
	select {
	case d.clusterChanged <- struct{}{}:
	default:
	}
}

func (d *Dispatcher) wakeAll() {
	d.wakeSessions()
	d.wakeLead()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, listeners := range d.listeners {
		for l := range listeners {
			l.signal("")
		}
	}
}
