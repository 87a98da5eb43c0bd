package control

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// CreateService stores a new service. Without a name it gets a generated one.
func (s *Server) CreateService(ctx context.Context, request *api.CreateServiceRequest) (*api.CreateServiceResponse, error) {
	id, err := requestID(ctx, "CreateService")
	if err != nil {
		return nil, err
	}
	if request.GetSpec() == nil {
		return nil, fault.New(fault.Invalid, "spec: the service's spec is missing")
	}
	var warnings []string
	err = s.updateRevised(ctx, id, func(tx store.Tx, keep bool) error {
		service, found, err := create(ctx, tx, id, request.GetSpec())
		warnings = found
		if err != nil || !keep {
			return err
		}
		return keepRevision(ctx, tx, nil, service, 0)
	})
	if err != nil {
		return nil, err
	}
	service, err := current[*api.Service](s, id)
	if err != nil {
		return nil, err
	}
	return &api.CreateServiceResponse{Service: service, Warnings: warnings}, nil
}

// create stores a new service with an id. The warnings are for the user.
func create(ctx context.Context, tx store.Tx, id string, wanted *api.ServiceSpec) (service *api.Service, warnings []string, err error) {
	spec := proto.CloneOf(wanted)
	name := &orNew(&spec.Annotations).Name
	if *name == "" {
		if *name, err = generateName(tx, id); err != nil {
			return nil, nil, err
		}
	}
	if warnings, err = admit(ctx, tx, spec, nil); err != nil {
		return nil, nil, err
	}
	service = &api.Service{Id: id, Spec: spec, SpecVersion: 1}
	err = tx.Create(service)
	if errors.Is(err, store.ErrNameConflict) {
		err = fault.New(fault.AlreadyExists, "name conflicts with an existing object: service %s already exists", *name)
	}
	return service, warnings, err
}

// GetService returns a service.
func (s *Server) GetService(ctx context.Context, request *api.GetServiceRequest) (*api.GetServiceResponse, error) {
	response := new(api.GetServiceResponse)
	return response, s.view(ctx, func(tx store.ReadTx) (err error) {
		response.Service, err = resolve[*api.Service](tx, request.GetService())
		return err
	})
}

// ListServices returns all services, and how many tasks of each run and should.
func (s *Server) ListServices(ctx context.Context, _ *api.ListServicesRequest) (*api.ListServicesResponse, error) {
	response := &api.ListServicesResponse{Counts: map[string]*api.ServiceCounts{}}
	return response, s.view(ctx, func(tx store.ReadTx) (err error) {
		if response.Services, err = store.List[*api.Service](tx); err != nil {
			return err
		}
		tasks, err := store.List[*api.Task](tx)
		if err != nil {
			return err
		}
		byService := map[string][]*api.Task{}
		for _, task := range tasks {
			byService[task.GetServiceId()] = append(byService[task.GetServiceId()], task)
		}
		for _, service := range response.GetServices() {
			if response.Counts[service.GetId()], err = countsOf(tx, service, byService[service.GetId()]); err != nil {
				return err
			}
		}
		return countRunning(tx, response.GetCounts(), tasks)
	})
}

// countRunning adds to counts the tasks that run, and are to run, on nodes that answer.
func countRunning(tx store.ReadTx, counts map[string]*api.ServiceCounts, tasks []*api.Task) error {
	nodes, err := store.List[*api.Node](tx)
	if err != nil {
		return err
	}
	answers := map[string]bool{}
	for _, node := range nodes {
		answers[node.GetId()] = node.GetStatus().GetState() != api.NodeState_NODE_STATE_DOWN
	}
	for _, task := range tasks {
		count := counts[task.GetServiceId()]
		if count != nil && answers[task.GetNodeId()] && task.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING &&
			task.GetDesiredState() == api.TaskState_TASK_STATE_RUNNING {
			count.Running++
			if !taskstate.Ready(task) {
				count.NotReady++
			}
		}
	}
	return nil
}

// UpdateService replaces the spec of a service. Its tasks are replaced only when the new spec makes others.
func (s *Server) UpdateService(ctx context.Context, request *api.UpdateServiceRequest) (*api.UpdateServiceResponse, error) {
	id, err := requestID(ctx, "UpdateService")
	if err != nil {
		return nil, err
	}
	if request.GetSpec() == nil {
		return nil, fault.New(fault.Invalid, "spec: the service's spec is missing")
	}
	key := request.GetServiceId()
	var warnings []string
	err = s.updateRevised(ctx, id, func(tx store.Tx, keep bool) error {
		old, err := resolve[*api.Service](tx, key)
		if err != nil {
			return err
		}
		service, found, err := change(ctx, tx, old, request.GetVersion(), request.GetSpec())
		warnings = found
		if err != nil || service == nil || !keep {
			return err
		}
		return keepRevision(ctx, tx, old, service, 0)
	})
	if err != nil {
		return nil, err
	}
	service, err := current[*api.Service](s, key)
	if err != nil {
		return nil, err
	}
	return &api.UpdateServiceResponse{Service: service, Warnings: warnings}, nil
}

// change stores what somebody made of a version of a service, and returns it, or nil if it is nothing else. The warnings are for the user.
func change(ctx context.Context, tx store.Tx, old *api.Service, version uint64, wanted *api.ServiceSpec) (*api.Service, []string, error) {
	if err := checkVersion(old, version); err != nil {
		return nil, nil, err
	}
	spec := proto.CloneOf(wanted)
	if orNew(&spec.Annotations).GetName() != old.GetSpec().GetAnnotations().GetName() {
		return nil, nil, fault.New(fault.Invalid, "annotations.name: renaming services is not supported")
	}
	warnings, err := admit(ctx, tx, spec, old.GetSpec())
	if err != nil {
		return nil, nil, err
	}
	if err := sameMode(old.GetSpec(), spec); err != nil {
		return nil, nil, err
	}
	service, err := replaceSpec(tx, old, spec)
	return service, warnings, err
}

// replaceSpec stores the new spec of a service, and returns that, or nil if the spec is no other one.
func replaceSpec(tx store.Tx, old *api.Service, spec *api.ServiceSpec) (*api.Service, error) {
	if proto.Equal(old.GetSpec(), spec) {
		return nil, nil
	}
	replace, err := needsNewTasks(tx, old, spec)
	if err != nil {
		return nil, err
	}
	service := proto.CloneOf(old)
	service.Spec = spec
	if underWay(old) && keepsGrants(old.GetPreviousSpec(), old.GetSpec()) {
		// What failed is nothing to go back to; but a number of replicas holds on the way back, too.
		service.PreviousSpec.Replicated = proto.CloneOf(spec.GetReplicated())
	} else {
		service.PreviousSpec, service.PreviousSpecVersion = old.GetSpec(), old.GetSpecVersion()
	}
	switch {
	case replace:
		previous := service.GetPreviousSpecVersion()
		replaceTasks(service)
		service.PreviousSpecVersion = previous
	case isOver(old.GetUpdateStatus()):
		service.UpdateStatus = nil
	}
	return service, tx.Update(service)
}

// keepsGrants reports whether a spec before the present one is there, and has no grant that was taken away since: who may change what
// is without it must not be able to have it back.
func keepsGrants(previous, present *api.ServiceSpec) bool {
	for _, g := range previous.GetTask().GetContainer().GetGrants() {
		if !slices.ContainsFunc(present.GetTask().GetContainer().GetGrants(), func(p *api.GrantReference) bool { return p.GetGrantId() == g.GetGrantId() }) {
			return false
		}
	}
	return previous != nil
}

// underWay reports whether an update of the service to its present spec began and is not over.
func underWay(service *api.Service) bool {
	state := service.GetUpdateStatus().GetState()
	return state == api.UpdateState_UPDATE_STATE_UPDATING || state == api.UpdateState_UPDATE_STATE_PAUSED
}

// isOver reports whether nothing goes on or waits in an update any more.
func isOver(status *api.UpdateStatus) bool {
	switch status.GetState() {
	case api.UpdateState_UPDATE_STATE_COMPLETED, api.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED:
		return true
	}
	return false
}

// checkVersion refuses a change that was made from another version than the present one.
func checkVersion(o store.Object, version uint64) error {
	if o.GetMeta().GetVersion() == version {
		return nil
	}
	return fault.New(fault.Conflict, "update out of sequence: %s %s has version %d, the change was made from %d",
		object.KindOf(o), o.GetId(), o.GetMeta().GetVersion(), version)
}

// RemoveService removes a service. Its tasks end by themselves.
func (s *Server) RemoveService(ctx context.Context, request *api.RemoveServiceRequest) (*api.RemoveServiceResponse, error) {
	id, err := requestID(ctx, "RemoveService")
	if err != nil {
		return nil, err
	}
	response := &api.RemoveServiceResponse{ServiceId: request.GetService()}
	return response, s.update(ctx, id, func(tx store.Tx) error {
		service, err := resolve[*api.Service](tx, request.GetService())
		if err != nil {
			return err
		}
		response.ServiceId = service.GetId()
		if err := forgetRevisions(tx, service.GetId()); err != nil {
			return err
		}
		return tx.Delete(object.KindService, service.GetId())
	})
}
