package control

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// maxRevisions is how many specs of a service are kept, the present one among them: as many as a deployment's in Kubernetes.
const maxRevisions = 10

// updateRevised is updateWithImage for a change of a service's spec, which is kept. While a manager is too old to know what a
// revision is, none is: keep says so.
func (s *Server) updateRevised(ctx context.Context, requestID string, fn func(tx store.Tx, keep bool) error) error {
	err := s.updateWithImage(ctx, requestID, func(tx store.Tx) error { return fn(tx, true) })
	if errors.Is(err, store.ErrOutdated) {
		err = s.updateWithImage(ctx, requestID, func(tx store.Tx) error { return fn(tx, false) })
	}
	return err
}

// revisionsOf returns the specs of a service that are kept, oldest first.
func revisionsOf(tx store.ReadTx, serviceID string) ([]*api.ServiceRevision, error) {
	revisions, err := store.List[*api.ServiceRevision](tx, store.ByService(serviceID))
	return slices.SortedFunc(slices.Values(revisions), func(a, b *api.ServiceRevision) int { return cmp.Compare(a.GetNumber(), b.GetNumber()) }), err
}

// keepRevision keeps the spec of a service as it is after a change, and as it was before, if that isn't kept yet: the managers
// themselves keep none. restored is the revision that was gone back to, or 0.
func keepRevision(ctx context.Context, tx store.Tx, old, service *api.Service, restored uint64) error {
	kept, err := revisionsOf(tx, service.GetId())
	if err != nil {
		return err
	}
	add := func(r *api.ServiceRevision) error {
		r.Id, r.ServiceId, r.Number = object.NewID(), service.GetId(), 1
		if len(kept) > 0 {
			r.Number = kept[len(kept)-1].GetNumber() + 1
		}
		kept = append(kept, r)
		return tx.Create(r)
	}
	if old != nil && !isLast(kept, old.GetSpec()) {
		if err := add(&api.ServiceRevision{Spec: old.GetSpec(), SpecVersion: old.GetSpecVersion()}); err != nil {
			return err
		}
	}
	if !isLast(kept, service.GetSpec()) {
		err := add(&api.ServiceRevision{
			Spec: service.GetSpec(), SpecVersion: service.GetSpecVersion(), ChangedBy: authz.FromContext(ctx).Name(), Restored: restored,
		})
		if err != nil {
			return err
		}
	}
	for _, r := range kept[:max(len(kept)-maxRevisions, 0)] {
		if err := tx.Delete(object.KindServiceRevision, r.GetId()); err != nil {
			return err
		}
	}
	return nil
}

func isLast(kept []*api.ServiceRevision, spec *api.ServiceSpec) bool {
	return len(kept) > 0 && proto.Equal(kept[len(kept)-1].GetSpec(), spec)
}

// forgetRevisions removes what is kept of a service.
func forgetRevisions(tx store.Tx, serviceID string) error {
	kept, err := revisionsOf(tx, serviceID)
	if err != nil {
		return err
	}
	for _, r := range kept {
		if err := tx.Delete(object.KindServiceRevision, r.GetId()); err != nil {
			return err
		}
	}
	return nil
}

// ListServiceRevisions returns the specs that a service had last.
func (s *Server) ListServiceRevisions(ctx context.Context, request *api.ListServiceRevisionsRequest) (*api.ListServiceRevisionsResponse, error) {
	response := new(api.ListServiceRevisionsResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		service, err := resolve[*api.Service](tx, request.GetService())
		if err != nil {
			return err
		}
		kept, err := revisionsOf(tx, service.GetId())
		if err != nil {
			return err
		}
		if !isLast(kept, service.GetSpec()) {
			present := &api.ServiceRevision{
				ServiceId: service.GetId(), Number: 1, Spec: service.GetSpec(), SpecVersion: service.GetSpecVersion(), Meta: service.GetMeta(),
			}
			if len(kept) > 0 {
				present.Number = kept[len(kept)-1].GetNumber() + 1
			}
			kept = append(kept, present)
		}
		response.Revisions = kept
		return nil
	})
}

// formerSpec returns what a service is to go back to, and the version that it had: 0 for none whose tasks may stay.
func formerSpec(tx store.ReadTx, service *api.Service, revision uint64) (*api.ServiceSpec, uint64, error) {
	name := service.GetSpec().GetAnnotations().GetName()
	if revision == 0 {
		if service.GetPreviousSpec() == nil {
			return nil, 0, fault.New(fault.Precondition, "service %s does not have a previous spec: it was never changed, or it was rolled back already; "+
				"`skep service history %[1]s` lists what there is to go back to with --to", name)
		}
		return proto.CloneOf(service.GetPreviousSpec()), service.GetPreviousSpecVersion(), nil
	}
	kept, err := revisionsOf(tx, service.GetId())
	if err != nil {
		return nil, 0, err
	}
	for _, r := range kept {
		if r.GetNumber() != revision {
			continue
		}
		version := r.GetSpecVersion()
		if version != service.GetPreviousSpecVersion() {
			version = 0 // its tasks are gone, or a grant of theirs was changed since
		}
		return proto.CloneOf(r.GetSpec()), version, nil
	}
	return nil, 0, fault.New(fault.NotFound, "service %s has no revision %d: `skep service history %[1]s` lists those that are kept", name, revision)
}
