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
	if err := addNodes(tx, value, version); err != nil {
		return nil, err
	}
	out := slices.SortedFunc(maps.Values(versions), func(a, b *api.ValueVersion) int { return int(b.GetNumber()) - int(a.GetNumber()) })
	for _, v := range out {
		slices.Sort(v.Services)
		slices.Sort(v.Nodes)
		v.Services, v.Nodes = slices.Compact(v.Services), slices.Compact(v.Nodes)
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

// addNodes adds the nodes that the dispatcher gives a version to, by the same rule (I7).
func addNodes[T valueObject](tx store.ReadTx, value T, version func(*api.SecretReference) *api.ValueVersion) error {
	tasks, err := store.List[*api.Task](tx, valueUsers(object.KindOf(value), value.GetId()))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		if !taskstate.NeedsValues(task) {
			continue
		}
		name := task.GetNodeId()
		if node, err := store.Get[*api.Node](tx, name); err == nil {
			name = reach.Hostname(node)
		}
		for _, r := range references(value.GetId(), task.GetSpec()) {
			v := version(r)
			v.Nodes = append(v.Nodes, name)
		}
	}
	return nil
}
