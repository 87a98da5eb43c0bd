package control

import (
	"maps"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/reach"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// versionsOf returns all versions of a value, the newest first, with who uses them.
func versionsOf[T valueObject](tx store.ReadTx, value T) ([]*api.ValueVersion, error) {
	former, err := store.List[*api.OldValue](tx, store.ByName(value.GetId()))
	if err != nil {
		return nil, err
	}
	newest := &api.ValueVersion{Number: versionOf(value), CreatedAt: valueCreatedAt(value)}
	versions := map[uint64]*api.ValueVersion{newest.GetNumber(): newest}
	for _, v := range former {
		versions[v.GetNumber()] = &api.ValueVersion{Number: v.GetNumber(), CreatedAt: v.GetCreatedAt()}
	}
	version := func(r *api.SecretReference) *api.ValueVersion {
		if r.GetVersion() == 0 {
			return newest
		}
		if v := versions[r.GetVersion()]; v != nil {
			return v
		}
		return &api.ValueVersion{} // it is gone
	}
	if err := addServices(tx, value, version); err != nil {
		return nil, err
	}
	if err := addTasks(tx, value, versions, version); err != nil {
		return nil, err
	}
	out := slices.SortedFunc(maps.Values(versions), func(a, b *api.ValueVersion) int { return int(b.GetNumber()) - int(a.GetNumber()) })
	for _, v := range out {
		slices.Sort(v.Services)
		slices.Sort(v.Nodes)
		slices.Sort(v.Tasks)
		v.Services, v.Nodes, v.Tasks = slices.Compact(v.Services), slices.Compact(v.Nodes), slices.Compact(v.Tasks)
	}
	return out, nil
}

func addServices[T valueObject](tx store.ReadTx, value T, version func(*api.SecretReference) *api.ValueVersion) error {
	services, err := store.List[*api.Service](tx, valueUsers(object.KindOf(value), value.GetId()))
	for _, service := range services {
		for _, r := range references(value.GetId(), service.GetSpec().GetTask()) {
			v := version(r)
			v.Services = append(v.Services, service.GetSpec().GetAnnotations().GetName())
		}
	}
	return err
}

// addTasks adds the tasks that have a version, or are about to, and their nodes: those that the dispatcher gives it to, by the same rule (I7).
func addTasks[T valueObject](tx store.ReadTx, value T, versions map[uint64]*api.ValueVersion, version func(*api.SecretReference) *api.ValueVersion) error {
	tasks, err := store.List[*api.Task](tx, valueUsers(object.KindOf(value), value.GetId()))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		if !taskstate.NeedsValues(task) {
			continue
		}
		node := task.GetNodeId()
		if n, err := store.Get[*api.Node](tx, node); err == nil {
			node = reach.Hostname(n)
		}
		for _, r := range references(value.GetId(), task.GetSpec()) {
			v := version(r)
			if received, ok := receivedVersion(task, r); ok {
				v = versions[received]
			}
			if v != nil {
				v.Nodes, v.Tasks = append(v.Nodes, node), append(v.Tasks, taskstate.Name(task))
			}
		}
	}
	return nil
}

// receivedVersion returns which version is in a file that is written again when the value changes, and whether that is up to the task's node:
// for one of an earlier version of Skep, which doesn't say, it is 0.
func receivedVersion(task *api.Task, r *api.SecretReference) (uint64, bool) {
	if !inPlace(r) || task.GetStatus().GetState() < api.TaskState_TASK_STATE_RUNNING {
		return 0, false
	}
	for _, v := range task.GetStatus().GetContainer().GetValues() {
		if v.GetId() == r.GetSecretId() {
			return v.GetVersion(), true
		}
	}
	return 0, true
}
