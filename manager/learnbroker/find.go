package learnbroker

import (
	"context"
	"fmt"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/lookup"
	"github.com/skep-io/skep/store"
)

// subject is a service, with what is where at a moment.
type subject struct {
	service *api.Service
	// tasks are those that live, of the service.
	tasks []*api.Task
	// nodes are all of the swarm.
	nodes []*api.Node
}

func (s subject) name() string { return s.service.GetSpec().GetAnnotations().GetName() }

// privileges are what the service's containers have.
func (s subject) privileges() *api.Privileges {
	return s.service.GetSpec().GetTask().GetContainer().GetPrivileges()
}

// tasksOn returns the ids of the tasks on a node.
func (s subject) tasksOn(nodeID string) (ids []string) {
	for _, t := range s.tasks {
		if t.GetNodeId() == nodeID {
			ids = append(ids, t.GetId())
		}
	}
	return ids
}

// find resolves a service's id, name, or id prefix that no other has.
func (b *Broker) find(ctx context.Context, key string) (s subject, err error) {
	if err := b.cfg.Store.Barrier(ctx); err != nil {
		return s, fault.Wrap(fault.Unavailable, fmt.Errorf("read the cluster's state: %w", err))
	}
	err = b.cfg.Store.View(func(tx store.ReadTx) error {
		if s.service, err = lookup.One[*api.Service](tx, key); err != nil {
			return err
		}
		if s.tasks, err = store.List[*api.Task](tx, store.ByService(s.service.GetId())); err != nil {
			return err
		}
		s.tasks = slices.DeleteFunc(s.tasks, func(t *api.Task) bool { return !lives(t) })
		s.nodes, err = store.List[*api.Node](tx)
		return err
	})
	return s, err
}

// lives reports whether a task is on a node, has not ended and is not to end.
func lives(t *api.Task) bool {
	return t.GetNodeId() != "" && max(t.GetStatus().GetState(), t.GetDesiredState()) <= api.TaskState_TASK_STATE_RUNNING
}

// maxText bounds what somebody else wrote, in messages.
const maxText = 300

func clip(text string) string { return fault.Clip(text, maxText) }
