package caserver

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// decide is what `node approve` and `node deny` do in the store.
func decide(t *testing.T, s *store.Store, nodeID string, approve bool) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		n, err := store.Get[*api.Node](tx, nodeID)
		if err != nil {
			return err
		}
		if approve {
			n = proto.CloneOf(n)
			n.Approval.State = api.ApprovalState_APPROVAL_STATE_APPROVED
			return tx.Update(n)
		}
		g, err := store.Get[*api.JoinGrant](tx, n.GetApproval().GetGrantId())
		if err != nil {
			return err
		}
		if err := tx.Update(ca.DenyUse(g, nodeID)); err != nil {
			return err
		}
		return tx.Delete(object.KindNode, nodeID)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGrant_GivesANodeItsRoleNameAndLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		tok := grant(t, s.store, s.founding, &api.JoinGrantSpec{
			Role: api.Role_ROLE_WORKER, MaxUses: 1, NodeName: "n7", NodeLabels: map[string]string{"rack": "a"},
		})
		c, err := s.join(t, tok.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		n := storetest.Get[*api.Node](t, s.store, c.Name().NodeID)
		if a := n.GetSpec().GetAnnotations(); c.Name().Role != api.Role_ROLE_WORKER || a.GetName() != "n7" || a.GetLabels()["rack"] != "a" || n.GetApproval() != nil {
			t.Errorf("joined as %v, store says %v", c.Name(), n)
		}
		if _, err := s.join(t, tok.Reveal()); !errors.Is(err, ca.ErrRefused) || !strings.Contains(err.Error(), "used up") {
			t.Errorf("another key with the same token: %v", err)
		}
		if strings.Contains(s.log.String(), tok.Reveal()[60:]) {
			t.Error("a token was logged")
		}
	})
}

func TestGrant_EndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		tok := grant(t, s.store, s.founding, &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 2})
		if _, err := s.join(t, tok.Reveal()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		if _, err := s.join(t, tok.Reveal()); !errors.Is(err, ca.ErrRefused) || !strings.Contains(err.Error(), "has expired: make another one") {
			t.Errorf("an hour later: %v", err)
		}
	})
}

func TestGrant_WithApproval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, approve := range []bool{true, false} {
			s := newSwarm(t)
			tok := grant(t, s.store, s.founding, &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 1, RequireApproval: true})
			key, _ := catest.KeyAndCSR(t)
			fingerprint, err := ca.Fingerprint(&key.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			join := func() (ca.Credentials, error) {
				return ca.Join(t.Context(), ca.JoinConfig{Address: "m", Token: tok, Dial: s.dial, Key: key})
			}
			var pending *ca.PendingError
			for range 2 {
				if _, err := join(); !errors.As(err, &pending) {
					t.Fatalf("before a decision: %v", err)
				}
			}
			n := storetest.Get[*api.Node](t, s.store, pending.NodeID)
			if n.GetApproval().GetKeyFingerprint() != fingerprint {
				t.Errorf("the store says %v, the machine %s", n.GetApproval(), fingerprint)
			}
			if _, err := s.join(t, tok.Reveal()); !errors.Is(err, ca.ErrRefused) {
				t.Errorf("another machine while the first waits: %v", err)
			}
			decide(t, s.store, pending.NodeID, approve)
			<-time.After(24 * time.Hour) // people take their time
			c, err := join()
			if approve && (err != nil || c.Name().NodeID != pending.NodeID) {
				t.Errorf("approved: %v, %v", c.Name(), err)
			}
			if !approve && (!errors.Is(err, ca.ErrRefused) || !strings.Contains(err.Error(), "denied")) {
				t.Errorf("denied: %v", err)
			}
		}
	})
}

// A node that waits has no rights, not even with a certificate that it should not have.
func TestGrant_AWaitingNodeIsNobody(t *testing.T) {
	s, f := found(t)
	server, err := New(Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_, csr := catest.KeyAndCSR(t)
	tok := grant(t, s, f, &api.JoinGrantSpec{Role: api.Role_ROLE_MANAGER, MaxUses: 1, RequireApproval: true})
	answer, err := server.IssueCertificate(t.Context(), &api.IssueCertificateRequest{Csr: csr, Token: tok.Reveal(), CanWait: true})
	if err != nil || !answer.GetPending() || len(answer.GetCertificate()) > 0 {
		t.Fatalf("%v, %v", answer, err)
	}
	ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_MANAGER, NodeID: answer.GetNodeId()})
	if _, err := server.RenewCertificate(ctx, &api.RenewCertificateRequest{Csr: csr, NodeId: answer.GetNodeId()}); fault.KindOf(err) != fault.PermissionDenied {
		t.Errorf("renewal: %v", err)
	}
	if record, known := authz.NewNodes(s).Node(answer.GetNodeId()); known {
		t.Errorf("authorization knows it: %v", record)
	}
	decide(t, s, answer.GetNodeId(), true)
	if record, known := authz.NewNodes(s).Node(answer.GetNodeId()); !known || record.Role != api.Role_ROLE_MANAGER {
		t.Errorf("approved: %v, %v", record, known)
	}
}

func TestOnRefusal_IsToldWhoAndWhy(t *testing.T) {
	s, f := found(t)
	var told []Refusal
	server, err := New(Config{
		Store: s, Logger: slog.New(slog.DiscardHandler), OnRefusal: func(_ context.Context, r Refusal) { told = append(told, r) },
	})
	if err != nil {
		t.Fatal(err)
	}
	_, csr := catest.KeyAndCSR(t)
	tok := grant(t, s, f, &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 1, From: "198.51.100.0/24"})
	id := tok.SecretHash().GrantID()
	for _, text := range []string{tok.Reveal(), token.New(tok.Digest()).Reveal(), "canary"} {
		ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_ANYONE, Address: "192.0.2.1:99"})
		if _, err := server.IssueCertificate(ctx, &api.IssueCertificateRequest{Csr: csr, Token: text}); err == nil {
			t.Error("joined")
		}
	}
	want := []Refusal{
		{"192.0.2.1", id, false, ca.ErrGrantAddress}, {"192.0.2.1", "", true, token.ErrWrongSecret}, {"192.0.2.1", "", true, token.ErrMalformed},
	}
	if len(told) != len(want) {
		t.Fatalf("told %v", told)
	}
	for i, r := range told {
		if !errors.Is(r.Err, want[i].Err) || strings.Contains(r.Err.Error(), "canary") {
			t.Errorf("told %v", r.Err)
		}
		if r.Err = want[i].Err; r != want[i] {
			t.Errorf("told %v, want %v", r, want[i])
		}
	}
}
