package statsbroker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/reach"
)

const (
	// answerTimeout bounds what one node may take: a handshake and reading a few files for each task.
	answerTimeout = 5 * time.Second
	// maxAsked bounds the connections of one read at a time.
	maxAsked = 32
)

// Broker asks nodes.
type Broker struct{ dial reach.Dial }

// New returns a Broker.
func New(dial reach.Dial) (*Broker, error) {
	if dial == nil {
		return nil, errors.New("statsbroker: Dial is required")
	}
	return &Broker{dial: dial}, nil
}

// ReadStats returns the statistics of tasks, and the gaps, as the package comment says. Nodes has the nodes of the tasks by id; one that
// is missing there was removed. It changes neither.
func (b *Broker) ReadStats(ctx context.Context, tasks []*api.Task, nodes map[string]*api.Node) *api.ReadStatsResponse {
	byNode := map[string][]*api.Task{}
	for _, t := range tasks {
		byNode[t.GetNodeId()] = append(byNode[t.GetNodeId()], t)
	}
	out := &api.ReadStatsResponse{}
	var mu sync.Mutex // guards out
	var asked errgroup.Group
	asked.SetLimit(maxAsked)
	for id, mine := range byNode {
		asked.Go(func() error {
			stats, err := b.ask(ctx, nodes[id], mine)
			mu.Lock()
			defer mu.Unlock()
			out.Tasks = append(out.Tasks, stats...)
			if err != nil {
				out.Gaps = append(out.Gaps, &api.StatsGap{NodeId: id, Reason: err.Error()})
			}
			return nil // a node that does not answer is no reason to leave out others
		})
	}
	_ = asked.Wait() // none returns an error
	slices.SortFunc(out.Tasks, func(a, b *api.TaskStats) int {
		return cmp.Or(cmp.Compare(a.GetServiceName(), b.GetServiceName()), cmp.Compare(a.GetSlot(), b.GetSlot()), cmp.Compare(a.GetTaskId(), b.GetTaskId()))
	})
	slices.SortFunc(out.Gaps, func(a, b *api.StatsGap) int { return cmp.Compare(a.GetNodeId(), b.GetNodeId()) })
	return out
}

// ask asks one node, and completes its answer.
func (b *Broker) ask(ctx context.Context, node *api.Node, tasks []*api.Task) ([]*api.TaskStats, error) {
	address, err := reach.Address(node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	conn, err := b.dial(address, node.GetId())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := &api.ReadTaskStatsRequest{}
	meant := map[string]*api.Task{}
	for _, t := range tasks {
		request.TaskIds = append(request.TaskIds, t.GetId())
		meant[t.GetId()] = t
	}
	answer, err := api.NewAgentClient(conn).ReadTaskStats(ctx, request)
	if err != nil {
		return nil, reach.Reason(err, "keeps no statistics")
	}
	var out []*api.TaskStats
	for _, s := range answer.GetTasks() {
		t := meant[s.GetTaskId()]
		if t == nil {
			continue // it was not asked for, and is not this node's to tell
		}
		delete(meant, s.GetTaskId())
		s.NodeId, s.NodeHostname = node.GetId(), node.GetDescription().GetHostname()
		s.ServiceName, s.Slot = t.GetServiceName(), t.GetSlot()
		out = append(out, s)
	}
	return out, nil
}
