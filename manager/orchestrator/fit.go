package orchestrator

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// Unfit reports whether the task's node is not one any more that the task could have been placed on: its labels, role or platform no
// longer meet the constraints, or it has less than its tasks reserve and this is one of those that do not fit. A node that is down or
// has not said what it has is not judged.
func (v View) Unfit(t *api.Task) bool {
	n := v.Node(t.GetNodeId())
	if n == nil || n.GetDescription() == nil || n.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN || !taskstate.HoldsNode(t) {
		return false
	}
	placement := t.GetSpec().GetPlacement()
	if v.Service != nil && t.GetSpecVersion() == v.Service.GetSpecVersion() {
		placement = v.Service.GetSpec().GetTask().GetPlacement() // a change that asks for no new tasks leaves theirs as it was
	}
	set, err := v.parsed.parse(slices.Concat(placement.GetConstraints(), constraint.OfGrants(t.GetGrants())))
	return err != nil || !set.Match(n) || v.Crowded != nil && reserves(t) && v.Crowded(t)
}

// reserves reports whether a task reserves anything.
func reserves(t *api.Task) bool {
	r := t.GetSpec().GetResources().GetReservations()
	return r.GetNanoCpus() > 0 || r.GetMemoryBytes() > 0 || len(r.GetGeneric()) > 0
}

// Crowded returns the tasks, by id, that have no room on a node: from the oldest on, tasks that are to run have what they reserve, and
// those for which the rest is too little are crowded. One that is crowded leaves its part to others, so that no more tasks go than must.
func Crowded(n *api.Node, tasks []*api.Task) map[string]bool {
	holding := slices.DeleteFunc(slices.Clone(tasks), func(t *api.Task) bool {
		return !taskstate.Live(t) || !taskstate.HoldsNode(t) || !reserves(t)
	})
	if len(leftOver(n, holding)) == 0 {
		return nil // where all have room, the order does not matter
	}
	slices.SortFunc(holding, compareAge)
	return leftOver(n, holding)
}

// leftOver returns the tasks, by id, for which there is too little when all take what they reserve, one after the other.
func leftOver(n *api.Node, tasks []*api.Task) map[string]bool {
	has := n.GetDescription().GetResources()
	cpus, memory, generic := newRoom(has.GetNanoCpus()), newRoom(has.GetMemoryBytes()), newStock(has.GetGeneric())
	var left map[string]bool
	for _, t := range tasks {
		reserved := t.GetSpec().GetResources().GetReservations()
		if !cpus.covers(reserved.GetNanoCpus()) || !memory.covers(reserved.GetMemoryBytes()) || !generic.covers(t.GetGenericResources()) {
			if left == nil {
				left = map[string]bool{}
			}
			left[t.GetId()] = true
			continue
		}
		cpus.left -= reserved.GetNanoCpus()
		memory.left -= reserved.GetMemoryBytes()
		generic.take(t.GetGenericResources())
	}
	return left
}

// room is what is left of a resource. What a node did not say is not held against its tasks.
type room struct {
	known bool
	left  int64
}

func newRoom(has int64) room { return room{has > 0, has} }

func (r room) covers(reserved int64) bool { return !r.known || reserved <= r.left || reserved <= 0 }

func compareAge(a, b *api.Task) int {
	if c := a.GetMeta().GetCreatedAt().AsTime().Compare(b.GetMeta().GetCreatedAt().AsTime()); c != 0 {
		return c
	}
	return strings.Compare(a.GetId(), b.GetId())
}

// stock is what is left of generic resources, by kind.
type stock map[string]*goods

type goods struct {
	ids   map[string]bool
	count int64
}

func newStock(resources []*api.GenericResource) stock {
	s := stock{}
	for _, r := range resources {
		g := &goods{ids: map[string]bool{}, count: r.GetCount()}
		for _, id := range r.GetIds() {
			g.ids[id] = true
		}
		s[r.GetKind()] = g
	}
	return s
}

// covers reports whether all that a task has is there.
func (s stock) covers(resources []*api.GenericResource) bool {
	for _, r := range resources {
		g := s[r.GetKind()]
		if g == nil || r.GetCount() > g.count || slices.ContainsFunc(r.GetIds(), func(id string) bool { return !g.ids[id] }) {
			return false
		}
	}
	return true
}

func (s stock) take(resources []*api.GenericResource) {
	for _, r := range resources {
		g := s[r.GetKind()]
		g.count -= r.GetCount()
		for _, id := range r.GetIds() {
			delete(g.ids, id)
		}
	}
}

// crowding returns View.Crowded for a snapshot: it looks at each node once.
func crowding(tx store.ReadTx, node func(id string) *api.Node) func(*api.Task) bool {
	known := map[string]map[string]bool{}
	return func(t *api.Task) bool {
		crowded, ok := known[t.GetNodeId()]
		if !ok {
			tasks, err := store.List[*api.Task](tx, store.ByNode(t.GetNodeId()))
			if err == nil { // a snapshot that can't be read judges nobody
				crowded = Crowded(node(t.GetNodeId()), tasks)
			}
			known[t.GetNodeId()] = crowded
		}
		return crowded[t.GetId()]
	}
}

// sameFit reports whether a node's change is none for tasks that are on it.
func sameFit(a, b *api.Node) bool {
	x, y := a.GetDescription(), b.GetDescription()
	return a.GetRole() == b.GetRole() && a.GetStatus().GetAddress() == b.GetStatus().GetAddress() &&
		maps.Equal(a.GetSpec().GetAnnotations().GetLabels(), b.GetSpec().GetAnnotations().GetLabels()) &&
		maps.Equal(x.GetEngineLabels(), y.GetEngineLabels()) && x.GetHostname() == y.GetHostname() &&
		proto.Equal(x.GetPlatform(), y.GetPlatform()) && proto.Equal(x.GetResources(), y.GetResources())
}
