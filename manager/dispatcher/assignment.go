package dispatcher

import (
	"errors"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// assignment is what a node is to have: the core of the Assignments stream. Its objects are the store's.
type assignment struct {
	tasks   map[string]*api.Task
	secrets map[string]*api.Secret
}

// assigned reads a node's assignment. A task belongs to it from ASSIGNED on until it is deleted, so that its node keeps its
// logs for as long as the task is history; a secret, while a task that needs it may run (I7).
func assigned(tx store.ReadTx, nodeID string) (assignment, error) {
	a := assignment{tasks: map[string]*api.Task{}, secrets: map[string]*api.Secret{}}
	tasks, err := store.List[*api.Task](tx, store.ByNode(nodeID))
	if err != nil {
		return a, err
	}
	for _, t := range tasks {
		if !taskstate.Assigned(t) {
			continue
		}
		a.tasks[t.GetId()] = t
		if !needsSecrets(t) {
			continue
		}
		for _, reference := range t.GetSpec().GetContainer().GetSecrets() {
			secret, err := store.Get[*api.Secret](tx, reference.GetSecretId())
			if errors.Is(err, store.ErrNotFound) {
				continue // the node rejects the task
			}
			if err != nil {
				return a, err
			}
			a.secrets[secret.GetId()] = secret
		}
	}
	return a, nil
}

// needsSecrets reports whether t may read its secrets, now or later.
func needsSecrets(t *api.Task) bool { return taskstate.Live(t) && !taskstate.Ended(t) }

// changes returns what turns the assignment from into to: secrets before the tasks that need them, and removals last.
func changes(from, to assignment) []*api.AssignmentChange {
	var out []*api.AssignmentChange
	for _, id := range slices.Sorted(maps.Keys(to.secrets)) {
		if old := from.secrets[id]; old == nil || !sameSecret(old, to.secrets[id]) {
			out = append(out, secretChange(api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE, to.secrets[id]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(to.tasks)) {
		if old := from.tasks[id]; old == nil || !sameTask(old, to.tasks[id]) {
			out = append(out, taskChange(api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE, to.tasks[id]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(from.tasks)) {
		if to.tasks[id] == nil {
			out = append(out, taskChange(api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE, &api.Task{Id: id}))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(from.secrets)) {
		if to.secrets[id] == nil {
			out = append(out, secretChange(api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE, &api.Secret{Id: id}))
		}
	}
	return out
}

func taskChange(action api.AssignmentAction, t *api.Task) *api.AssignmentChange {
	return &api.AssignmentChange{Action: action, Object: &api.AssignmentChange_Task{Task: t}}
}

func secretChange(action api.AssignmentAction, s *api.Secret) *api.AssignmentChange {
	return &api.AssignmentChange{Action: action, Object: &api.AssignmentChange_Secret{Secret: s}}
}

// sameTask reports whether two versions of a task are the same for its node, which needs no news of its own reports.
func sameTask(a, b *api.Task) bool {
	if a == b {
		return true
	}
	return a.GetDesiredState() == b.GetDesiredState() && a.GetServiceId() == b.GetServiceId() && a.GetServiceName() == b.GetServiceName() &&
		a.GetSlot() == b.GetSlot() && a.GetSpecVersion() == b.GetSpecVersion() &&
		proto.Equal(a.GetSpec(), b.GetSpec()) && proto.Equal(a.GetEndpoint(), b.GetEndpoint())
}

func sameSecret(a, b *api.Secret) bool { return a == b || proto.Equal(a.GetSpec(), b.GetSpec()) }
