package dispatcher

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/expand"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// assignment is what a node is to have: the core of the Assignments stream. Its tasks are the store's.
type assignment struct {
	tasks map[string]*api.Task
	// values are the secrets and configs, by the ids that the references of the tasks have when they are sent.
	values map[string]value
	// labels are those of the service of each task that has a template.
	labels map[string]map[string]string
}

// value is a version of a secret or config that goes to a node. A node does not tell the two apart: to it, either is a file in memory.
type value struct {
	// of is the secret or config, and old the version that it is, nil for the newest one. Both are the store's.
	of  valueObject
	old *api.OldValue
}

// valueObject is a secret or config in the store.
type valueObject interface {
	store.Object
	GetVersion() uint64
}

// spec returns the spec of the value; without a value it is empty.
func (v value) spec() interface {
	GetAnnotations() *api.Annotations
	GetData() []byte
	GetTemplateDriver() string
} {
	switch o := v.of.(type) {
	case *api.Secret:
		return o.GetSpec()
	case *api.Config:
		return o.GetSpec()
	default:
		return new(api.SecretSpec)
	}
}

// number is that of the version.
func (v value) number() uint64 {
	if v.old != nil {
		return v.old.GetNumber()
	}
	return max(1, v.of.GetVersion())
}

// sent returns the value as a node gets it, under the id that references to it have there.
func (v value) sent(id string) *api.Secret {
	out := &api.Secret{
		Id: id, Meta: v.of.GetMeta(), Version: v.number(), Spec: &api.SecretSpec{Annotations: v.spec().GetAnnotations(), Data: v.spec().GetData()},
	}
	if v.old != nil {
		out.Spec.Data = v.old.GetData()
	}
	return out
}

// same reports whether two values are the same for their node.
func (v value) same(w value) bool {
	return v == w || v.number() == w.number() && proto.Equal(v.sent("").GetSpec(), w.sent("").GetSpec())
}

// idOf returns the id by which a node knows the value that a reference means: two tasks may have two versions of one secret.
func idOf(r *api.SecretReference) string {
	if r.GetVersion() == 0 {
		return r.GetSecretId()
	}
	return fmt.Sprintf("%s@%d", r.GetSecretId(), r.GetVersion())
}

// assigned reads a node's assignment. A task belongs to it from ASSIGNED on until it is deleted, so that its node keeps its
// logs for as long as the task is history; a secret or config, while a task that needs it may run (I7).
func assigned(tx store.ReadTx, nodeID string) (assignment, error) {
	a := assignment{tasks: map[string]*api.Task{}, values: map[string]value{}, labels: map[string]map[string]string{}}
	tasks, err := store.List[*api.Task](tx, store.ByNode(nodeID))
	if err != nil {
		return a, err
	}
	for _, t := range tasks {
		if !taskstate.Assigned(t) {
			continue
		}
		a.tasks[t.GetId()] = t
		if !taskstate.NeedsValues(t) {
			continue
		}
		if err := errors.Join(a.add(tx, t.GetSpec().GetContainer()), a.addLabels(tx, t)); err != nil {
			return a, err
		}
	}
	return a, nil
}

// next returns the assignment that follows a, and what turns a into it, when some tasks may have changed, or all may be another. Tasks that
// need nothing else are looked at alone, and then a becomes the next one: what a node with many of them costs is for each change, not for all
// of them with each change.
func (a assignment) next(tx store.ReadTx, nodeID string, tasks []string, all bool) (assignment, []*api.AssignmentChange, error) {
	if !all {
		if news, ok, err := a.follow(tx, nodeID, tasks); ok || err != nil {
			return a, news, err
		}
	}
	to, err := assigned(tx, nodeID)
	return to, changes(a, to), err
}

// follow changes the assignment by what became of some tasks, in the order of their ids, unless one of them needs more than itself: then ok is
// false, and nothing is changed.
func (a assignment) follow(tx store.ReadTx, nodeID string, ids []string) (news []*api.AssignmentChange, ok bool, err error) {
	now := make([]*api.Task, len(ids)) // nil where the task is not the node's any more
	for i, id := range ids {
		t, err := store.Get[*api.Task](tx, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, false, err
		}
		if err == nil && t.GetNodeId() == nodeID && taskstate.Assigned(t) {
			now[i] = t
		}
		if !plain(now[i]) || !plain(a.tasks[id]) {
			return nil, false, nil
		}
	}
	var removed []*api.AssignmentChange
	for i, id := range ids {
		old := a.tasks[id]
		switch {
		case now[i] != nil:
			a.tasks[id] = now[i]
			if old == nil || !sameTask(old, now[i]) {
				news = append(news, taskChange(api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE, now[i]))
			}
		case old != nil:
			delete(a.tasks, id)
			removed = append(removed, taskChange(api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE, &api.Task{Id: id}))
		}
	}
	return append(news, removed...), true, nil
}

// plain reports whether a task, or nil, goes to its node as it is, and nothing with it.
func plain(t *api.Task) bool {
	c := t.GetSpec().GetContainer()
	return len(c.GetSecrets())+len(c.GetConfigs()) == 0 && !assignment{}.templated(c)
}

// add adds what a container needs. What is not there any more is passed over: the node's task waits for it in vain, and says so.
func (a assignment) add(tx store.ReadTx, c *api.ContainerSpec) error {
	for _, r := range c.GetSecrets() {
		if err := addValue[*api.Secret](a, tx, r); err != nil {
			return err
		}
	}
	for _, r := range c.GetConfigs() {
		if err := addValue[*api.Config](a, tx, r); err != nil {
			return err
		}
	}
	return nil
}

func addValue[T valueObject](a assignment, tx store.ReadTx, r *api.SecretReference) error {
	id := idOf(r)
	if _, known := a.values[id]; known {
		return nil
	}
	of, err := store.Get[T](tx, r.GetSecretId())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.GetVersion() == 0 || r.GetVersion() == max(1, of.GetVersion()) {
		a.values[id] = value{of: of}
		return nil
	}
	former, err := store.List[*api.OldValue](tx, store.ByName(r.GetSecretId()))
	for _, v := range former {
		if v.GetNumber() == r.GetVersion() {
			a.values[id] = value{of: of, old: v}
		}
	}
	return err
}

// addLabels adds the labels of a task's service, if a template of the task may name them.
func (a assignment) addLabels(tx store.ReadTx, t *api.Task) error {
	c := t.GetSpec().GetContainer()
	if !a.templated(c) {
		return nil
	}
	service, err := store.Get[*api.Service](tx, t.GetServiceId())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	a.labels[t.GetId()] = service.GetSpec().GetAnnotations().GetLabels()
	return err
}

// templated reports whether there is a template in what a container has. Its values are there already.
func (a assignment) templated(c *api.ContainerSpec) bool {
	is := func(r *api.SecretReference) bool { return a.values[idOf(r)].template() }
	return expand.Templated(c.GetHostname()) || slices.ContainsFunc(c.GetEnv(), expand.Templated) ||
		slices.ContainsFunc(c.GetMounts(), func(m *api.Mount) bool { return expand.Templated(m.GetSource()) }) ||
		slices.ContainsFunc(c.GetSecrets(), is) || slices.ContainsFunc(c.GetConfigs(), is)
}

// template reports whether a value is one.
func (v value) template() bool { return v.spec().GetTemplateDriver() != "" }

// forNode returns a task as its node gets it: its references have the ids of the values that they mean, its configs are secrets
// with absolute targets, and what templates need is there.
func (a assignment) forNode(t *api.Task) *api.Task {
	c := t.GetSpec().GetContainer()
	if len(c.GetSecrets())+len(c.GetConfigs())+len(a.labels[t.GetId()]) == 0 {
		return t
	}
	sent := proto.CloneOf(t)
	c = sent.GetSpec().GetContainer()
	for _, r := range c.GetConfigs() {
		r.Target.Name, r.Config = path.Join("/", r.GetTarget().GetName()), true
		c.Secrets = append(c.Secrets, r)
	}
	c.Configs, c.ServiceLabels = nil, a.labels[t.GetId()]
	for _, r := range c.GetSecrets() {
		r.SecretId = idOf(r)
		r.Template = a.values[r.GetSecretId()].template()
	}
	return sent
}

// changes returns what turns the assignment from into to: values before the tasks that need them, and removals last.
func changes(from, to assignment) []*api.AssignmentChange {
	var out []*api.AssignmentChange
	for _, id := range slices.Sorted(maps.Keys(to.values)) {
		if old, ok := from.values[id]; !ok || !old.same(to.values[id]) {
			out = append(out, secretChange(api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE, to.values[id].sent(id)))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(to.tasks)) {
		if old := from.tasks[id]; old == nil || !sameTask(old, to.tasks[id]) {
			out = append(out, taskChange(api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE, to.forNode(to.tasks[id])))
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

// sameForNode reports whether a change of a task is none for its node.
func sameForNode(old, t *api.Task) bool {
	return old.GetNodeId() == t.GetNodeId() && taskstate.Assigned(old) == taskstate.Assigned(t) &&
		taskstate.NeedsValues(old) == taskstate.NeedsValues(t) && sameTask(old, t)
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
