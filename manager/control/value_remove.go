package control

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// removeValue removes a value that no service has in its spec, or, with the key NAME@NUMBER, one version of it. It returns the value's id.
// The number is part of the key because a leader of before finds nothing then: it would pass over a field, and remove all versions.
func removeValue[T valueObject](ctx context.Context, s *Server, requestID, key string) (string, error) {
	removed := key
	err := s.update(ctx, requestID, func(tx store.Tx) error {
		name, number, one := strings.Cut(key, "@")
		value, err := resolve[T](tx, name)
		if err != nil {
			return err
		}
		removed = value.GetId()
		// A service that starts to use it at this moment requires that it is there, and this requires that no service has changed:
		// whichever comes second runs again.
		tx.RequireKind(object.KindService)
		if one {
			return removeVersion(tx, value, number)
		}
		return removeAll(tx, value)
	})
	return removed, err
}

// removeAll removes a value with all its versions.
func removeAll[T valueObject](tx store.Tx, value T) error {
	kind := object.KindOf(value)
	users, err := store.List[*api.Service](tx, valueUsers(kind, value.GetId()))
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return inUse(kind.String(), object.Name(value), users)
	}
	former, err := store.List[*api.OldValue](tx, store.ByName(value.GetId()))
	if err != nil {
		return err
	}
	for _, v := range former {
		if err := tx.Delete(object.KindOldValue, v.GetId()); err != nil {
			return err
		}
	}
	return tx.Delete(kind, value.GetId())
}

// removeVersion removes a former value that neither a service nor a task that may run has. A spec of before may name it: going back to
// that is refused then, or leads to the newest value.
func removeVersion[T valueObject](tx store.Tx, value T, number string) error {
	kind, name, newest := object.KindOf(value), object.Name(value), versionOf(value)
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n == 0 {
		return fault.New(fault.Invalid, "invalid version %q of %s: write the number of a version, as in %[2]s@2", clip(number), name)
	}
	users, err := store.List[*api.Service](tx, valueUsers(kind, value.GetId()))
	if err != nil {
		return err
	}
	users = slices.DeleteFunc(users, func(service *api.Service) bool {
		return !has(references(value.GetId(), service.GetSpec().GetTask()), n, newest)
	})
	switch {
	case n == newest && len(users) > 0:
		return fault.New(fault.Precondition, "%w: version %d is the newest, which those have that follow: `skep %s update %s` gives it another value first",
			inUse(kind.String(), name, users), n, kind, name)
	case n == newest:
		return fault.New(fault.Precondition, "version %d of %s '%s' is the newest: `skep %[2]s update %[3]s` gives it another value first, and `skep %[2]s rm %[3]s` removes all",
			n, kind, name)
	case len(users) > 0:
		return inUse(kind.String()+" version", name+"@"+number, users)
	}
	if err := unusedByTasks(tx, value, n); err != nil {
		return err
	}
	former, err := formerValue(tx, value.GetId(), n)
	if err != nil {
		return err
	}
	if former == nil {
		return fault.New(fault.NotFound, "%[1]s %[2]s has no version %[3]d: `skep %[1]s inspect %[2]s` lists those that there are", kind, name, n)
	}
	return tx.Delete(object.KindOldValue, former.GetId())
}

// unusedByTasks refuses while a task that may run has a version, as those have that an update has not replaced yet.
func unusedByTasks[T valueObject](tx store.Tx, value T, number uint64) error {
	tasks, err := store.List[*api.Task](tx, valueUsers(object.KindOf(value), value.GetId()))
	if err != nil {
		return err
	}
	var names []string
	for _, t := range tasks {
		if taskstate.Live(t) && !taskstate.Ended(t) && has(references(value.GetId(), t.GetSpec()), number, versionOf(value)) {
			names = append(names, t.GetServiceName())
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fault.New(fault.Precondition, "%s version '%s@%d' is in use by tasks of %s: wait until they are replaced",
		object.KindOf(value), object.Name(value), number, strings.Join(slices.Compact(names), ", "))
}

// has reports whether one of the references means a version.
func has(references []*api.SecretReference, number, newest uint64) bool {
	return slices.ContainsFunc(references, func(r *api.SecretReference) bool {
		return r.GetVersion() == number || r.GetVersion() == 0 && number == newest
	})
}

// formerValue returns a former value by its number, or nil if there is none.
func formerValue(tx store.ReadTx, owner string, number uint64) (*api.OldValue, error) {
	former, err := store.List[*api.OldValue](tx, store.ByName(owner))
	for _, v := range former {
		if v.GetNumber() == number {
			return v, err
		}
	}
	return nil, err
}
