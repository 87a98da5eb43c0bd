package orchestrator

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// defaultHistoryLimit is for a store without a cluster object: five ended tasks per slot.
const defaultHistoryLimit = 5

// Apply puts the effects that a core wanted for v into tx, from the first on, until the transaction has its fair size. full
// says that some are left; the core will ask for them again.
func Apply(tx store.Tx, now time.Time, v View, effects []Effect) (full bool, err error) {
	w := writer{tx: tx, now: now}
	applied, err := w.applyAll(v, effects)
	return applied < len(effects), err
}

// errChanged is that a service is not the one that a core saw.
var errChanged = errors.New("the service changed")

// writer puts effects into one transaction.
type writer struct {
	tx  store.Tx
	now time.Time
}

// applyAll applies effects in order, until the transaction has all that it should, and returns how many.
func (w *writer) applyAll(v View, effects []Effect) (applied int, err error) {
	for i, e := range effects {
		if w.tx.Full() {
			return i, nil
		}
		if err := w.apply(v, e); err != nil {
			return i, err
		}
	}
	return len(effects), nil
}

// applyStanding applies an effect that stands to a later state than the one that v shows; what is done already, or has gone, is left out. It
// returns errChanged when the effect stands no more.
func (w *writer) applyStanding(v View, e Effect) error {
	if err := w.same(v); err != nil {
		return err
	}
	if e.Create != nil {
		if taken, err := store.List[*api.Task](w.tx, store.BySlot(v.ServiceID, e.Create.Slot)); err != nil || len(taken) > 0 {
			return err
		}
	}
	e.Desired = slices.DeleteFunc(slices.Clone(e.Desired), func(d Desire) bool {
		_, err := store.Get[*api.Task](w.tx, d.TaskID)
		return errors.Is(err, store.ErrNotFound)
	})
	return w.apply(v, e)
}

// same returns nil when the service is what v shows.
func (w *writer) same(v View) error {
	now, err := store.Get[*api.Service](w.tx, v.ServiceID)
	switch {
	case errors.Is(err, store.ErrNotFound) && v.Service == nil:
		return nil
	case errors.Is(err, store.ErrNotFound), err == nil && now.GetMeta().GetVersion() != v.Service.GetMeta().GetVersion():
		return errChanged
	default:
		return err
	}
}

func (w *writer) apply(v View, e Effect) error {
	for _, d := range e.Desired {
		if err := w.desire(d); err != nil {
			return err
		}
	}
	if e.Create != nil {
		if err := w.create(v, *e.Create); err != nil {
			return err
		}
	}
	if e.Orphan != "" {
		if err := w.orphan(e.Orphan); err != nil {
			return err
		}
	}
	if e.Delete != "" {
		if err := w.tx.Delete(object.KindTask, e.Delete); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if e.Adopt != "" {
		if err := w.adopt(v, e.Adopt); err != nil {
			return err
		}
	}
	switch {
	case e.Restore:
		return w.restore(v, e.Status)
	case e.Status != nil:
		return w.status(v.ServiceID, e.Status)
	}
	return nil
}

// create makes a task. It depends on the service being what the core saw, so that no task of an old spec appears after
// a new one was accepted, nor one of a removed service.
func (w *writer) create(v View, c Creation) error {
	if err := w.tx.Require(v.Service); err != nil {
		return err
	}
	grants, err := grantsOf(w.tx, v.Service)
	if err != nil {
		return err
	}
	t := newTask(w.now, v.Service, object.NewID(), c, grants)
	return w.tx.Create(t)
}

// newTask returns a task as c wants it, with the service's present spec and grants.
func newTask(now time.Time, s *api.Service, id string, c Creation, grants []*api.Grant) *api.Task {
	t := taskstate.New(s, c.Slot, id, c.Desired)
	t.Status.Timestamp = timestamppb.New(now)
	t.BoundNodeId, t.VolumeNodeId, t.RestartCount, t.Grants = c.BoundNodeID, c.VolumeNodeID, c.RestartCount, grants
	return t
}

// grantsOf returns the grants of a service as its tasks have them. They are there, as the service is: a grant that a service names can't
// be removed.
func grantsOf(tx store.ReadTx, s *api.Service) (grants []*api.Grant, err error) {
	for _, reference := range s.GetSpec().GetTask().GetContainer().GetGrants() {
		grant, err := store.Get[*api.Grant](tx, reference.GetGrantId())
		if err != nil {
			return nil, fmt.Errorf("grant %s of service %s: %w", reference.GetGrantName(), s.GetSpec().GetAnnotations().GetName(), err)
		}
		grants = append(grants, &api.Grant{Id: grant.GetId(), Spec: proto.CloneOf(grant.GetSpec())})
	}
	return grants, nil
}

func (w *writer) desire(d Desire) error {
	old, err := store.Get[*api.Task](w.tx, d.TaskID)
	if err != nil {
		return err
	}
	if old.GetDesiredState() >= d.State {
		return nil
	}
	t := proto.CloneOf(old)
	t.DesiredState = d.State
	return w.tx.Update(t)
}

func (w *writer) orphan(id string) error {
	old, err := store.Get[*api.Task](w.tx, id)
	if err != nil {
		return err
	}
	if taskstate.Ended(old) {
		return nil
	}
	t := proto.CloneOf(old)
	t.Status = &api.TaskStatus{
		Timestamp: timestamppb.New(w.now), State: api.TaskState_TASK_STATE_ORPHANED,
		Message: "orphaned", Err: "its node is gone, or was down for too long", Container: old.GetStatus().GetContainer(),
		RunningAt: old.GetStatus().GetRunningAt(), EndedAt: timestamppb.New(w.now),
	}
	return w.tx.Update(t)
}

func (w *writer) status(serviceID string, status *api.UpdateStatus) error {
	old, err := store.Get[*api.Service](w.tx, serviceID)
	if err != nil {
		return err
	}
	s := proto.CloneOf(old)
	s.UpdateStatus = proto.CloneOf(status)
	return w.tx.Update(s)
}
