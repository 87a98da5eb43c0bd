// Package lookup finds objects by what people write for them.
package lookup

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// maxQuoted bounds in bytes how much of the user's input an error repeats.
const maxQuoted = 100

// maxListed bounds how many names an error lists.
const maxListed = 5

// One finds the object that a person means: by id, else by name, else by an unambiguous prefix of its id. Errors have a kind:
// fault.NotFound, or fault.Invalid for what is ambiguous, with what it may mean.
func One[T store.Object](tx store.ReadTx, key string) (T, error) {
	var none T
	kind := object.KindOf(none)
	if key == "" {
		return none, fault.New(fault.Invalid, "the name or id of a %s is missing", kind)
	}
	found, err := store.Get[T](tx, key)
	if err == nil || !errors.Is(err, store.ErrNotFound) {
		return found, err
	}
	var matches []T
	if object.HasIndex(kind, object.IndexName) {
		if matches, err = store.List[T](tx, store.ByName(key)); err != nil {
			return none, err
		}
	}
	if len(matches) == 0 {
		if matches, err = store.List[T](tx, store.ByIDPrefix(key)); err != nil {
			return none, err
		}
	}
	switch len(matches) {
	case 0:
		return none, fault.New(fault.NotFound, "%s %s not found", kind, fault.Clip(key, maxQuoted))
	case 1:
		return matches[0], nil
	default:
		return none, fault.New(fault.Invalid, "%s %s is ambiguous (%d matches found): %s", kind, fault.Clip(key, maxQuoted), len(matches), List(matches))
	}
}

// InSlot returns the tasks, one at least, in a slot that is written SERVICE.SLOT, such as web.1. Errors have a kind: fault.NotFound for
// what is no such thing, or is empty, or fault.Invalid for an ambiguous service.
func InSlot(tx store.ReadTx, key string) ([]*api.Task, error) {
	missing := fault.New(fault.NotFound, "no such task or service: %s", fault.Clip(key, maxQuoted))
	dot := strings.LastIndexByte(key, '.')
	if dot <= 0 {
		return nil, missing
	}
	slot, err := strconv.ParseUint(key[dot+1:], 10, 64)
	if err != nil {
		return nil, missing
	}
	service, err := One[*api.Service](tx, key[:dot])
	if fault.KindOf(err) == fault.NotFound {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	tasks, err := store.List[*api.Task](tx, store.ByService(service.GetId()))
	if err != nil {
		return nil, err
	}
	tasks = slices.DeleteFunc(tasks, func(t *api.Task) bool { return t.GetSlot() != slot })
	if len(tasks) == 0 {
		name := object.Name(service)
		return nil, fault.New(fault.NotFound, "service %s has no task in slot %d: `skep service ps %s` lists those that it has", name, slot, name)
	}
	return tasks, nil
}

// List names objects for a message, a few at most.
func List[T store.Object](objects []T) string {
	var texts []string
	for i, o := range objects {
		if i == maxListed {
			texts = append(texts, "…")
			break
		}
		text := o.GetId()
		if name := object.Name(o); name != "" {
			text += " (" + name + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
