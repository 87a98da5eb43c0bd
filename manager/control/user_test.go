package control_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store/storetest"
)

// issuer is the CA of a swarm in memory.
type issuer struct{ authority *ca.Authority }

func newIssuer(t *testing.T) issuer {
	t.Helper()
	return issuer{ca.NewAuthority(catest.NewRegistry(t))}
}

func (i issuer) IssueUser(ctx context.Context, user string, role api.UserRole, life time.Duration, csr []byte) (ca.IssuedUser, error) {
	return i.authority.IssueUser(ctx, time.Now(), user, role, life, csr)
}

func wish(t *testing.T, name string, role api.UserRole) *api.CreateUserRequest {
	t.Helper()
	_, csr := catest.KeyAndCSR(t)
	return &api.CreateUserRequest{Spec: &api.UserSpec{Annotations: &api.Annotations{Name: name}, Role: role}, Csr: csr}
}

func leaf(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	if block == nil {
		t.Fatalf("no certificate in %q", chain)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCreateUser_GivesACertificateAndRemembersWhich(t *testing.T) {
	s := newSwarm(t)
	request := wish(t, "alice", api.UserRole_USER_ROLE_OPERATOR)
	request.Ttl = durationpb.New(time.Hour)
	answer, err := s.CreateUser(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	cert := leaf(t, answer.GetUser().GetCertificate())
	name, err := ca.UserOf(cert)
	if err != nil || name.User != "alice" || name.Role != api.UserRole_USER_ROLE_OPERATOR {
		t.Errorf("%+v, %v", name, err)
	}
	stored := storetest.Get[*api.User](t, s.store, answer.GetUser().GetId())
	if !bytes.Equal(stored.GetFingerprint(), ca.CertificateDigest(cert)) || !stored.GetExpiresAt().AsTime().Equal(cert.NotAfter) {
		t.Errorf("stored %v", stored)
	}
	if left := time.Until(cert.NotAfter); left > time.Hour || left < 59*time.Minute {
		t.Errorf("the certificate lives for %v", left)
	}
	if err := cert.CheckSignatureFrom(leaf(t, answer.GetRootCertificates())); err != nil {
		t.Error(err)
	}
	list, err := s.ListUsers(t.Context(), &api.ListUsersRequest{})
	if err != nil || len(list.GetUsers()) != 1 || list.GetUsers()[0].GetId() != stored.GetId() {
		t.Errorf("%v, %v", list, err)
	}
}

// The answer to a call that is repeated has the certificate of the first time, which is the one that counts (C2).
func TestCreateUser_IsOneUserWhenRepeated(t *testing.T) {
	s := newSwarm(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "skep-request-id", "one")
	request := wish(t, "alice", api.UserRole_USER_ROLE_VIEWER)
	first, err := s.CreateUser(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.CreateUser(ctx, request)
	if err != nil || !bytes.Equal(first.GetUser().GetCertificate(), again.GetUser().GetCertificate()) {
		t.Errorf("another certificate, %v", err)
	}
}

func TestRevokeUser_MakesRoomForTheSameName(t *testing.T) {
	s := newSwarm(t)
	first, err := s.CreateUser(t.Context(), wish(t, "alice", api.UserRole_USER_ROLE_ADMIN))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.CreateUser(t.Context(), wish(t, "alice", api.UserRole_USER_ROLE_VIEWER))
	if fault.KindOf(err) != fault.AlreadyExists || !strings.Contains(err.Error(), "skep user revoke alice") {
		t.Errorf("the same name: %v", err)
	}
	revoked, err := s.RevokeUser(t.Context(), &api.RevokeUserRequest{User: "alice"})
	if err != nil || revoked.GetUser().GetRevokedAt() == nil {
		t.Fatalf("%v, %v", revoked, err)
	}
	if record, known := authz.NewUsers(s.store).User("alice"); !known || !record.Revoked {
		t.Errorf("the interceptor sees %+v", record)
	}
	again, err := s.RevokeUser(t.Context(), &api.RevokeUserRequest{User: "alice"})
	if err != nil || !again.GetUser().GetRevokedAt().AsTime().Equal(revoked.GetUser().GetRevokedAt().AsTime()) {
		t.Errorf("revoked again: %v, %v", again, err)
	}
	anew, err := s.CreateUser(t.Context(), wish(t, "alice", api.UserRole_USER_ROLE_VIEWER))
	if err != nil {
		t.Fatal(err)
	}
	if anew.GetUser().GetId() != first.GetUser().GetId() || anew.GetUser().GetRevokedAt() != nil ||
		bytes.Equal(anew.GetUser().GetFingerprint(), first.GetUser().GetFingerprint()) {
		t.Errorf("anew: %v", anew.GetUser())
	}
	if _, err := s.RevokeUser(t.Context(), &api.RevokeUserRequest{User: "nobody"}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("nobody: %v", err)
	}
}

func TestCreateUser_ExternalGetsNothingButARecord(t *testing.T) {
	s := newSwarm(t)
	request := &api.CreateUserRequest{Spec: &api.UserSpec{
		Annotations: &api.Annotations{Name: "carol"}, Role: api.UserRole_USER_ROLE_VIEWER, External: true,
	}}
	answer, err := s.CreateUser(t.Context(), request)
	if err != nil || answer.GetRootCertificates() != nil || answer.GetUser().GetCertificate() != nil || answer.GetUser().GetExpiresAt() != nil {
		t.Errorf("%v, %v", answer, err)
	}
	if _, err := s.CreateUser(t.Context(), request); fault.KindOf(err) != fault.AlreadyExists {
		t.Errorf("twice: %v", err)
	}
}

func TestCreateUser_RefusesWithAllReasons(t *testing.T) {
	s := newSwarm(t)
	for what, test := range map[string]struct {
		spoil func(*api.CreateUserRequest)
		want  string
	}{
		"a bad name":                         {func(r *api.CreateUserRequest) { r.Spec.Annotations.Name = "a b" }, `annotations.name: invalid name "a b"`},
		"no name":                            {func(r *api.CreateUserRequest) { r.Spec.Annotations = nil }, "annotations.name"},
		"no role":                            {func(r *api.CreateUserRequest) { r.Spec.Role = 0 }, "role: must be admin, operator or viewer"},
		"a role of tomorrow":                 {func(r *api.CreateUserRequest) { r.Spec.Role = 99 }, "role: must be admin, operator or viewer"},
		"a blink":                            {func(r *api.CreateUserRequest) { r.Ttl = durationpb.New(time.Second) }, "ttl: must be 1m to 87600h, got 1s"},
		"negative":                           {func(r *api.CreateUserRequest) { r.Ttl = durationpb.New(-time.Hour) }, "ttl: cannot be negative"},
		"no request":                         {func(r *api.CreateUserRequest) { r.Csr = nil }, "certificate request refused"},
		"a request, though another CA signs": {func(r *api.CreateUserRequest) { r.Spec.External = true }, "external:"},
	} {
		request := wish(t, "alice", api.UserRole_USER_ROLE_VIEWER)
		test.spoil(request)
		if _, err := s.CreateUser(t.Context(), request); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// An operator may drain and label a node, and make no manager of it.
func TestUpdateNode_LeavesRolesToAdmins(t *testing.T) {
	s := newSwarm(t)
	update := func(kind api.Caller, change func(*api.NodeSpec)) error {
		node := storetest.Get[*api.Node](t, s.store, "worker1")
		spec := &api.NodeSpec{DesiredRole: node.GetSpec().GetDesiredRole(), Availability: api.Availability_AVAILABILITY_DRAIN}
		change(spec)
		ctx := authz.NewContext(t.Context(), authz.Caller{Kind: kind, User: "olga"})
		_, err := s.server.UpdateNode(ctx, &api.UpdateNodeRequest{NodeId: "worker1", Version: node.GetMeta().GetVersion(), Spec: spec})
		return err
	}
	promote := func(spec *api.NodeSpec) { spec.DesiredRole = api.Role_ROLE_MANAGER }
	if err := update(api.Caller_CALLER_OPERATOR, func(*api.NodeSpec) {}); err != nil {
		t.Errorf("an operator drains: %v", err)
	}
	if err := update(api.Caller_CALLER_OPERATOR, promote); fault.KindOf(err) != fault.PermissionDenied || !strings.Contains(err.Error(), "user olga has the role operator") {
		t.Errorf("an operator promotes: %v", err)
	}
	if err := update(api.Caller_CALLER_ADMIN, promote); err != nil {
		t.Errorf("an admin promotes: %v", err)
	}
}
