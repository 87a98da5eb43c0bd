package ca_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

// followed is a node that is told of rotations, and whose renewals a test answers.
type followed struct {
	id      *ca.Identity
	renewer *ca.Renewer
	answers chan ca.Credentials // of renewals
	full    atomic.Bool         // whether Save fails
}

func follow(t *testing.T, c ca.Credentials) *followed {
	t.Helper()
	f := &followed{id: ca.NewIdentity(c), answers: make(chan ca.Credentials)}
	f.renewer = ca.NewRenewer(ca.RenewerConfig{
		Identity: f.id,
		Renew: func(ctx context.Context) (ca.Credentials, error) {
			select {
			case answer := <-f.answers:
				return answer, nil
			case <-ctx.Done():
				return ca.Credentials{}, ctx.Err()
			}
		},
		Save: func(ca.Credentials) error {
			if f.full.Load() {
				return errors.New("disk full")
			}
			return nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.renewer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

// hear tells the node of a rotation, and returns what it says of itself once it has done what it can.
func (f *followed) hear(t *testing.T, version uint64, stored *api.RootCA) *api.NodeTLS {
	t.Helper()
	target, err := ca.TargetOf(stored)
	if err != nil {
		t.Fatal(err)
	}
	var wish *api.RenewalRequest
	if r := stored.GetRotation(); r != nil {
		wish = &api.RenewalRequest{RotationId: r.GetId(), IssuerKeyDigest: target.KeyDigest, AskedAt: timestamppb.Now()}
	}
	if err := f.renewer.Follow(version, ca.TrustedPEM(stored), wish); err != nil && !f.full.Load() {
		t.Error(err)
	}
	synctest.Wait()
	return f.id.TLS()
}

// A wish is met only when no certificate of an earlier one can come any more.
func TestFollow_AnswersAnAbortionAfterTheRenewalThatWasUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newRoot(t), newRoot(t)
		name := newName(api.Role_ROLE_WORKER)
		during := rotating(t, a, b)
		aborted := storedRoot(t, a)
		aborted.Rotation = &api.RootRotation{Id: "r2"}
		f := follow(t, signedBy(t, storedRoot(t, a), name, a))
		if said := f.hear(t, 1, during); said.GetMetRotationId() != "" {
			t.Errorf("a wish was met before its renewal: %v", said)
		}
		if said := f.hear(t, 2, aborted); said.GetMetRotationId() != "" {
			t.Errorf("an abortion was answered while a renewal for the other root is under way: %v", said)
		}
		f.answers <- signedBy(t, during, name, a)
		f.answers <- signedBy(t, aborted, name, a)
		synctest.Wait()
		back, err := ca.TargetOf(aborted)
		if err != nil {
			t.Fatal(err)
		}
		if said := f.id.TLS(); said.GetMetRotationId() != "r2" || !back.Issued(said) {
			t.Errorf("met %q, back at the root of before: %v", said.GetMetRotationId(), back.Issued(said))
		}
		changed := f.id.Watch()
		<-time.After(time.Second)
		f.hear(t, 2, aborted) // asked again: the managers missed it
		select {
		case <-changed:
		default:
			t.Error("a node that is asked again says nothing")
		}
	})
}

func TestFollow_TakesRootsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newRoot(t), newRoot(t)
		during := rotating(t, a, b)
		over := storedRoot(t, b)
		f := follow(t, signedBy(t, during, newName(api.Role_ROLE_WORKER), a))
		f.hear(t, 7, during)
		f.hear(t, 8, over)
		if said := f.hear(t, 7, during); len(said.GetTrustedRootDigests()) != 1 { // a manager that is behind
			t.Errorf("trusts %d roots after the rotation", len(said.GetTrustedRootDigests()))
		}
	})
}

func TestFollow_SavesRootsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newRoot(t), newRoot(t)
		f := follow(t, signedBy(t, storedRoot(t, a), newName(api.Role_ROLE_WORKER), a))
		during := rotating(t, a, b)
		during.Rotation.Id = ""
		f.full.Store(true)
		if err := f.renewer.Follow(1, ca.TrustedPEM(during), nil); err == nil {
			t.Error("roots that were not saved are no error")
		}
		<-time.After(time.Minute)
		if said := f.id.TLS(); len(said.GetTrustedRootDigests()) != 1 {
			t.Errorf("roots that are not saved are trusted: %v", said)
		}
		f.full.Store(false)
		_, changed := f.id.Roots()
		<-changed
		if err := f.renewer.Follow(2, catest.Credentials(t, b, f.id.Current().Name(), 0).Chain()[0].Raw, nil); !errors.Is(err, ca.ErrBadBundle) {
			t.Errorf("no roots: %v", err)
		}
	})
}
