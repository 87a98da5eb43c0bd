package dispatcher

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// Limits of the outbox.
const (
	// maxBatchStatuses and maxBatchBytes bound one Relay, well below the 4 MiB that gRPC takes, and to what a leader that is busy commits well
	// within relayTimeout: some transactions, one after the other. What takes longer is sent again, and keeps it busier.
	maxBatchStatuses = 2000
	maxBatchBytes    = 1 << 20
	// maxPending bounds the statuses that wait while no leader can be reached: agents keep theirs and try again.
	maxPending = 100_000
)

// outbox is the core that collects what agents said until the leader has committed it.
type outbox struct {
	nodes    map[string]*news
	letters  []*letter // oldest first
	statuses int       // in letters
	urgent   bool      // somebody waits
}

// news is what is known of one node beside its tasks. Newer news replace it.
type news struct {
	heard       time.Time
	address     string
	registered  time.Time            // zero when it did not register
	description *api.NodeDescription // nil when it did not change
	tls         *api.NodeTLS         // nil when it did not change, or the node registered and did not say
}

// letter is something that somebody waits for: statuses, or nothing but the news that its node has.
type letter struct {
	nodeID   string
	statuses []*api.TaskStatusUpdate
	// done gets the outcome. It has room for it.
	done chan error
	// abandoned says that nobody waits any more.
	abandoned bool
}

func newOutbox() *outbox { return &outbox{nodes: map[string]*news{}} }

func (o *outbox) node(id string) *news {
	n := o.nodes[id]
	if n == nil {
		n = &news{}
		o.nodes[id] = n
	}
	return n
}

// hear notes a sign of life.
func (o *outbox) hear(id string, at time.Time) {
	if n := o.node(id); at.After(n.heard) {
		n.heard = at
	}
}

// register notes what a node said when it registered.
func (o *outbox) register(id string, said introduction) {
	n := o.node(id)
	n.address, n.registered, n.tls = said.address, said.at, said.tls
	if said.description != nil {
		n.description = said.description
	}
	o.urgent = true
}

// describe notes what a node says anew of itself, and returns the letter to wait for.
func (o *outbox) describe(id string, description *api.NodeDescription, tls *api.NodeTLS) *letter {
	if tls != nil {
		o.node(id).tls = tls
	}
	if description != nil {
		o.node(id).description = description
	}
	return o.post(&letter{nodeID: id, done: make(chan error, 1)})
}

// report takes statuses in, and returns the letter to wait for.
func (o *outbox) report(id string, statuses []*api.TaskStatusUpdate) (*letter, error) {
	if o.statuses+len(statuses) > maxPending {
		return nil, fault.New(fault.Unavailable, "%d statuses wait for the leader of the swarm already, try again later", o.statuses)
	}
	return o.post(&letter{nodeID: id, statuses: statuses, done: make(chan error, 1)}), nil
}

func (o *outbox) post(l *letter) *letter {
	o.letters = append(o.letters, l)
	o.statuses += len(l.statuses)
	o.urgent = true
	return l
}

// empty reports whether there is nothing to send.
func (o *outbox) empty() bool { return len(o.nodes)+len(o.letters) == 0 }

// batch is what one Relay carries.
type batch struct {
	nodes   map[string]*news
	letters []*letter
}

// take removes and returns as much as one Relay carries. Those for whom somebody waits come first, in order.
func (o *outbox) take() *batch {
	b := &batch{nodes: map[string]*news{}}
	statuses, size := 0, 0
	move := func(id string) {
		if n := o.nodes[id]; n != nil {
			b.nodes[id] = n
			delete(o.nodes, id)
			size += proto.Size(n.description)
		}
	}
	for len(o.letters) > 0 && statuses < maxBatchStatuses && size < maxBatchBytes {
		l := o.letters[0]
		o.letters = o.letters[1:]
		o.statuses -= len(l.statuses)
		if l.abandoned {
			continue
		}
		b.letters = append(b.letters, l)
		statuses += len(l.statuses)
		for _, s := range l.statuses {
			size += proto.Size(s)
		}
		move(l.nodeID)
	}
	for id := range o.nodes {
		if size >= maxBatchBytes {
			break
		}
		move(id)
	}
	o.urgent = len(o.letters) > 0 || slices.ContainsFunc(values(o.nodes), func(n *news) bool { return !n.registered.IsZero() })
	return b
}

func values(nodes map[string]*news) []*news {
	out := make([]*news, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, n)
	}
	return out
}

// putBack undoes take after the leader could not be reached. What came in meanwhile is newer.
func (o *outbox) putBack(b *batch) {
	for id, old := range b.nodes {
		n := o.node(id)
		if n.heard.Before(old.heard) {
			n.heard = old.heard
		}
		if n.tls == nil && n.registered.IsZero() {
			n.tls = old.tls
		}
		if n.registered.IsZero() {
			n.registered, n.address = old.registered, old.address
		}
		if n.description == nil {
			n.description = old.description
		}
	}
	for _, l := range b.letters {
		o.statuses += len(l.statuses)
	}
	o.letters = slices.Concat(b.letters, o.letters)
	o.urgent = true
}

// reports returns the batch as it goes to the leader, ordered by node, with a node's statuses in the order in which they came.
func (b *batch) reports(now time.Time) []*api.NodeReport {
	byNode := map[string]*api.NodeReport{}
	report := func(id string) *api.NodeReport {
		if byNode[id] == nil {
			byNode[id] = &api.NodeReport{NodeId: id}
		}
		return byNode[id]
	}
	for id, n := range b.nodes {
		r := report(id)
		r.Address, r.Description, r.Tls = n.address, n.description, n.tls
		if !n.heard.IsZero() {
			r.HeardAgo = durationpb.New(max(now.Sub(n.heard), 0))
		}
		if !n.registered.IsZero() {
			r.RegisteredAt = timestamppb.New(n.registered)
		}
	}
	for _, l := range b.letters {
		if !l.abandoned {
			r := report(l.nodeID)
			r.Statuses = append(r.Statuses, l.statuses...)
		}
	}
	out := make([]*api.NodeReport, 0, len(byNode))
	for _, r := range byNode {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *api.NodeReport) int {
		if a.GetNodeId() < b.GetNodeId() {
			return -1
		}
		return 1
	})
	return out
}

// settle tells everybody who waits for the batch.
func (b *batch) settle(err error) {
	for _, l := range b.letters {
		l.done <- err
	}
}
