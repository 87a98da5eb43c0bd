package control

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/privilege"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// UpdateGrant changes a grant. A service that has it must still have all that it asks for; its tasks are replaced when what they have is
// another thing by then, so that what was taken away is gone.
func (s *Server) UpdateGrant(ctx context.Context, request *api.UpdateGrantRequest) (*api.UpdateGrantResponse, error) {
	id, err := requestID(ctx, "UpdateGrant")
	if err != nil {
		return nil, err
	}
	if request.GetSpec() == nil {
		return nil, fault.New(fault.Invalid, "spec: the grant's spec is missing")
	}
	spec := proto.CloneOf(request.GetSpec())
	fillGrant(spec)
	if err := validateGrant(spec); err != nil {
		return nil, err
	}
	response := new(api.UpdateGrantResponse)
	err = s.update(ctx, id, func(tx store.Tx) error {
		old, err := resolve[*api.Grant](tx, request.GetGrantId())
		if err != nil {
			return err
		}
		if err := checkVersion(old, request.GetVersion()); err != nil {
			return err
		}
		if spec.GetAnnotations().GetName() != old.GetSpec().GetAnnotations().GetName() {
			return fault.New(fault.Invalid, "annotations.name: renaming grants is not supported")
		}
		grant := proto.CloneOf(old)
		grant.Spec = proto.CloneOf(spec)
		if err := tx.Update(grant); err != nil {
			return err
		}
		response.Services, err = regrant(tx, old, grant)
		return err
	})
	if err != nil {
		return nil, err
	}
	response.Grant, err = current[*api.Grant](s, request.GetGrantId())
	return response, err
}

// regrant holds the services that have a grant against what it is now, has their tasks replaced if need be, and names them then.
func regrant(tx store.Tx, old, grant *api.Grant) (renewed []string, err error) {
	// A service that begins to name it at this moment makes one of the two run again.
	tx.RequireKind(object.KindService)
	services, err := store.List[*api.Service](tx, store.ByReferencedGrant(grant.GetId()))
	if err != nil {
		return nil, err
	}
	renew := !privilege.SameGift(old, grant)
	for _, service := range services {
		if err := stillGranted(tx, service); err != nil {
			return nil, err
		}
		if !renew {
			continue
		}
		if tx.Full() {
			return nil, fault.New(fault.Precondition, "grant %s has too many services to change it for all at once: make another one, and move them one "+
				"by one (service update --grant-rm %[1]s --grant-add NAME)", grant.GetSpec().GetAnnotations().GetName())
		}
		changed := proto.CloneOf(service)
		replaceTasks(changed)
		if err := tx.Update(changed); err != nil {
			return nil, err
		}
		renewed = append(renewed, service.GetSpec().GetAnnotations().GetName())
	}
	slices.Sort(renewed)
	return renewed, nil
}

// replaceTasks has the tasks of a service replaced as its update policy says. None of those that there are counts as one of a former
// spec any more.
func replaceTasks(service *api.Service) {
	now := timestamppb.New(time.Now())
	service.SpecVersion++
	service.PreviousSpecVersion, service.RestoredVersion = 0, 0
	if taskstate.Job(service.GetSpec()) {
		return // it is not updated, but runs again
	}
	service.UpdateStatus = &api.UpdateStatus{
		State: api.UpdateState_UPDATE_STATE_UPDATING, StartedAt: now, CountsFrom: now, Message: "update in progress",
	}
}

// stillGranted refuses a change that would take from a service what it asks for by name, or ask for more of nodes than can be.
func stillGranted(tx store.ReadTx, service *api.Service) error {
	grants, err := grantsOf(tx, service)
	if err != nil {
		return err
	}
	name := service.GetSpec().GetAnnotations().GetName()
	if excesses := privilege.Excesses(service.GetSpec().GetTask(), grants); len(excesses) > 0 {
		return fault.New(fault.Precondition, "service %s asks for what its grants would not give it any more: %s; update the service first", name,
			privilege.Names(excesses))
	}
	if _, err := grantConstraints(service.GetSpec().GetTask().GetPlacement(), grants); err != nil {
		return fault.New(fault.Invalid, "service %s: %w", name, err)
	}
	return nil
}
