package caserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// joinForAnHour returns a node whose certificate lives for an hour.
func (s *swarm) joinForAnHour(t *testing.T) *ca.Identity {
	t.Helper()
	err := s.store.Update(t.Context(), "", func(tx store.Tx) error {
		c, err := store.Get[*api.Cluster](tx, s.founding.Cluster.GetId())
		if err != nil {
			return err
		}
		c = proto.CloneOf(c)
		c.Spec.CertExpiry = durationpb.New(time.Hour)
		return tx.Update(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.join(t, s.founding.Cluster.GetJoinTokens().GetWorker())
	if err != nil {
		t.Fatal(err)
	}
	return ca.NewIdentity(c)
}

func (s *swarm) renewExpired(t *testing.T, id *ca.Identity) (ca.Credentials, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///m", grpc.WithContextDialer(s.dial), grpc.WithTransportCredentials(id.ExpiredCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing was left to send
	c, err := ca.RenewExpired(t.Context(), conn, id)
	return c, fault.FromStatus(err)
}

func TestRenewExpired_ProvesANodeByItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		id := s.joinForAnHour(t)
		<-time.After(119 * time.Minute)
		if _, err := s.renew(t, id); err == nil {
			t.Error("TLS accepts an expired certificate")
		}
		setRole(t, s.store, id.NodeID(), api.Role_ROLE_MANAGER)
		fresh, err := s.renewExpired(t, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Replace(fresh); err != nil || id.Role() != api.Role_ROLE_MANAGER {
			t.Errorf("role %v, %v", id.Role(), err)
		}
		if _, err := s.renew(t, id); err != nil {
			t.Errorf("with the new certificate: %v", err)
		}
		<-time.After(121 * time.Minute)
		if _, err := s.renewExpired(t, id); fault.KindOf(err) != fault.Precondition || !strings.Contains(err.Error(), "skep swarm leave --force") {
			t.Errorf("after the time of grace: %v: %v", fault.KindOf(err), err)
		}
	})
}

func TestRenewExpired_ARemovedNodeGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		id := s.joinForAnHour(t)
		remove(t, s.store, id.NodeID())
		<-time.After(90 * time.Minute)
		if _, err := s.renewExpired(t, id); fault.KindOf(err) != fault.PermissionDenied || !strings.Contains(err.Error(), "join again") {
			t.Errorf("%v: %v", fault.KindOf(err), err)
		}
	})
}

// expiredCall is what a node with an expired certificate sends, for tests that spoil it.
type expiredCall struct {
	*api.RenewExpiredCertificateRequest
	key *ecdsa.PrivateKey
}

func (c expiredCall) sign(t *testing.T, key *ecdsa.PrivateKey) {
	t.Helper()
	chain, err := ca.ParseBundle(c.GetCertificate())
	if err != nil {
		t.Fatal(err)
	}
	c.Signature, err = ecdsa.SignASN1(rand.Reader, key, ca.ExpiredProof(c.GetNonce(), chain[0].Raw, c.GetCsr()))
	if err != nil {
		t.Fatal(err)
	}
}

func TestRenewExpired_RefusesWhatProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, f := found(t)
		server, err := New(Config{Store: st, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		root, err := ca.OpenRoot(f.Cluster.GetRootCa(), nil)
		if err != nil {
			t.Fatal(err)
		}
		name := ca.Name{ClusterID: f.Cluster.GetId(), NodeID: catest.NewID(), Role: api.Role_ROLE_WORKER}
		storetest.Create(t, st, &api.Node{Id: name.NodeID, Role: name.Role})
		victim := catest.Credentials(t, root, name, time.Hour)
		elsewhere, err := ca.NewRoot()
		if err != nil {
			t.Fatal(err)
		}
		otherCA, otherCluster := catest.Credentials(t, elsewhere, name, time.Hour), name
		otherCluster.ClusterID = catest.NewID()
		stranger := catest.Credentials(t, root, otherCluster, time.Hour)
		thief, stolen := catest.KeyAndCSR(t)
		<-time.After(90 * time.Minute)

		from := func(address string) context.Context {
			return authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_ANYONE, Address: address})
		}
		call := func(c ca.Credentials) expiredCall {
			begun, err := server.BeginExpiredRenewal(from("192.0.2.1:1"), &api.BeginExpiredRenewalRequest{})
			if err != nil {
				t.Fatal(err)
			}
			<-time.After(failureRefill)
			_, csr := catest.KeyAndCSR(t)
			r := expiredCall{&api.RenewExpiredCertificateRequest{
				Csr: csr, Certificate: ca.EncodeBundle(c.Chain()), Nonce: begun.GetNonce(),
			}, c.RevealKey()}
			r.sign(t, r.key)
			return r
		}
		send := func(c expiredCall) error {
			_, err := server.RenewExpiredCertificate(from("192.0.2.1:1"), c.RenewExpiredCertificateRequest)
			return err
		}
		for what, spoil := range map[string]func() expiredCall{
			"a request that was exchanged": func() expiredCall { c := call(victim); c.Csr = stolen; return c },
			"another key's signature":      func() expiredCall { c := call(victim); c.sign(t, thief); return c },
			"no signature":                 func() expiredCall { c := call(victim); c.Signature = nil; return c },
			"a nonce of one's own":         func() expiredCall { c := call(victim); c.Nonce = make([]byte, 32); c.sign(t, c.key); return c },
			"a nonce that is too old":      func() expiredCall { c := call(victim); <-time.After(2 * time.Minute); return c },
			"a certificate of another CA":  func() expiredCall { return call(otherCA) },
			"another swarm's certificate":  func() expiredCall { return call(stranger) },
			"no certificate":               func() expiredCall { c := call(victim); c.Certificate = nil; return c },
		} {
			if err := send(spoil()); fault.KindOf(err) != fault.PermissionDenied {
				t.Errorf("%s: %v: %v", what, fault.KindOf(err), err)
			}
		}
		good := call(victim)
		if err := send(good); err != nil {
			t.Fatalf("a genuine one: %v", err)
		}
		if err := send(good); fault.KindOf(err) != fault.PermissionDenied {
			t.Errorf("the same again: %v", err)
		}
	})
}

func TestRenewExpired_AskingIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, _ := found(t)
		server, err := New(Config{Store: st, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(address string) error {
			ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_ANYONE, Address: address})
			_, err := server.BeginExpiredRenewal(ctx, &api.BeginExpiredRenewalRequest{})
			return err
		}
		kinds := map[fault.Kind]int{}
		for range 1000 {
			if err := ask("192.0.2.66:1000"); err != nil {
				kinds[fault.KindOf(err)]++
			}
		}
		if kinds[fault.Exhausted] != 1000-maxFailures {
			t.Errorf("answers %v", kinds)
		}
		if err := ask("192.0.2.67:1000"); err != nil {
			t.Errorf("from elsewhere: %v", err)
		}
	})
}
