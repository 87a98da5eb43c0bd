package events

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// kinds are those whose changes are events.
func kinds() []object.Kind {
	return []object.Kind{object.KindNode, object.KindService, object.KindTask, object.KindSecret, object.KindConfig}
}

// maxError bounds how much of a task's error an event has.
const maxError = 512

// actionUpdate and its siblings are Docker's words.
const (
	actionCreate = "create"
	actionUpdate = "update"
	actionRemove = "remove"
	actionOOM    = "oom"
	actionLeader = "leader"
	actionHealth = "health_status: "
	// actionReadiness is ours.
	actionReadiness = "readiness: "
)

// derivation makes events of changes. It belongs to one goroutine.
type derivation struct {
	hostnames map[string]string // by node id
}

func newDerivation(tx store.ReadTx) (*derivation, error) {
	d := &derivation{hostnames: map[string]string{}}
	nodes, err := store.All[*api.Node](tx)
	if err != nil {
		return nil, err
	}
	for node := range nodes {
		d.hostnames[node.GetId()] = node.GetDescription().GetHostname()
	}
	return d, nil
}

// events returns what came of a log entry. The same entry gives the same events on all managers.
func (d *derivation) events(batch store.Batch) []entry {
	var out []entry
	for _, change := range batch.Changes {
		for _, e := range d.of(change) {
			e.at = cursor{batch.Index, uint32(len(out) + 1)}
			e.time = change.At
			out = append(out, e)
		}
	}
	return out
}

func (d *derivation) of(change store.Change) []entry {
	switch o := change.Object.(type) {
	case *api.Service:
		return serviceEvents(change, o)
	case *api.Task:
		return d.taskEvents(change, o)
	case *api.Node:
		return d.nodeEvents(change, o)
	case *api.Secret:
		old, _ := change.Old.(*api.Secret)
		changed := !proto.Equal(old.GetSpec(), o.GetSpec())
		return plainEvents(change, o, o.GetSpec().GetAnnotations(), changed)
	case *api.Config:
		old, _ := change.Old.(*api.Config)
		return plainEvents(change, o, o.GetSpec().GetAnnotations(), !proto.Equal(old.GetSpec(), o.GetSpec()))
	default:
		return nil // a kind of a later version
	}
}

// begun is the event of a change with what all have.
func begun(change store.Change, o object.Object, name string, labels map[string]string) entry {
	e := entry{kind: object.KindOf(o).String(), action: actionUpdate, id: o.GetId(), name: name, labels: labels}
	switch change.Action {
	case store.ActionCreate:
		e.action = actionCreate
	case store.ActionDelete:
		e.action = actionRemove
	}
	e.note("name", name)
	return e
}

// note adds an attribute that is not empty.
func (e *entry) note(key, value string) {
	if value != "" {
		e.attributes = append(e.attributes, attribute{key, value})
	}
}

// differ adds what changed, and says whether it did.
func (e *entry) differ(key, before, after string) bool {
	if before == after {
		return false
	}
	e.note(key+".old", before)
	e.note(key+".new", after)
	return true
}

// plainEvents are those of an object whose changes have no parts of interest.
func plainEvents(change store.Change, o object.Object, a *api.Annotations, changed bool) []entry {
	if change.Action == store.ActionUpdate && !changed {
		return nil // what only managers write
	}
	return []entry{begun(change, o, a.GetName(), a.GetLabels())}
}

func serviceEvents(change store.Change, s *api.Service) []entry {
	a := s.GetSpec().GetAnnotations()
	e := begun(change, s, a.GetName(), a.GetLabels())
	e.serviceID, e.serviceName = s.GetId(), a.GetName()
	if change.Action != store.ActionUpdate {
		return []entry{e}
	}
	old, _ := change.Old.(*api.Service)
	replicas := func(s *api.Service) string {
		if r := s.GetSpec().GetReplicated(); r != nil {
			return strconv.FormatUint(r.GetReplicas(), 10)
		}
		return ""
	}
	e.differ("image", old.GetSpec().GetTask().GetContainer().GetImage(), s.GetSpec().GetTask().GetContainer().GetImage())
	e.differ("replicas", replicas(old), replicas(s))
	updated := e.differ("updatestate", word(old.GetUpdateStatus().GetState()), word(s.GetUpdateStatus().GetState()))
	if !updated && proto.Equal(old.GetSpec(), s.GetSpec()) {
		return nil
	}
	return []entry{e}
}

func (d *derivation) nodeEvents(change store.Change, n *api.Node) []entry {
	id, hostname := n.GetId(), n.GetDescription().GetHostname()
	d.hostnames[id] = hostname
	if change.Action == store.ActionDelete {
		delete(d.hostnames, id)
	}
	e := begun(change, n, hostname, n.GetSpec().GetAnnotations().GetLabels())
	e.nodeID, e.nodeName = id, hostname
	if change.Action != store.ActionUpdate {
		return []entry{e}
	}
	old, _ := change.Old.(*api.Node)
	changed := e.differ("availability", word(old.GetSpec().GetAvailability()), word(n.GetSpec().GetAvailability()))
	changed = e.differ("role", word(old.GetRole()), word(n.GetRole())) || changed
	changed = e.differ("state", word(old.GetStatus().GetState()), word(n.GetStatus().GetState())) || changed
	changed = e.differ("approval", word(old.GetApproval().GetState()), word(n.GetApproval().GetState())) || changed
	changed = e.differ("compromised", truth(old.GetCompromise() != nil), truth(n.GetCompromise() != nil)) || changed
	if !changed && proto.Equal(old.GetSpec(), n.GetSpec()) {
		return nil // what the node says of itself
	}
	return []entry{e}
}

// taskEvents are one for each thing that became of the task; an end for want of memory is told before the end.
func (d *derivation) taskEvents(change store.Change, t *api.Task) []entry {
	old, _ := change.Old.(*api.Task)
	status, before := t.GetStatus(), old.GetStatus()
	var out []entry
	if change.Action != store.ActionUpdate {
		return []entry{d.task(change, t)}
	}
	if status.GetContainer().GetOomKilled() && !before.GetContainer().GetOomKilled() {
		e := d.task(change, t)
		e.action = actionOOM
		if limit := t.GetSpec().GetResources().GetLimits().GetMemoryBytes(); limit > 0 {
			e.note("memory", strconv.FormatInt(limit, 10))
		}
		out = append(out, e)
	}
	if health := status.GetContainer().GetHealth(); health != before.GetContainer().GetHealth() && health > api.HealthState_HEALTH_STATE_STARTING {
		e := d.task(change, t)
		e.action = actionHealth + word(health)
		out = append(out, e)
	}
	why := status.GetErr()
	ready := d.readinessEvents(change, t, before)
	if status.GetState() == before.GetState() && status.GetReadiness() != nil {
		return append(out, ready...) // what else its checks say is none
	}
	if status.GetState() == before.GetState() && (why == "" || why == before.GetErr()) {
		return out
	}
	e := d.task(change, t)
	e.action = word(status.GetState())
	e.note("error", fault.Clip(why, maxError))
	if s := status.GetState(); status.GetContainer() != nil && s >= api.TaskState_TASK_STATE_COMPLETE && s <= api.TaskState_TASK_STATE_FAILED {
		e.note("exitCode", strconv.Itoa(int(status.GetContainer().GetExitCode())))
	}
	return append(append(out, e), ready...)
}

// readinessEvents are those of a task that runs: it is ready, or no more.
func (d *derivation) readinessEvents(change store.Change, t *api.Task, before *api.TaskStatus) []entry {
	ready := t.GetStatus().GetReadiness().GetReady()
	if t.GetStatus().GetState() != api.TaskState_TASK_STATE_RUNNING || ready == before.GetReadiness().GetReady() {
		return nil
	}
	e := d.task(change, t)
	e.action = actionReadiness + "ready"
	if !ready {
		e.action = actionReadiness + "lost"
		e.note("error", fault.Clip(t.GetStatus().GetErr(), maxError))
	}
	return []entry{e}
}

// task is an event of a task with what all of them have.
func (d *derivation) task(change store.Change, t *api.Task) entry {
	e := begun(change, t, taskstate.Name(t), t.GetSpec().GetContainer().GetLabels())
	e.serviceID, e.serviceName = t.GetServiceId(), t.GetServiceName()
	e.nodeID, e.nodeName = t.GetNodeId(), d.hostnames[t.GetNodeId()]
	e.note("service", e.serviceName)
	e.note("serviceid", e.serviceID)
	e.note("node", e.nodeName)
	e.note("nodeid", e.nodeID)
	if change.Action == store.ActionCreate {
		e.note("image", t.GetSpec().GetContainer().GetImage())
	}
	return e
}

// leads is the event that a manager leads, after what is there of the log.
func (d *derivation) leads(leadership store.Leadership, after cursor) entry {
	id := leadership.LeaderID
	e := entry{at: after, kind: object.KindNode.String(), action: actionLeader, id: id, name: d.hostnames[id], nodeID: id, nodeName: d.hostnames[id]}
	e.note("name", e.name)
	e.note("term", strconv.FormatUint(leadership.Term, 10))
	return e
}

// word is the value of an enum in lower case, without the enum's own name before it; empty for the one that is unspecified.
func word(value protoreflect.Enum) string {
	if value.Number() == 0 {
		return ""
	}
	descriptor := value.Descriptor()
	named := descriptor.Values().ByNumber(value.Number())
	if named == nil {
		return strconv.Itoa(int(value.Number())) // of a later version
	}
	first := string(descriptor.Values().Get(0).Name()) // ENUM_UNSPECIFIED
	return strings.ToLower(strings.TrimPrefix(string(named.Name()), strings.TrimSuffix(first, "UNSPECIFIED")))
}

func truth(b bool) string { return strconv.FormatBool(b) }
