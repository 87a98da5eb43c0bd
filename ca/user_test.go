package ca_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

func TestIssueUser_HasTheProfileOfAUser(t *testing.T) {
	root := newRoot(t)
	name := ca.UserName{ClusterID: catest.NewID(), User: "alice.b-c_1", Role: api.UserRole_USER_ROLE_OPERATOR}
	cert := catest.UserCertificate(t, root, name, 0).Leaf
	if got := cert.Subject.String(); got != "CN=alice.b-c_1,OU=skep-operator,O="+name.ClusterID {
		t.Errorf("subject %s", got)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://"+name.ClusterID+"/user/alice.b-c_1" || len(cert.DNSNames) != 0 {
		t.Errorf("names %v %v", cert.URIs, cert.DNSNames)
	}
	if diff := cmp.Diff([]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, cert.ExtKeyUsage); diff != "" {
		t.Error(diff)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); life != ca.DefaultUserLife+ca.Backdate {
		t.Errorf("life %v", life)
	}
	if got, err := ca.UserOf(cert); err != nil || got != name {
		t.Errorf("%+v, %v", got, err)
	}
	other := catest.UserCertificate(t, root, name, 0).Leaf
	if bytes.Equal(ca.CertificateDigest(cert), ca.CertificateDigest(other)) {
		t.Error("two certificates with one fingerprint")
	}
}

func TestIssueUser_Refuses(t *testing.T) {
	root := newRoot(t)
	_, csr := catest.KeyAndCSR(t)
	good := ca.UserName{ClusterID: catest.NewID(), User: "alice", Role: api.UserRole_USER_ROLE_VIEWER}
	named := func(user string) ca.UserName { n := good; n.User = user; return n }
	for what, test := range map[string]struct {
		name ca.UserName
		csr  []byte
		life time.Duration
		want error
	}{
		"no name":          {named(""), csr, time.Hour, ca.ErrBadUser},
		"a path":           {named("a/b"), csr, time.Hour, ca.ErrBadUser},
		"the parent":       {named(".."), csr, time.Hour, ca.ErrBadUser},
		"another script":   {named("аlice"), csr, time.Hour, ca.ErrBadUser},
		"a long name":      {named(string(bytes.Repeat([]byte("a"), 64))), csr, time.Hour, ca.ErrBadUser},
		"no role":          {ca.UserName{ClusterID: good.ClusterID, User: "alice"}, csr, time.Hour, ca.ErrBadUser},
		"no swarm":         {ca.UserName{User: "alice", Role: good.Role}, csr, time.Hour, ca.ErrBadUser},
		"no request":       {good, nil, time.Hour, ca.ErrBadCSR},
		"too short a life": {good, csr, time.Second, ca.ErrUserLife},
		"too long a life":  {good, csr, 11 * 365 * 24 * time.Hour, ca.ErrUserLife},
	} {
		if _, err := root.IssueUser(time.Now(), test.csr, test.name, test.life); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Nobody's certificate is worth anything as another kind's.
func TestUsersAndNodes_AreNeverTakenForEachOther(t *testing.T) {
	root := newRoot(t)
	cluster := catest.NewID()
	node := ca.Name{ClusterID: cluster, NodeID: catest.NewID(), Role: api.Role_ROLE_MANAGER}
	user := ca.UserName{ClusterID: cluster, User: node.NodeID, Role: api.UserRole_USER_ROLE_ADMIN}
	if _, err := ca.NameOf(catest.UserCertificate(t, root, user, 0).Leaf); !errors.Is(err, ca.ErrBadName) {
		t.Errorf("a user is a node: %v", err)
	}
	if _, err := ca.UserOf(catest.Credentials(t, root, node, 0).Chain()[0]); !errors.Is(err, ca.ErrBadUser) {
		t.Errorf("a node is a user: %v", err)
	}
}

// userTLS is a client of people's listener that shows cert, if it is one.
func userTLS(roots []*x509.Certificate, cert tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: ca.OUManager, NextProtos: []string{"h2"}}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return c
}

func TestPeopleTLS_LetsUsersOfTheSwarmInAndNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, other := catest.NewRegistry(t), catest.NewRegistry(t)
		c, err := r.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o, err := other.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		manager := catest.Member(t, r, api.Role_ROLE_MANAGER)
		name := ca.UserName{ClusterID: c.ID, User: "alice", Role: api.UserRole_USER_ROLE_ADMIN}
		expired := catest.UserCertificate(t, c.Root, name, time.Hour)
		<-time.After(2 * time.Hour)
		foreign := name
		foreign.ClusterID = o.ID
		for what, test := range map[string]struct {
			cert tls.Certificate
			ok   bool
		}{
			"a user":                             {catest.UserCertificate(t, c.Root, name, 0), true},
			"nobody":                             {tls.Certificate{}, false},
			"an expired user":                    {expired, false},
			"another swarm's user":               {catest.UserCertificate(t, o.Root, foreign, 0), false},
			"another swarm's user with our name": {catest.UserCertificate(t, o.Root, name, 0), false},
			"our CA, another swarm's ID":         {catest.UserCertificate(t, c.Root, foreign, 0), false},
			"a manager":                          {tlsCertificate(manager), false},
			"a worker":                           {tlsCertificate(catest.Member(t, r, api.Role_ROLE_WORKER)), false},
		} {
			_, _, err := shake(t, ca.PeopleTLS(func() *ca.Identity { return ca.NewIdentity(manager) }), userTLS(manager.Roots(), test.cert))
			if (err == nil) != test.ok {
				t.Errorf("%s: %v", what, err)
			}
		}
		alice := userTLS(manager.Roots(), catest.UserCertificate(t, c.Root, name, 0))
		if _, _, err := shake(t, ca.PeopleTLS(func() *ca.Identity { return nil }), alice); err == nil {
			t.Error("a node in no swarm let somebody in")
		}
		if _, _, err := shake(t, ca.NewIdentity(manager).ServerTLS(), alice); err == nil {
			t.Error("the door for nodes let a user in")
		}
	})
}

func TestExternalPeopleTLS_TakesAnyNameOfThatCA(t *testing.T) {
	own, swarm := newRoot(t), newRoot(t)
	server := tlsCertificate(catest.Credentials(t, own, newName(api.Role_ROLE_MANAGER), 0))
	authorities := x509.NewCertPool()
	authorities.AddCert(own.Certificate())
	name := ca.UserName{ClusterID: catest.NewID(), User: "alice", Role: api.UserRole_USER_ROLE_VIEWER}
	roots := []*x509.Certificate{own.Certificate()}
	if _, _, err := shake(t, ca.ExternalPeopleTLS(server, authorities), userTLS(roots, catest.UserCertificate(t, own, name, 0))); err != nil {
		t.Error(err)
	}
	if _, _, err := shake(t, ca.ExternalPeopleTLS(server, authorities), userTLS(roots, catest.UserCertificate(t, swarm, name, 0))); err == nil {
		t.Error("a user of the swarm's CA came in by another CA's door")
	}
	if _, _, err := shake(t, ca.ExternalPeopleTLS(server, authorities), userTLS(roots, tls.Certificate{})); err == nil {
		t.Error("nobody came in")
	}
}

func TestAuthority_IssuesToUsers(t *testing.T) {
	r := catest.NewRegistry(t)
	c, err := r.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, csr := catest.KeyAndCSR(t)
	issued, err := ca.NewAuthority(r).IssueUser(t.Context(), time.Now(), "bob", api.UserRole_USER_ROLE_VIEWER, time.Hour, csr)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ca.UserOf(issued.Certificate)
	if want := (ca.UserName{ClusterID: c.ID, User: "bob", Role: api.UserRole_USER_ROLE_VIEWER}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	block, _ := pem.Decode(issued.Chain)
	if block == nil || !bytes.Equal(block.Bytes, issued.Certificate.Raw) || !bytes.Equal(issued.Roots, c.Root.CertificatePEM()) {
		t.Error("the chain or the roots are others")
	}
}
