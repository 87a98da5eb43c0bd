package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

func drained(n *api.Node) bool {
	return n.GetSpec().GetAvailability() == api.Availability_AVAILABILITY_DRAIN
}

// beginDrain notes in node, which takes the place of old, since when it is drained with the timeout that its spec has, and returns what the
// caller should know of a drain that begins.
func beginDrain(tx store.ReadTx, now time.Time, old, node *api.Node) (warnings []string, err error) {
	if !drained(node) {
		if node.Status != nil {
			node.Status.DrainBeganAt = nil
		}
		return nil, nil
	}
	if drained(old) && proto.Equal(old.GetSpec().GetDrainTimeout(), node.GetSpec().GetDrainTimeout()) {
		return nil, nil
	}
	orNew(&node.Status)
	node.Status.DrainBeganAt = timestamppb.New(now)
	services, err := heldByVolumes(tx, node.GetId())
	if err != nil || len(services) == 0 {
		return nil, err
	}
	return []string{fmt.Sprintf("tasks of %s wait until node %s is active again: the data of their volumes is there",
		strings.Join(services, ", "), cmp.Or(node.GetDescription().GetHostname(), node.GetId()))}, nil
}

// heldByVolumes returns the names of the services that have tasks on a node whose next ones can go nowhere else because of their volumes.
func heldByVolumes(tx store.ReadTx, nodeID string) (services []string, err error) {
	tasks, err := store.List[*api.Task](tx, store.ByNode(nodeID))
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		service, err := store.Get[*api.Service](tx, t.GetServiceId())
		if err != nil || !taskstate.Live(t) || taskstate.Ended(t) || t.GetBoundNodeId() != "" || slices.Contains(services, t.GetServiceName()) {
			continue // also of a service that is gone
		}
		slot, err := store.List[*api.Task](tx, store.BySlot(t.GetServiceId(), t.GetSlot()))
		if err != nil {
			return nil, err
		}
		if taskstate.VolumeNode(service.GetSpec().GetTask(), slot) == nodeID {
			services = append(services, t.GetServiceName())
		}
	}
	slices.Sort(services)
	return services, nil
}

// showDrain says in a node, which is the caller's, how far its drain is.
func showDrain(tx store.ReadTx, node *api.Node) error {
	if node.Status != nil {
		node.Status.Drain = nil
	}
	if !drained(node) {
		return nil
	}
	tasks, err := store.List[*api.Task](tx, store.ByNode(node.GetId()))
	if err != nil {
		return err
	}
	left := map[string][]*api.Task{} // by service
	progress := new(api.DrainProgress)
	for _, t := range tasks {
		if taskstate.HoldsNode(t) {
			left[t.GetServiceId()] = append(left[t.GetServiceId()], t)
			progress.TasksLeft++
		}
	}
	for id, tasks := range left {
		held, err := heldUp(tx, node, id)
		if err != nil {
			return err
		}
		progress.Services = append(progress.Services, &api.DrainedService{
			ServiceId: id, ServiceName: tasks[0].GetServiceName(), TasksLeft: uint32(len(tasks)), Held: held,
		})
	}
	slices.SortFunc(progress.GetServices(), func(a, b *api.DrainedService) int {
		return cmp.Or(cmp.Compare(a.GetServiceName(), b.GetServiceName()), cmp.Compare(a.GetServiceId(), b.GetServiceId()))
	})
	orNew(&node.Status)
	node.Status.Drain = progress
	return nil
}

// heldUp says why the tasks of a service don't leave a node, or "": a task that is to run in place of one of them has no node or ended, or
// nothing is heard of the node.
func heldUp(tx store.ReadTx, node *api.Node, serviceID string) (string, error) {
	if node.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN {
		return "the node is down: whether its tasks have ended is not known", nil
	}
	tasks, err := store.List[*api.Task](tx, store.ByService(serviceID))
	if err != nil {
		return "", err
	}
	slots := taskstate.Slots(tasks)
	began := node.GetStatus().GetDrainBeganAt().AsTime()
	for _, slot := range slices.Sorted(maps.Keys(slots)) {
		tasks := slots[slot]
		if !slices.ContainsFunc(tasks, func(t *api.Task) bool { return t.GetNodeId() == node.GetId() && taskstate.Kept(t) }) {
			continue
		}
		if held := heldSlot(tasks, node.GetId(), began); held != "" {
			return taskstate.Name(tasks[0]) + ": " + held, nil
		}
	}
	return "", nil
}

// heldSlot says why the task that is to run in place of one on a node, and was made after the drain began, does not, or "".
func heldSlot(tasks []*api.Task, nodeID string, began time.Time) (held string) {
	for _, t := range tasks {
		status := t.GetStatus()
		switch {
		case t.GetNodeId() == nodeID || !taskstate.Kept(t):
		case taskstate.Live(t) && !taskstate.Ended(t):
			if t.GetNodeId() != "" || status.GetErr() == "" {
				return "" // it is on its way
			}
			held = "no node takes it: " + status.GetErr()
		case held == "" && taskstate.EndedItself(t) && t.GetMeta().GetCreatedAt().AsTime().After(began):
			held = "it ended elsewhere: " + cmp.Or(status.GetErr(), status.GetMessage())
		}
	}
	return held
}
