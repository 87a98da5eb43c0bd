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
	service, _ := in.get(Ref{object.KindService, t.GetServiceId()}).(*api.Service)
	spec := service.GetSpec()
	object.ShareTask(t, &api.Task{ServiceId: service.GetId(), ServiceName: spec.GetAnnotations().GetName(), Spec: spec.GetTask(), Endpoint: spec.GetEndpoint()})
	if t.GetSpec() == spec.GetTask() && len(t.GetGrants()) == 0 {
		return
	}
	for other := range in.all(object.KindTask, ByService(t.GetServiceId())) {
		object.ShareTask(t, other.(*api.Task))
		return
	}
}
