package orchestrator

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/privilege"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// adopt makes a task one of the present spec.
func (w *writer) adopt(v View, id string) error {
	old, err := store.Get[*api.Task](w.tx, id)
	if err != nil {
		return err
	}
	t := proto.CloneOf(old)
	t.SpecVersion = v.Service.GetSpecVersion()
	return w.tx.Update(t)
}

// restore puts the previous spec of a service in force again. What was admitted once may not be possible any more: secrets and
// grants are removed, and grants give less.
func (w *writer) restore(v View, status *api.UpdateStatus) error {
	s := proto.CloneOf(v.Service)
	obstacle, err := w.obstacle(s.GetPreviousSpec().GetTask())
	if err != nil {
		return err
	}
	if obstacle != "" {
		s.UpdateStatus = proto.CloneOf(s.GetUpdateStatus())
		s.UpdateStatus.State = api.UpdateState_UPDATE_STATE_PAUSED
		s.UpdateStatus.Message = fmt.Sprintf("%s; it can't be: %s", strings.Replace(status.GetMessage(), "update rolled back", "update to be rolled back", 1), obstacle)
		return w.tx.Update(s)
	}
	goBack(s, status)
	return w.tx.Update(s)
}

// goBack puts the previous spec in the place of the present one.
func goBack(s *api.Service, status *api.UpdateStatus) {
	s.Spec, s.PreviousSpec = s.GetPreviousSpec(), nil
	s.SpecVersion++
	s.RestoredVersion, s.PreviousSpecVersion = s.GetPreviousSpecVersion(), 0
	s.UpdateStatus = proto.CloneOf(status)
}

// obstacle returns what keeps a task that could be had before from being had now, or "". What it needs stays until the
// transaction is committed.
func (w *writer) obstacle(task *api.TaskSpec) (string, error) {
	c := task.GetContainer()
	if gone, err := missingValue[*api.Secret](w, c.GetSecrets()); gone != "" || err != nil {
		return gone, err
	}
	if gone, err := missingValue[*api.Config](w, c.GetConfigs()); gone != "" || err != nil {
		return gone, err
	}
	var grants []*api.Grant
	for _, r := range c.GetGrants() {
		grant, err := store.Get[*api.Grant](w.tx, r.GetGrantId())
		switch {
		case errors.Is(err, store.ErrNotFound):
			return fmt.Sprintf("grant %s is gone", r.GetGrantName()), nil
		case err != nil:
			return "", err
		}
		if err := w.tx.Require(grant); err != nil {
			return "", err
		}
		grants = append(grants, grant)
	}
	if excesses := privilege.Excesses(task, grants); len(excesses) > 0 {
		return fmt.Sprintf("the previous spec asks for %s, which no grant of it gives any more", privilege.Names(excesses)), nil
	}
	return "", nil
}

// missingValue names the first secret or config that is not there any more, or returns "".
func missingValue[T valueObject](w *writer, references []*api.SecretReference) (string, error) {
	for _, r := range references {
		value, err := store.Get[T](w.tx, r.GetSecretId())
		switch {
		case errors.Is(err, store.ErrNotFound):
			var none T
			return fmt.Sprintf("%s %s is gone", object.KindOf(none), r.GetSecretName()), nil
		case err != nil:
			return "", err
		}
		if err := w.tx.Require(value); err != nil {
			return "", err
		}
		there, err := hasVersion(w, value, r.GetVersion())
		if err != nil || !there {
			return fmt.Sprintf("version %d of %s %s is gone", r.GetVersion(), object.KindOf(value), r.GetSecretName()), err
		}
	}
	return "", nil
}

// hasVersion reports whether a value has a version still; 0 is the newest. Where it has, that stays until the transaction is committed.
func hasVersion(w *writer, value valueObject, number uint64) (bool, error) {
	if number == 0 || number == max(1, value.GetVersion()) {
		return true, nil
	}
	former, err := store.List[*api.OldValue](w.tx, store.ByName(value.GetId()))
	for _, v := range former {
		if v.GetNumber() == number {
			return true, w.tx.Require(v)
		}
	}
	return false, err
}

// valueObject is a secret or config in the store.
type valueObject interface {
	store.Object
	GetVersion() uint64
}
