package orchestrator

import (
	"encoding/binary"
	"errors"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
	"github.com/skep-io/skep/manager/eligible"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// reader reads views of one state of the store. What several of them need it finds out once.
type reader struct {
	tx store.ReadTx
	// everyNode selects the services whose views say which nodes are theirs; nil is none.
	everyNode func(*api.Service) bool
	crowded   func(*api.Task) bool
	parsed    parsed
	nodes     map[string]*api.Node // those that were read; nil is none with the id
}

func newReader(tx store.ReadTx, everyNode func(*api.Service) bool) *reader {
	r := &reader{tx: tx, everyNode: everyNode, parsed: parsed{}, nodes: map[string]*api.Node{}}
	r.crowded = crowding(tx, r.node)
	return r
}

func (r *reader) node(id string) *api.Node {
	n, known := r.nodes[id]
	if !known {
		n, _ = store.Get[*api.Node](r.tx, id) // nil when there is none
		r.nodes[id] = n
	}
	return n
}

// view reads what a core sees of a service, or with a slot above 0, of that slot.
func (r *reader) view(serviceID string, slot uint64) (View, error) {
	v := View{ServiceID: serviceID, HistoryLimit: defaultHistoryLimit, Node: r.node, Crowded: r.crowded, parsed: r.parsed}
	var err error
	if v.Service, err = store.Get[*api.Service](r.tx, serviceID); err != nil && !errors.Is(err, store.ErrNotFound) {
		return View{}, err
	}
	by := store.ByService(serviceID)
	if slot > 0 {
		by = store.BySlot(serviceID, slot)
	}
	if v.Tasks, err = store.List[*api.Task](r.tx, by); err != nil {
		return View{}, err
	}
	cluster, err := store.TheCluster(r.tx)
	if err != nil {
		return View{}, err
	}
	if spec := cluster.GetSpec(); spec != nil {
		v.HistoryLimit = spec.GetTaskHistoryLimit()
	}
	if slot == 0 && r.everyNode != nil && r.everyNode(v.Service) {
		v.Eligible, err = eligible.Read(r.tx, v.Service)
	}
	return v, err
}

// ReadView reads all that a core may see of a service, or with a slot above 0, of that slot.
func ReadView(tx store.ReadTx, serviceID string, slot uint64) (View, error) {
	return newReader(tx, func(s *api.Service) bool { return taskstate.EveryNode(s.GetSpec()) }).view(serviceID, slot)
}

// parsed has the sets of constraints that were parsed; nil keeps none.
type parsed map[string]constraint.Set

func (p parsed) parse(expressions []string) (constraint.Set, error) {
	var key []byte
	for _, e := range expressions {
		key = append(binary.AppendUvarint(key, uint64(len(e))), e...)
	}
	if set, ok := p[string(key)]; ok {
		return set, nil
	}
	set, err := constraint.Parse(expressions)
	if err == nil && p != nil {
		p[string(key)] = set
	}
	return set, err
}
