package ca_test

import (
	"crypto/x509"
	"errors"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

func TestIdentity_TellsWhenItsRootsChange(t *testing.T) {
	old, fresh := newRoot(t), newRoot(t)
	name := newName(api.Role_ROLE_WORKER)
	id := ca.NewIdentity(catest.Credentials(t, old, name, 0))
	roots, changed := id.Roots()
	if len(roots) != 1 || !roots[0].Equal(old.Certificate()) {
		t.Fatalf("%d roots, or another one", len(roots))
	}
	if err := id.Replace(catest.Credentials(t, old, name, 0)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("a new certificate by the same root told of other roots")
	default:
	}
	both, err := id.Current().Trusting([]*x509.Certificate{old.Certificate(), fresh.Certificate()})
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Replace(both); err != nil {
		t.Fatal(err)
	}
	<-changed
	if roots, _ = id.Roots(); len(roots) != 2 || !roots[1].Equal(fresh.Certificate()) {
		t.Errorf("%d roots, or others", len(roots))
	}
	if _, err := both.Trusting([]*x509.Certificate{fresh.Certificate()}); !errors.Is(err, ca.ErrMismatch) {
		t.Errorf("a root that did not sign the certificate: %v, want %v", err, ca.ErrMismatch)
	}
}
