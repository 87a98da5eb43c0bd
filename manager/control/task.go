package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// ListTasks returns the tasks of some services and nodes, or all.
func (s *Server) ListTasks(ctx context.Context, request *api.ListTasksRequest) (*api.ListTasksResponse, error) {
	response := new(api.ListTasksResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		tasks, err := listTasks(tx, request)
		if err != nil {
			return err
		}
		response.Tasks, err = identified(tx, tasks)
		return err
	})
}

// workloadOf returns whom a task's certificate names.
func workloadOf(cluster *api.Cluster, task *api.Task) ca.Workload {
	return ca.Workload{ClusterID: cluster.GetId(), Service: task.GetServiceName(), Slot: task.GetSlot()}
}

// identified returns copies of tasks that say whom their certificates name.
func identified(tx store.ReadTx, tasks []*api.Task) ([]*api.Task, error) {
	cluster, err := theCluster(tx)
	if err != nil {
		return nil, err
	}
	var out []*api.Task
	for _, task := range tasks {
		task = proto.CloneOf(task)
		task.SpiffeId = workloadOf(cluster, task).SPIFFEID()
		out = append(out, task)
	}
	return out, nil
}

func listTasks(tx store.ReadTx, request *api.ListTasksRequest) ([]*api.Task, error) {
	services, nodes := distinct(request.GetServiceIds()), distinct(request.GetNodeIds())
	switch {
	case len(services) > 0:
		tasks, err := collect(tx, services, store.ByService)
		return slices.DeleteFunc(tasks, func(task *api.Task) bool {
			return len(nodes) > 0 && !slices.Contains(nodes, task.GetNodeId())
		}), err
	case len(nodes) > 0:
		return collect(tx, nodes, store.ByNode)
	default:
		return store.List[*api.Task](tx)
	}
}

func distinct(ids []string) []string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return slices.Compact(ids)
}

func collect(tx store.ReadTx, ids []string, by func(string) store.By) ([]*api.Task, error) {
	var all []*api.Task
	for _, id := range ids {
		tasks, err := store.List[*api.Task](tx, by(id))
		if err != nil {
			return nil, err
		}
		all = append(all, tasks...)
	}
	return all, nil
}

// WatchService sends a service with its tasks now, and again after every change. A burst of changes is one message.
func (s *Server) WatchService(request *api.WatchServiceRequest, stream api.Control_WatchServiceServer) error {
	ctx := stream.Context()
	if err := s.Store.Barrier(ctx); err != nil {
		return storeFault(err)
	}
	service, err := current[*api.Service](s, request.GetServiceId())
	if err != nil {
		return err
	}
	kinds := []object.Kind{object.KindService, object.KindTask}
	if taskstate.EveryNode(service.GetSpec()) {
		kinds = append(kinds, object.KindNode) // how many tasks there are to be depends on them
	}
	for {
		err := s.followService(ctx, service.GetId(), kinds, stream)
		if !errors.Is(err, store.ErrResync) {
			return storeFault(err)
		}
	}
}

// followService sends the service whenever it changes, until the watch ends.
func (s *Server) followService(ctx context.Context, id string, kinds []object.Kind, stream api.Control_WatchServiceServer) error {
	watcher, err := s.Store.Watch(ctx, 0, kinds...)
	if err != nil {
		return err
	}
	if err := s.sendService(watcher.Snapshot(), id, stream); err != nil {
		return err
	}
	for {
		batch, err := watcher.Next(ctx)
		if err != nil {
			return err
		}
		changed := concerns(batch, id)
		for ok := true; ok; {
			if batch, ok, err = watcher.TryNext(); err != nil {
				return err
			}
			changed = changed || concerns(batch, id)
		}
		if !changed {
			continue
		}
		began := time.Now()
		if err := s.Store.View(func(tx store.ReadTx) error { return s.sendService(tx, id, stream) }); err != nil {
			return err
		}
		if err := restAfter(ctx, time.Since(began)); err != nil {
			return err
		}
	}
}

const (
	// sendRest is how much longer than sending a service takes a watch of it rests then, and maxSendRest how long at most. All its tasks are sent
	// each time, and while a service with thousands of them starts, each that does is news.
	sendRest    = 4
	maxSendRest = time.Second
	// quickSend is not worth a rest.
	quickSend = time.Millisecond
)

// restAfter rests after a service was sent, which took that long.
func restAfter(ctx context.Context, took time.Duration) error {
	if took < quickSend {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(min(sendRest*took, maxSendRest)):
		return nil
	}
}

// concerns reports whether a batch changes a service, one of its tasks, or a node.
func concerns(batch store.Batch, serviceID string) bool {
	return slices.ContainsFunc(batch.Changes, func(change store.Change) bool {
		switch o := change.Object.(type) {
		case *api.Task:
			return o.GetServiceId() == serviceID
		case *api.Node:
			return true
		default:
			return o.GetId() == serviceID
		}
	})
}

func (s *Server) sendService(tx store.ReadTx, id string, stream api.Control_WatchServiceServer) error {
	service, err := store.Get[*api.Service](tx, id)
	if errors.Is(err, store.ErrNotFound) {
		return fault.New(fault.NotFound, "service %s was removed", id)
	}
	if err != nil {
		return err
	}
	tasks, err := store.List[*api.Task](tx, store.ByService(id))
	if err != nil {
		return err
	}
	counts, err := countsOf(tx, service, tasks)
	if err != nil {
		return err
	}
	perService := map[string]*api.ServiceCounts{id: counts}
	if err := countRunning(tx, perService, tasks); err != nil {
		return err
	}
	if tasks, err = reachable(tx, tasks); err != nil {
		return err
	}
	return stream.Send(&api.WatchServiceResponse{Service: service, Tasks: tasks, Counts: counts})
}

// reachable leaves out the tasks that are bound to a node which is down: nothing can become of them until it is back.
func reachable(tx store.ReadTx, tasks []*api.Task) (kept []*api.Task, err error) {
	for _, task := range tasks {
		if task.GetBoundNodeId() != "" {
			node, err := store.Get[*api.Node](tx, task.GetBoundNodeId())
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
			if node.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN {
				continue
			}
		}
		kept = append(kept, task)
	}
	return kept, nil
}
