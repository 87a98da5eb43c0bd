package control

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

const (
	// spareValues are the former values that are kept although nothing uses them: what a service that is rolled back may want again.
	spareValues = 5
	// maxValuesInUse bounds the former values that are kept because they are used.
	maxValuesInUse = 100
)

// versionOf returns the number of the newest value.
func versionOf[T valueObject](value T) uint64 { return max(1, value.GetVersion()) }

// valueUsers selects the services and tasks whose specs reference a value.
func valueUsers(kind object.Kind, id string) store.By {
	if kind == object.KindConfig {
		return store.ByReferencedConfig(id)
	}
	return store.ByReferencedSecret(id)
}

// followers are the names of the services that follow a value, sorted.
type followers struct {
	// replaced get tasks with the new value, rewritten have tasks that get it in their files.
	replaced, rewritten []string
}

// updateValue changes a secret or config. It returns whom that is news for.
func updateValue[T valueObject](ctx context.Context, s *Server, requestID, key string, most int, change *api.ValueChange) (services followers, err error) {
	if change == nil || len(change.GetData())+len(change.GetLabelAdd())+len(change.GetLabelRemove()) == 0 {
		return services, fault.New(fault.Invalid, "change: nothing is to be changed: give a new value, or labels to add or remove")
	}
	err = s.update(ctx, requestID, func(tx store.Tx) error {
		old, err := resolve[T](tx, key)
		if err != nil {
			return err
		}
		value := proto.CloneOf(old)
		spec := specOf(value)
		spec.GetAnnotations().Labels = changedLabels(spec.GetAnnotations().GetLabels(), change)
		if len(change.GetData()) > 0 && !bytes.Equal(change.GetData(), spec.GetData()) {
			renew(value, change.GetData(), versionOf(old)+1)
			if services, err = moveFollowers(tx, value); err != nil {
				return err
			}
			if err := retire(tx, old, requestID); err != nil {
				return err
			}
		}
		if proto.Equal(old, value) {
			return nil
		}
		if err := validateValue(object.KindOf(value), most, spec); err != nil {
			return err
		}
		return tx.Update(value)
	})
	return services, err
}

func changedLabels(labels map[string]string, change *api.ValueChange) map[string]string {
	for _, key := range change.GetLabelRemove() {
		delete(labels, key)
	}
	for key, value := range change.GetLabelAdd() {
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels
}

// renew gives a value, which nobody else can see yet, new data.
func renew[T valueObject](value T, data []byte, version uint64) {
	now := timestamppb.New(time.Now())
	switch o := any(value).(type) {
	case *api.Secret:
		o.Spec.Data, o.Version, o.ValueCreatedAt = data, version, now
	case *api.Config:
		o.Spec.Data, o.Version, o.ValueCreatedAt = data, version, now
	}
}

// retire keeps the present data of a value as a former value, under the id, and drops former ones that are too many.
func retire[T valueObject](tx store.Tx, value T, id string) error {
	former, err := store.List[*api.OldValue](tx, store.ByName(value.GetId()))
	if err != nil {
		return err
	}
	used, err := usedVersions(tx, value)
	if err != nil {
		return err
	}
	slices.SortFunc(former, func(a, b *api.OldValue) int { return int(b.GetNumber()) - int(a.GetNumber()) })
	spare, inUse := 1, 0 // the one that is made here
	for _, v := range former {
		switch {
		case used[v.GetNumber()]:
			inUse++
		case spare < spareValues:
			spare++
		default:
			if err := tx.Delete(object.KindOldValue, v.GetId()); err != nil {
				return err
			}
		}
	}
	if inUse >= maxValuesInUse {
		return fault.New(fault.Precondition, "%s %s has %d former values that services or tasks use: have services use newer ones first",
			object.KindOf(value), object.Name(value), inUse)
	}
	return tx.Create(&api.OldValue{
		Id: id, OwnerId: value.GetId(), Number: versionOf(value), CreatedAt: valueCreatedAt(value), Data: specOf(value).GetData(),
	})
}

// valueCreatedAt returns since when a value has the data that it has.
func valueCreatedAt[T valueObject](value T) *timestamppb.Timestamp {
	return cmp.Or(value.GetValueCreatedAt(), value.GetMeta().GetCreatedAt())
}

// usedVersions returns which versions of a value a service may give to tasks, now or when it is rolled back, or a task has that may run.
func usedVersions[T valueObject](tx store.Tx, value T) (map[uint64]bool, error) {
	used := map[uint64]bool{}
	use := func(specs ...*api.TaskSpec) {
		for _, r := range references(value.GetId(), specs...) {
			used[r.GetVersion()] = true
		}
	}
	// Whoever begins to use it at this moment makes one of the two run again. All services are looked at: one may have had it.
	tx.RequireKind(object.KindService)
	services, err := store.List[*api.Service](tx)
	if err != nil {
		return nil, err
	}
	for _, service := range services {
		use(service.GetSpec().GetTask(), service.GetPreviousSpec().GetTask())
	}
	tasks, err := store.List[*api.Task](tx, valueUsers(object.KindOf(value), value.GetId()))
	if err != nil {
		return nil, err
	}
	for _, task := range tasks {
		if taskstate.Live(task) && !taskstate.Ended(task) {
			use(task.GetSpec())
		}
	}
	return used, nil
}

// references returns the references to a value in specs of tasks.
func references(id string, specs ...*api.TaskSpec) (found []*api.SecretReference) {
	for _, spec := range specs {
		for _, r := range slices.Concat(spec.GetContainer().GetSecrets(), spec.GetContainer().GetConfigs()) {
			if r.GetSecretId() == id {
				found = append(found, r)
			}
		}
	}
	return found
}

// inPlace reports whether tasks with a reference stay, and get new values in their files.
func inPlace(r *api.SecretReference) bool {
	return r.GetOnChange() != api.OnChange_ON_CHANGE_UNSPECIFIED
}

// moveFollowers gives the services without a version of their choice the newest one, and has their tasks replaced, unless those get it in
// their files.
func moveFollowers[T valueObject](tx store.Tx, value T) (names followers, err error) {
	tx.RequireKind(object.KindService)
	services, err := store.List[*api.Service](tx, valueUsers(object.KindOf(value), value.GetId()))
	if err != nil {
		return names, err
	}
	newest := versionOf(value)
	for _, service := range services {
		if tx.Full() {
			return names, fault.New(fault.Precondition, "%[1]s %[2]s has too many services to change them all at once: create another %[1]s, and move them one by one",
				object.KindOf(value), object.Name(value))
		}
		// What was the newest until now gets its number: a rollback brings that back.
		before := proto.CloneOf(service)
		for _, r := range references(value.GetId(), before.GetSpec().GetTask(), before.GetPreviousSpec().GetTask()) {
			if r.GetVersion() == 0 && !inPlace(r) {
				r.Version = newest - 1
			}
		}
		spec, moved, rewritten := proto.CloneOf(before.GetSpec()), false, false
		for _, r := range references(value.GetId(), spec.GetTask()) {
			switch {
			case inPlace(r):
				rewritten = true
			case !r.GetPinned():
				r.Version, moved = newest, true
			}
		}
		name := service.GetSpec().GetAnnotations().GetName()
		switch {
		case moved:
			if _, err := replaceSpec(tx, before, spec); err != nil {
				return names, err
			}
			names.replaced = append(names.replaced, name)
		case rewritten:
			names.rewritten = append(names.rewritten, name)
		}
	}
	slices.Sort(names.replaced)
	slices.Sort(names.rewritten)
	return names, nil
}

// chooseVersion completes a reference to a value with its version, and says whether there is that one.
func chooseVersion[T valueObject](tx store.ReadTx, value T, r *api.SecretReference) error {
	if inPlace(r) { // and stays without a version
		return nil
	}
	newest := versionOf(value)
	if r.GetVersion() == 0 && !r.GetPinned() {
		r.Version = newest
	}
	if r.GetVersion() == newest {
		return nil
	}
	former, err := formerValue(tx, value.GetId(), r.GetVersion())
	if former != nil || err != nil {
		return err
	}
	if !r.GetPinned() {
		r.Version = newest // an old spec, whose value is gone
		return nil
	}
	return fault.New(fault.Invalid, "%[1]s %[2]s has no version %[3]d: `skep %[1]s inspect %[2]s` lists those that there are",
		object.KindOf(value), object.Name(value), r.GetVersion())
}
