package control

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/constraint"
	"github.com/skep-io/skep/manager/privilege"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// Limits of grants. A task carries its grants: they keep it far below what the store takes.
const (
	maxDescription   = 1024
	maxServiceGrants = 16
)

// fillGrant spells out the defaults of a spec that nobody else can see yet (C3).
func fillGrant(spec *api.GrantSpec) {
	normalizeCapabilities(spec.GetCapabilities())
	fillGrantNode(spec)
}

// validateGrant reports all problems of a filled spec.
func validateGrant(spec *api.GrantSpec) error {
	p := new(problems)
	p.knownFields(spec)
	name := spec.GetAnnotations().GetName()
	if len(name) > maxSecretName || !secretNamePattern.MatchString(name) {
		p.add("annotations.name", "invalid name, only %d [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
			maxSecretName)
	}
	p.labels("annotations.labels", spec.GetAnnotations().GetLabels())
	if len(spec.GetDescription()) > maxDescription {
		p.add("description", "%d bytes, at most %d are allowed", len(spec.GetDescription()), maxDescription)
	}
	if len(spec.GetCapabilities())+len(spec.GetDevices())+len(spec.GetMounts())+len(spec.GetSecurityOptions())+len(spec.GetCdiDevices()) == 0 {
		p.add("spec", "grants nothing: name a capability, a device, a file or directory of the host, or a security option")
	}
	p.grantOptions(spec.GetSecurityOptions())
	p.capabilities("capabilities", spec.GetCapabilities())
	p.grantDevices(spec.GetDevices())
	p.cdiDevices(spec.GetCdiDevices(), spec.GetIgnoreCdiHooks())
	p.grantMounts(spec.GetMounts())
	if _, err := constraint.Parse(constraint.OfGrants([]*api.Grant{{Spec: spec}})); err != nil {
		p.add("node_labels", "%v", err)
	}
	return p.err()
}

// CreateGrant stores a new grant.
func (s *Server) CreateGrant(ctx context.Context, request *api.CreateGrantRequest) (*api.CreateGrantResponse, error) {
	id, err := requestID(ctx, "CreateGrant")
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
	err = s.update(ctx, id, func(tx store.Tx) error {
		err := tx.Create(&api.Grant{Id: id, Spec: proto.CloneOf(spec)})
		if errors.Is(err, store.ErrNameConflict) {
			return fault.New(fault.AlreadyExists, "grant %s already exists: change it by `skep grant update`, or make one with another name",
				spec.GetAnnotations().GetName())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	grant, err := current[*api.Grant](s, id)
	return &api.CreateGrantResponse{Grant: grant}, err
}

// GetGrant returns a grant.
func (s *Server) GetGrant(ctx context.Context, request *api.GetGrantRequest) (*api.GetGrantResponse, error) {
	response := new(api.GetGrantResponse)
	return response, s.view(ctx, func(tx store.ReadTx) (err error) {
		response.Grant, err = resolve[*api.Grant](tx, request.GetGrant())
		return err
	})
}

// ListGrants returns all grants.
func (s *Server) ListGrants(ctx context.Context, _ *api.ListGrantsRequest) (*api.ListGrantsResponse, error) {
	response := new(api.ListGrantsResponse)
	return response, s.view(ctx, func(tx store.ReadTx) (err error) {
		response.Grants, err = store.List[*api.Grant](tx)
		return err
	})
}

// RemoveGrant removes a grant that no service names, and that no task has which may run.
func (s *Server) RemoveGrant(ctx context.Context, request *api.RemoveGrantRequest) (*api.RemoveGrantResponse, error) {
	id, err := requestID(ctx, "RemoveGrant")
	if err != nil {
		return nil, err
	}
	response := &api.RemoveGrantResponse{GrantId: request.GetGrant()}
	return response, s.update(ctx, id, func(tx store.Tx) error {
		grant, err := resolve[*api.Grant](tx, request.GetGrant())
		if err != nil {
			return err
		}
		if err := grantUnused(tx, grant); err != nil {
			return err
		}
		response.GrantId = grant.GetId()
		// As with secrets: a service that starts to name it at this moment makes one of the two run again. Tasks come from services.
		tx.RequireKind(object.KindService)
		return tx.Delete(object.KindGrant, grant.GetId())
	})
}

// grantUnused returns an error that says who has a grant.
func grantUnused(tx store.ReadTx, grant *api.Grant) error {
	users, err := store.List[*api.Service](tx, store.ByReferencedGrant(grant.GetId()))
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return inUse("grant", grant.GetSpec().GetAnnotations().GetName(), users)
	}
	tasks, err := store.List[*api.Task](tx, store.ByReferencedGrant(grant.GetId()))
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(tasks, func(t *api.Task) bool { return !taskstate.Ended(t) }); i >= 0 {
		return fault.New(fault.Precondition, "grant '%s' is in use: task %s.%d has it and has not ended yet; try again in a moment",
			grant.GetSpec().GetAnnotations().GetName(), tasks[i].GetServiceName(), tasks[i].GetSlot())
	}
	return nil
}

// resolveGrants completes references with the ids and names of the grants that they mean, and returns those. The transaction depends
// on them, so that none is removed at the same moment.
func resolveGrants(tx store.Tx, references []*api.GrantReference) (grants []*api.Grant, err error) {
	if len(references) > maxServiceGrants {
		return nil, fault.New(fault.Invalid, "task.container.grants: %d grants are too many: at most %d are allowed", len(references), maxServiceGrants)
	}
	seen := map[string]bool{}
	for _, reference := range references {
		key := reference.GetGrantId()
		if key == "" {
			key = reference.GetGrantName()
		}
		grant, err := resolve[*api.Grant](tx, key)
		switch {
		case fault.KindOf(err) == fault.NotFound:
			return nil, fault.New(fault.Invalid, "grant not found: %s: see `skep grant ls`", clip(key))
		case err != nil:
			return nil, err
		case seen[grant.GetId()]:
			return nil, fault.New(fault.Invalid, "task.container.grants: %s is there twice", grant.GetSpec().GetAnnotations().GetName())
		}
		if err := tx.Require(grant); err != nil {
			return nil, err
		}
		seen[grant.GetId()] = true
		reference.GrantId, reference.GrantName = grant.GetId(), grant.GetSpec().GetAnnotations().GetName()
		grants = append(grants, grant)
	}
	return grants, nil
}

// grantsOf returns the grants of a stored service. They are there, as it is.
func grantsOf(tx store.ReadTx, service *api.Service) (grants []*api.Grant, err error) {
	for _, reference := range service.GetSpec().GetTask().GetContainer().GetGrants() {
		grant, err := store.Get[*api.Grant](tx, reference.GetGrantId())
		if err != nil {
			return nil, err
		}
		grants = append(grants, grant)
	}
	return grants, nil
}

// admitPrivileges refuses a container that asks for more than the default and its grants give, and one with a grant that the caller may
// not hand out. A container that stays as it is passes: scaling and moving a service takes no privilege.
func admitPrivileges(ctx context.Context, task, old *api.TaskSpec, grants []*api.Grant) error {
	if old.GetContainer() != nil && proto.Equal(task.GetContainer(), old.GetContainer()) && proto.Equal(task.GetLogDriver(), old.GetLogDriver()) {
		return nil
	}
	if err := mayUse(authz.FromContext(ctx).Kind, grants); err != nil {
		return err
	}
	if excesses := privilege.Excesses(task, grants); len(excesses) > 0 {
		return fault.New(fault.Precondition, "task: %s", privilege.Explain(excesses))
	}
	return nil
}

// mayUse refuses grants that are not for a kind of caller.
func mayUse(caller api.Caller, grants []*api.Grant) error {
	if name := privilege.Closed(caller, grants); name != "" {
		return fault.New(fault.PermissionDenied, "grant %s is for administrators: one of them has to make this change, or to grant the same with "+
			"`skep grant create --operators`", name)
	}
	return nil
}

// grantConstraints checks that the labels which a service's nodes must have by its placement and its grants are no more than is
// compared.
func grantConstraints(placement *api.Placement, grants []*api.Grant) ([]string, error) {
	all := slices.Concat(placement.GetConstraints(), constraint.OfGrants(grants))
	if _, err := constraint.Parse(all); err != nil {
		return nil, fault.New(fault.Invalid, "task.placement.constraints, with those of its grants: %v", err)
	}
	return all, nil
}
