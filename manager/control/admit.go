package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image/reference"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/constraint"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// imagePatience bounds how long a service waits for the news of its image: ten times what the news takes.
const imagePatience = 2 * time.Second

// admit turns a spec as it came in into the one that is stored (C3, C4), or says why it can't be. old is the service's present
// spec, nil for a new one. The spec must be the caller's own. The warnings are for the user.
func admit(ctx context.Context, tx store.Tx, spec, old *api.ServiceSpec) (warnings []string, err error) {
	fillService(spec)
	if err := validateService(spec); err != nil {
		return nil, err
	}
	if err := resolveValues(tx, spec.GetTask().GetContainer(), old.GetTask().GetContainer()); err != nil {
		return nil, err
	}
	grants, err := resolveGrants(tx, spec.GetTask().GetContainer().GetGrants())
	if err != nil {
		return nil, err
	}
	pinned, err := pinImage(tx, spec.GetTask().GetContainer().GetImage(), old.GetTask().GetContainer().GetImage())
	if err != nil {
		return nil, err
	}
	spec.Task.Container.Image = pinned
	if err := pinMounts(tx, spec.GetTask().GetContainer().GetMounts(), old.GetTask().GetContainer().GetMounts()); err != nil {
		return nil, err
	}
	if err := admitPrivileges(ctx, spec.GetTask(), old.GetTask(), grants); err != nil {
		return nil, err
	}
	constraints, err := grantConstraints(spec.GetTask().GetPlacement(), grants)
	if err != nil {
		return nil, err
	}
	return placementWarnings(tx, constraints)
}

// missingImageError is returned when no ready node has an image.
type missingImageError struct{ image string }

// Error says what to do.
func (e *missingImageError) Error() string {
	return fmt.Sprintf("image %s is on no node: load it with `skep image load` on any node", e.image)
}

// updateWithImage is update, but while fn misses an image it waits a little: a node tells the managers of an image that it has
// just loaded, or of all of them when it has just joined, a moment later.
func (s *Server) updateWithImage(ctx context.Context, requestID string, fn func(store.Tx) error) error {
	patience, cancel := context.WithTimeout(ctx, imagePatience)
	defer cancel()
	for {
		watch, err := s.Store.Watch(patience, 0, object.KindNode)
		if err != nil {
			return storeFault(err)
		}
		err = s.update(ctx, requestID, fn)
		if !errors.As(err, new(*missingImageError)) {
			return err
		}
		if _, waitErr := watch.Next(patience); waitErr != nil && !errors.Is(waitErr, store.ErrResync) {
			return err
		}
	}
}

// pinImage returns the reference with the digest of the image that it means now: the newest one of that name on a node that
// is ready, else the one with that id. The present reference of a service stays as it is, wherever the image may be.
func pinImage(tx store.ReadTx, image, present string) (string, error) {
	if image == present && isDigest(present) {
		return present, nil
	}
	id := imageID(image)
	ref, err := reference.Parse(image)
	if err != nil {
		if id != "" {
			return pinID(tx, id)
		}
		return "", fault.Wrap(fault.Invalid, err)
	}
	if ref.String() == present && ref.Digest() != "" {
		return present, nil
	}
	newest, err := newestImage(tx, ref)
	switch {
	case err != nil:
		return "", err
	case newest == nil && id != "":
		return pinID(tx, id)
	case newest == nil:
		return "", fault.Wrap(fault.NotFound, &missingImageError{ref.Familiar()})
	case ref.Digest() != "":
		return ref.String(), nil
	}
	pinned, err := reference.Parse(ref.String() + "@" + newest.GetDigest())
	if err != nil {
		return "", fmt.Errorf("a node reports image %s with a digest that is none: %w", ref, err)
	}
	return pinned.String(), nil
}

// pinMounts pins the images that are mounted, as the service's own; present are the service's present mounts.
func pinMounts(tx store.ReadTx, mounts, present []*api.Mount) error {
	for _, m := range mounts {
		if m.GetType() != api.MountType_MOUNT_TYPE_IMAGE {
			continue
		}
		before := ""
		for _, p := range present {
			if p.GetType() == m.GetType() && p.GetTarget() == m.GetTarget() {
				before = p.GetSource()
			}
		}
		pinned, err := pinImage(tx, m.GetSource(), before)
		if err != nil {
			return fmt.Errorf("mount at %s: %w", clip(m.GetTarget()), err)
		}
		m.Source = pinned
	}
	return nil
}

// newestImage returns the image that was loaded last among those that ref means and a ready node has, or nil.
func newestImage(tx store.ReadTx, ref reference.Reference) (*api.ImageSummary, error) {
	images, err := readyImages(tx)
	if err != nil {
		return nil, err
	}
	var newest *api.ImageSummary
	for _, image := range images {
		if means(ref, image) && (newest == nil || newer(image, newest)) {
			newest = image
		}
	}
	return newest, nil
}

// newer orders images by the time they were loaded; the digest decides between equals, so that the answer never depends on
// the order of nodes.
func newer(a, b *api.ImageSummary) bool {
	at, bt := a.GetLoadedAt().AsTime(), b.GetLoadedAt().AsTime()
	if at.Equal(bt) {
		return a.GetDigest() > b.GetDigest()
	}
	return at.After(bt)
}

func means(ref reference.Reference, image *api.ImageSummary) bool {
	if ref.Digest() != "" {
		return image.GetDigest() == ref.Digest().String()
	}
	for _, name := range image.GetReferences() {
		if name == ref.String() {
			return true
		}
	}
	return false
}

// placementWarnings says when no node would take the service's tasks now.
func placementWarnings(tx store.ReadTx, constraints []string) ([]string, error) {
	if len(constraints) == 0 {
		return nil, nil
	}
	set, err := constraint.Parse(constraints)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	nodes, err := store.List[*api.Node](tx)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if !waits(node) && set.Match(node) {
			return nil, nil
		}
	}
	return []string{fmt.Sprintf("no node satisfies the constraints (%s): tasks stay pending until one does; see `skep node inspect` "+
		"for the labels of a node, and set one with `skep node update --label-add`", strings.Join(constraints, ", "))}, nil
}

// placementHolds reports whether all tasks of a service that are to run may stay where they are under a new placement.
func placementHolds(tx store.ReadTx, serviceID string, placement *api.Placement) (bool, error) {
	set, err := constraint.Parse(placement.GetConstraints())
	if err != nil {
		return false, fault.Wrap(fault.Invalid, err)
	}
	tasks, err := store.List[*api.Task](tx, store.ByService(serviceID))
	if err != nil {
		return false, err
	}
	perNode := map[string]uint64{}
	for _, task := range tasks {
		if task.GetDesiredState() > api.TaskState_TASK_STATE_RUNNING {
			continue
		}
		if task.GetNodeId() == "" {
			return false, nil // it waits by the old rules, which nothing may satisfy
		}
		node, err := store.Get[*api.Node](tx, task.GetNodeId())
		if err != nil || !set.Match(node) {
			return false, nil
		}
		perNode[node.GetId()]++
		if most := placement.GetMaxReplicas(); most > 0 && perNode[node.GetId()] > most {
			return false, nil
		}
	}
	return true, nil
}

// needsNewTasks reports whether the tasks of a service must be replaced when its spec becomes the new one. When they may stay
// because of where they are, it makes the transaction depend on no task having moved.
func needsNewTasks(tx store.Tx, service *api.Service, spec *api.ServiceSpec) (bool, error) {
	if !sameTemplate(service.GetSpec(), spec) {
		return true, nil
	}
	if proto.Equal(service.GetSpec().GetTask().GetPlacement(), spec.GetTask().GetPlacement()) {
		return false, nil
	}
	tx.RequireKind(object.KindTask)
	placement := spec.GetTask().GetPlacement()
	if taskstate.EveryNode(spec) {
		placement = nil // a node that fits no more loses its task, and no other one is replaced
	}
	holds, err := placementHolds(tx, service.GetId(), placement)
	return !holds, err
}
