package store

import (
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
)

// share has an object that was decoded just now use the memory of others for what it has in common with them: of the one that it replaces,
// or nil, and a new task of its service's or another task of it. A task's own is a tenth of what its spec takes.
func share(in *tables, o, old Object) {
	switch o := o.(type) {
	case *api.Service:
		if old != nil {
			object.ShareService(o, old.(*api.Service))
		}
	case *api.Task:
		if old != nil {
			object.ShareTask(o, old.(*api.Task))
			return
		}
		shareNew(in, o)
	}
}

// shareNew is share for a task that there was not.
func shareNew(in *tables, t *api.Task) {
	if shareService(in, t); t.GetSpec() == serviceOf(in, t).GetSpec().GetTask() && len(t.GetGrants()) == 0 {
		return
	}
	for other := range in.all(object.KindTask, ByService(t.GetServiceId())) {
		object.ShareTask(t, other.(*api.Task))
		return
	}
}

func shareService(in *tables, t *api.Task) {
	service := serviceOf(in, t)
	spec := service.GetSpec()
	object.ShareTask(t, &api.Task{ServiceId: service.GetId(), ServiceName: spec.GetAnnotations().GetName(), Spec: spec.GetTask(), Endpoint: spec.GetEndpoint()})
}

// serviceOf returns the service of a task, or nil.
func serviceOf(in *tables, t *api.Task) *api.Service {
	service, _ := in.get(Ref{object.KindService, t.GetServiceId()}).(*api.Service)
	return service
}

// peers has, while a whole state is put together, the last task of each spec of each service: there, unlike in the log, are also all that
// were made of former ones.
type peers map[peer]*api.Task

type peer struct {
	service string
	spec    uint64 // its version
}

// share is the function share for an object of a whole state, in which services come before their tasks.
func (p peers) share(in *tables, o Object) {
	t, ok := o.(*api.Task)
	if !ok {
		return
	}
	shareService(in, t)
	like := peer{t.GetServiceId(), t.GetSpecVersion()}
	if other := p[like]; other != nil {
		object.ShareTask(t, other)
	}
	p[like] = t
}
