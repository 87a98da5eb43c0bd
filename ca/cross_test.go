package ca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

// storedRoot is a root as the store has it.
func storedRoot(t testing.TB, root *ca.Root) *api.RootCA {
	t.Helper()
	key, err := root.RevealKey()
	if err != nil {
		t.Fatal(err)
	}
	return &api.RootCA{Certificate: root.CertificatePEM(), Key: key}
}

// rotating returns a root that is on its way to another, as the store has it.
func rotating(t testing.TB, from, to *ca.Root) *api.RootCA {
	t.Helper()
	if err := from.CheckNext(time.Now(), to); err != nil {
		t.Fatal(err)
	}
	cross, err := from.CrossSign(time.Now(), to)
	if err != nil {
		t.Fatal(err)
	}
	stored, next := storedRoot(t, from), storedRoot(t, to)
	stored.Rotation = &api.RootRotation{Id: "r1", Certificate: next.GetCertificate(), Key: next.GetKey(), CrossCertificate: cross}
	return stored
}

// signedBy makes credentials that the issuer of a stored root signs, with the roots given.
func signedBy(t testing.TB, stored *api.RootCA, name ca.Name, roots ...*ca.Root) ca.Credentials {
	t.Helper()
	issuer, err := ca.OpenIssuer(stored, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, csr := catest.KeyAndCSR(t)
	chain, err := issuer.Issue(time.Now(), csr, ca.Profile{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ca.ParseBundle(chain)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.NewCredentials(certificates(roots...), certs, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func certificates(roots ...*ca.Root) (certs []*x509.Certificate) {
	for _, r := range roots {
		certs = append(certs, r.Certificate())
	}
	return certs
}

// Everybody reaches everybody else, however far each of them is in a rotation from a to b, while both are trusted and just after.
func TestRotation_NodesReachEachOtherAtEachStep(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	during := rotating(t, a, b)
	cluster := catest.NewID()
	name := func(role api.Role) ca.Name {
		return ca.Name{ClusterID: cluster, NodeID: catest.NewID(), Role: role}
	}
	steps := []struct {
		what   string
		stored *api.RootCA
		roots  []*ca.Root
	}{
		{"knows nothing of it", storedRoot(t, a), []*ca.Root{a}},
		{"trusts both", storedRoot(t, a), []*ca.Root{a, b}},
		{"joined meanwhile", during, []*ca.Root{a}},
		{"is renewed", during, []*ca.Root{a, b}},
		{"has dropped the former root", during, []*ca.Root{b}},
	}
	for i, server := range steps {
		for j, client := range steps {
			if (i == 4 && j < 2) || (j == 4 && i < 2) {
				continue // a rotation ends only when nobody is there any more
			}
			s := ca.NewIdentity(signedBy(t, server.stored, name(api.Role_ROLE_MANAGER), server.roots...))
			c := ca.NewIdentity(signedBy(t, client.stored, name(api.Role_ROLE_WORKER), client.roots...))
			if _, serverErr, clientErr := shake(t, s.ServerTLS(), c.ClientTLS(ca.OUManager)); serverErr != nil || clientErr != nil {
				t.Errorf("a server that %s, a client that %s: %v", server.what, client.what, errors.Join(serverErr, clientErr))
			}
		}
	}
	former := ca.NewIdentity(signedBy(t, storedRoot(t, a), name(api.Role_ROLE_WORKER), a, b))
	manager := ca.NewIdentity(signedBy(t, during, name(api.Role_ROLE_MANAGER), b))
	if _, err, _ := shake(t, manager.ServerTLS(), former.ClientTLS(ca.OUManager)); err == nil {
		t.Error("a certificate by the former root is accepted after the rotation")
	}
}

func TestCredentials_SayWhoSignedThemAndWhomTheyTrust(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	before, during := storedRoot(t, a), rotating(t, a, b)
	target, err := ca.TargetOf(during)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ca.TargetOf(&api.RootCA{Certificate: a.CertificatePEM(), Rotation: &api.RootRotation{Id: "aborted"}})
	if err != nil {
		t.Fatal(err)
	}
	name := newName(api.Role_ROLE_WORKER)
	for what, c := range map[string]struct {
		credentials      ca.Credentials
		issued, trusting bool
	}{
		"old":      {signedBy(t, before, name, a), false, false},
		"trusting": {signedBy(t, before, name, a, b), false, true},
		"issued":   {signedBy(t, during, name, a), true, false},
		"done":     {signedBy(t, during, name, a, b), true, true},
	} {
		said := ca.NewIdentity(c.credentials).TLS()
		if target.Issued(said) != c.issued || target.Trusting(said) != c.trusting {
			t.Errorf("%s: issued %v, trusting %v", what, target.Issued(said), target.Trusting(said))
		}
		if back.Issued(said) == c.issued {
			t.Errorf("%s: by the former root: %v", what, back.Issued(said))
		}
	}
	if target.Issued(nil) || target.Trusting(nil) {
		t.Error("a node that said nothing is done")
	}
}

func TestCheckNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newRoot(t)
		old := newRoot(t)
		<-time.After(ca.RootLife - 10*24*time.Hour)
		fresh := newRoot(t)
		for what, c := range map[string]struct {
			from, to *ca.Root
			at       time.Time
			ok       bool
		}{
			"a fresh one":     {root, fresh, time.Now(), true},
			"itself":          {fresh, fresh, time.Now(), false},
			"one that ends":   {fresh, old, time.Now(), false},
			"one of tomorrow": {root, fresh, time.Now().Add(-24 * time.Hour), false},
		} {
			if err := c.from.CheckNext(c.at, c.to); (err == nil) != c.ok || err != nil && !errors.Is(err, ca.ErrBadRoot) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// A node takes in new roots and a new certificate at the same time, and loses neither.
func TestRenewer_TrustAndRenewalDoNotUndoEachOther(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	during := rotating(t, a, b)
	name := newName(api.Role_ROLE_WORKER)
	id := ca.NewIdentity(signedBy(t, storedRoot(t, a), name, a))
	asked, answer := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var saved ca.Credentials
	renewer := ca.NewRenewer(ca.RenewerConfig{
		Identity: id,
		Renew: func(context.Context) (ca.Credentials, error) {
			close(asked)
			<-answer
			return signedBy(t, during, name, a), nil
		},
		Save: func(c ca.Credentials) error {
			mu.Lock()
			defer mu.Unlock()
			saved = c
			return nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- renewer.Run(ctx) }()
	renewer.RenewNow()
	<-asked
	if err := renewer.Trust(certificates(a, b)); err != nil {
		t.Fatal(err)
	}
	renewed := id.Watch()
	close(answer)
	<-renewed
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	target, err := ca.TargetOf(during)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for what, c := range map[string]ca.Credentials{"used": id.Current(), "saved": saved} {
		if said := ca.NewIdentity(c).TLS(); !target.Issued(said) || !target.Trusting(said) {
			t.Errorf("%s: issued %v, trusting %v", what, target.Issued(said), target.Trusting(said))
		}
	}
	if err := renewer.Trust(certificates(newRoot(t))); !errors.Is(err, ca.ErrMismatch) {
		t.Errorf("roots that did not sign for the node: %v, want %v", err, ca.ErrMismatch)
	}
}

// A connection that was opened with a certificate by a root ends with the trust in that, while one by the new root stays.
func TestConnection_EndsWithTheTrustInItsRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := catest.NewRegistry(t)
		cluster, err := r.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		next := newRoot(t)
		during := rotating(t, cluster.Root, next)
		server := catest.Member(t, r, api.Role_ROLE_MANAGER)
		renewed := signedBy(t, during, server.Name(), cluster.Root, next)
		m := newManager(t, r, ca.NewIdentity(renewed))
		old := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_WORKER))
		fresh := ca.NewIdentity(signedBy(t, during, old.Current().Name(), cluster.Root, next))
		ask := func(id *ca.Identity) func() error {
			conn := m.client(t, id.ClientCredentials(ca.OUManager))
			return func() error {
				_, err := ca.RenewOver(t.Context(), conn, id)
				return err
			}
		}
		askOld, askFresh := ask(old), ask(fresh)
		if err := errors.Join(askOld(), askFresh()); err != nil {
			t.Fatal(err)
		}
		dialled := m.listener.dialled()
		only, err := renewed.Trusting(certificates(next))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.id.Replace(only); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := askFresh(); err != nil || m.listener.dialled() > dialled+1 {
			t.Errorf("a certificate by the new root: %v, %d connections, %d before", err, m.listener.dialled(), dialled)
		}
		if err := askOld(); status.Code(errors.Unwrap(err)) != codes.Unavailable {
			t.Errorf("a certificate by the former root: %v", err)
		}
	})
}
