package authztest

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/manager/authz"
)

// users is an authz.Users in memory, always current.
type users struct {
	mu      sync.Mutex
	records map[string]authz.UserRecord // guarded by mu, by name
}

// User implements authz.Users.
func (u *users) User(name string) (authz.UserRecord, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r, ok := u.records[name]
	return r, ok
}

// CatchUp implements authz.Users.
func (u *users) CatchUp(context.Context) error { return nil }

func (u *users) set(name string, r authz.UserRecord) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.records[name] = r
}

const (
	viewer   = api.Caller_CALLER_VIEWER
	operator = api.Caller_CALLER_OPERATOR

	viewerRole   = api.UserRole_USER_ROLE_VIEWER
	operatorRole = api.UserRole_USER_ROLE_OPERATOR
	adminRole    = api.UserRole_USER_ROLE_ADMIN
)

// userCertificate is one of the swarm's CA that nobody recorded.
func (s *swarm) userCertificate(t *testing.T, name string, role api.UserRole, life time.Duration) tls.Certificate {
	t.Helper()
	return catest.UserCertificate(t, s.cluster.Root, ca.UserName{ClusterID: s.cluster.ID, User: name, Role: role}, life)
}

// user is a certificate of the swarm's CA with a record.
func (s *swarm) user(t *testing.T, name string, role api.UserRole) tls.Certificate {
	t.Helper()
	cert := s.userCertificate(t, name, role, 0)
	s.users.set(name, authz.UserRecord{Role: role, Fingerprint: hex.EncodeToString(ca.CertificateDigest(cert.Leaf))})
	return cert
}

// userIdentities are those with a certificate for a user, of the swarm's CA and of others.
func (s *swarm) userIdentities(t *testing.T) []identity {
	t.Helper()
	v, o, a := s.user(t, "victor", viewerRole), s.user(t, "olga", operatorRole), s.user(t, "ada", adminRole)
	gone := s.user(t, "gone", adminRole)
	record, _ := s.users.User("gone")
	record.Revoked = true
	s.users.set("gone", record)
	replaced := s.user(t, "again", adminRole)
	s.user(t, "again", adminRole)
	lowered := s.user(t, "lowered", adminRole)
	record, _ = s.users.User("lowered")
	record.Role = viewerRole
	s.users.set("lowered", record)
	s.users.set("external", authz.UserRecord{Role: adminRole})
	other := catest.NewRegistry(t)
	foreign, err := other.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sameName := catest.UserCertificate(t, foreign.Root, ca.UserName{ClusterID: s.cluster.ID, User: "ada", Role: adminRole}, 0)
	return []identity{
		{name: "viewer", column: true, creds: s.with(v), worth: viewer},
		{name: "operator", column: true, creds: s.with(o), worth: operator},
		{name: "admin", column: true, creds: s.with(a), worth: admin},
		{name: "revoked user", column: true, creds: s.with(gone), worth: known},
		{name: "other cluster's user", column: true, creds: s.with(sameName)},
		{name: "expired user", column: true, creds: s.with(s.expired(t, a))},
		{name: "viewer that claims to forward for an admin", creds: s.with(v), worth: viewer, origin: authz.Caller{Kind: admin}},
		{name: "user who was created anew, former certificate", creds: s.with(replaced), worth: known},
		{name: "user whose record says less than the certificate", creds: s.with(lowered), worth: viewer},
		{name: "user without a record", creds: s.with(s.userCertificate(t, "nobody", adminRole, 0)), worth: known},
		{name: "external user's name, the swarm's CA", creds: s.with(s.userCertificate(t, "external", adminRole, 0)), worth: known},
	}
}

// expired is a user's certificate whose time is over.
func (s *swarm) expired(t *testing.T, like tls.Certificate) tls.Certificate {
	t.Helper()
	c := template(like.Leaf)
	c.NotAfter = time.Now().Add(-time.Minute)
	return s.signedFor(t, c, like)
}

// externalIdentities are those that come by the door of another CA, which vouches for ext.
func (s *swarm) externalIdentities(t *testing.T, ext *ca.Root) []identity {
	t.Helper()
	external := func(name string, role api.UserRole) tls.Certificate {
		return catest.UserCertificate(t, ext, ca.UserName{ClusterID: s.cluster.ID, User: name, Role: role}, 0)
	}
	s.users.set("xv", authz.UserRecord{Role: viewerRole})
	s.users.set("xo", authz.UserRecord{Role: operatorRole})
	s.users.set("xa", authz.UserRecord{Role: adminRole})
	s.users.set("xr", authz.UserRecord{Role: adminRole, Revoked: true})
	m := s.member(t, api.Role_ROLE_MANAGER)
	node := catest.Credentials(t, ext, m.Name(), 0)
	return []identity{
		{name: "external viewer", creds: s.with(external("xv", adminRole)), worth: viewer},
		{name: "external operator", creds: s.with(external("xo", viewerRole)), worth: operator},
		{name: "external admin", creds: s.with(external("xa", viewerRole)), worth: admin},
		{name: "revoked external user", creds: s.with(external("xr", adminRole)), worth: known},
		{name: "external user without a record", creds: s.with(external("nobody", adminRole)), worth: known},
		{name: "external certificate with the name of a user of the swarm's CA", creds: s.with(external("ada", adminRole)), worth: known},
		{name: "external certificate of a manager's shape", creds: s.with(pair(node)), worth: known},
		{name: "user of the swarm's CA", creds: s.with(s.user(t, "swarms", adminRole))},
		{name: "manager", creds: s.with(pair(m))},
		{name: "TLS without certificate", creds: s.with(tls.Certificate{})},
	}
}

// forwardedIdentities are managers that forward for users, who count as the leader knows them.
func (s *swarm) forwardedIdentities(m credentials.TransportCredentials) []identity {
	claim := func(kind api.Caller, user string) authz.Caller {
		record, _ := s.users.User(user)
		return authz.Caller{Kind: kind, User: user, Fingerprint: record.Fingerprint}
	}
	return []identity{
		{name: "manager that forwards for an admin", creds: m, worth: manager, origin: authz.Caller{Kind: admin}, originWorth: admin},
		{name: "manager that forwards for a viewer", creds: m, worth: manager, origin: claim(viewer, "victor"), originWorth: viewer},
		{name: "manager that takes a viewer for an admin", creds: m, worth: manager, origin: claim(admin, "victor"), originWorth: viewer},
		{name: "manager that hasn't heard of a revocation", creds: m, worth: manager, origin: claim(admin, "gone"), originWorth: known},
		{name: "manager that forwards for an unknown user", creds: m, worth: manager, origin: claim(admin, "nobody"), originWorth: known},
	}
}
