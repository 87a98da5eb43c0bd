package dispatcher

import (
	"errors"
	"maps"
	"path"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// assignment is what a node is to have: the core of the Assignments stream. Its tasks are the store's.
type assignment struct {
	tasks map[string]*api.Task
	// values are the secrets and configs, by the ids that the references of the tasks have when they are sent.
	values map[string]value
}

// value is a secret or a config that goes to a node; the other is nil. A node does not tell them apart: to it, either is a file in
// memory.
type value struct {
	secret *api.Secret
	config *api.Config
}

// sent returns the value as a node gets it.
func (v value) sent() *api.Secret {
	if v.config == nil {
		return v.secret
	}
	return &api.Secret{
		Id: v.config.GetId(), Meta: v.config.GetMeta(),
		Spec: &api.SecretSpec{Annotations: v.config.GetSpec().GetAnnotations(), Data: v.config.GetSpec().GetData()},
	}
}

// same reports whether two values are the same for their node.
func (v value) same(w value) bool {
	return v == w || proto.Equal(v.sent().GetSpec(), w.sent().GetSpec())
}

// assigned reads a node's assignment. A task belongs to it from ASSIGNED on until it is deleted, so that its node keeps its
// logs for as long as the task is history; a secret or config, while a task that needs it may run (I7).
func assigned(tx store.ReadTx, nodeID string) (assignment, error) {
	a := assignment{tasks: map[string]*api.Task{}, values: map[string]value{}}
	tasks, err := store.List[*api.Task](tx, store.ByNode(nodeID))
	if err != nil {
		return a, err
	}
	for _, t := range tasks {
		if !taskstate.Assigned(t) {
			continue
		}
		a.tasks[t.GetId()] = t
		if !needsValues(t) {
			continue
		}
		if err := a.add(tx, t.GetSpec().GetContainer()); err != nil {
			return a, err
		}
	}
	return a, nil
}

// add adds what a container needs. What is not there any more is passed over: the node's task waits for it in vain, and says so.
func (a assignment) add(tx store.ReadTx, c *api.ContainerSpec) error {
	for _, r := range c.GetSecrets() {
		secret, err := store.Get[*api.Secret](tx, r.GetSecretId())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil {
			a.values[secret.GetId()] = value{secret: secret}
		}
	}
	for _, r := range c.GetConfigs() {
		config, err := store.Get[*api.Config](tx, r.GetSecretId())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil {
			a.values[config.GetId()] = value{config: config}
		}
	}
	return nil
}

// forNode returns a task as its node gets it: its configs are secrets with absolute targets.
func forNode(t *api.Task) *api.Task {
	configs := t.GetSpec().GetContainer().GetConfigs()
	if len(configs) == 0 {
		return t
	}
	sent := proto.CloneOf(t)
	c := sent.GetSpec().GetContainer()
	for _, r := range c.GetConfigs() {
		r.Target.Name = path.Join("/", r.GetTarget().GetName())
		c.Secrets = append(c.Secrets, r)
	}
	c.Configs = nil
	return sent
}

// needsValues reports whether t may read its secrets and configs, now or later.
func needsValues(t *api.Task) bool { return taskstate.Live(t) && !taskstate.Ended(t) }

// changes returns what turns the assignment from into to: values before the tasks that need them, and removals last.
func changes(from, to assignment) []*api.AssignmentChange {
	var out []*api.AssignmentChange
	for _, id := range slices.Sorted(maps.Keys(to.values)) {
		if old, ok := from.values[id]; !ok || !old.same(to.values[id]) {
			out = append(out, secretChange(api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE, to.values[id].sent()))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(to.tasks)) {
		if old := from.tasks[id]; old == nil || !sameTask(old, to.tasks[id]) {
			out = append(out, taskChange(api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE, forNode(to.tasks[id])))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(from.tasks)) {
		if to.tasks[id] == nil {
			out = append(out, taskChange(api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE, &api.Task{Id: id}))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(from.values)) {
		if _, ok := to.values[id]; !ok {
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
