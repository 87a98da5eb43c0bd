package authztest

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/manager/authz"
)

// identity is one kind of caller, and what it is worth.
type identity struct {
	name string
	// column is set for those that the table shows.
	column bool
	creds  credentials.TransportCredentials
	// worth is as what the caller may call, or nobody if the connection itself must be refused.
	worth api.Caller
	// ahead is set for a manager's certificate that the store knows nothing of: the methods by which managers catch up take it.
	ahead bool
	// origin is put into the metadata: a claim to forward for somebody, who is worth originWorth if the claim counts.
	origin      authz.Caller
	originWorth api.Caller
}

const (
	nobody  = api.Caller_CALLER_UNSPECIFIED
	anyone  = api.Caller_CALLER_ANYONE
	worker  = api.Caller_CALLER_WORKER
	manager = api.Caller_CALLER_MANAGER
	admin   = api.Caller_CALLER_ADMIN
	// known gets a connection, and nothing else.
	known = api.Caller(-1)
)

// swarm is a cluster of identities, good and bad.
type swarm struct {
	registry *catest.Registry
	cluster  ca.Cluster
	server   *ca.Identity
	nodes    nodes
	users    users
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	r := catest.NewRegistry(t)
	c, err := r.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &swarm{
		registry: r, cluster: c, nodes: nodes{records: map[string]authz.Record{}},
		users: users{records: map[string]authz.UserRecord{}},
	}
	s.server = ca.NewIdentity(s.member(t, api.Role_ROLE_MANAGER))
	return s
}

// member returns a node that is in the store with the role of its certificate.
func (s *swarm) member(t *testing.T, role api.Role) ca.Credentials {
	t.Helper()
	c := s.stranger(t, role)
	s.nodes.set(c.Name().NodeID, role)
	return c
}

// stranger returns a node with a good certificate of which the store knows nothing.
func (s *swarm) stranger(t *testing.T, role api.Role) ca.Credentials {
	t.Helper()
	return catest.Credentials(t, s.cluster.Root, ca.Name{ClusterID: s.cluster.ID, NodeID: catest.NewID(), Role: role}, 0)
}

// nodes is an authz.Nodes in memory, always current.
type nodes struct {
	mu      sync.Mutex
	records map[string]authz.Record // guarded by mu
}

func (n *nodes) set(id string, role api.Role) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records[id] = authz.Record{Role: role, ChangedAt: time.Now().Add(time.Minute)} // later than the certificate's issue
}

// Node implements authz.Nodes.
func (n *nodes) Node(id string) (authz.Record, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok := n.records[id]
	return r, ok
}

// CatchUp implements authz.Nodes.
func (n *nodes) CatchUp(context.Context) error { return nil }

// networkIdentities are those that come over TCP.
func (s *swarm) networkIdentities(t *testing.T) []identity {
	t.Helper()
	w, m := s.member(t, api.Role_ROLE_WORKER), s.member(t, api.Role_ROLE_MANAGER)
	demoted, promoted := s.member(t, api.Role_ROLE_MANAGER), s.member(t, api.Role_ROLE_WORKER)
	s.nodes.set(demoted.Name().NodeID, api.Role_ROLE_WORKER)
	s.nodes.set(promoted.Name().NodeID, api.Role_ROLE_MANAGER)
	of := func(c ca.Credentials) credentials.TransportCredentials {
		return ca.NewIdentity(c).ClientCredentials(ca.OUManager)
	}
	other := catest.NewRegistry(t)
	otherRoot, err := other.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sameName := catest.Credentials(t, otherRoot.Root, m.Name(), 0)
	all := []identity{
		{name: "no TLS", creds: insecure.NewCredentials()},
		{name: "no certificate", column: true, creds: s.with(tls.Certificate{}), worth: anyone},
		{name: "other cluster's worker", column: true, creds: s.with(pair(catest.Member(t, other, api.Role_ROLE_WORKER)))},
		{name: "other cluster's manager", column: true, creds: s.with(pair(catest.Member(t, other, api.Role_ROLE_MANAGER)))},
		{name: "other cluster's CA, a manager's name", creds: s.with(pair(sameName))},
		{name: "same CA, other cluster's ID", creds: s.with(pair(catest.Credentials(t, s.cluster.Root, otherName(m.Name()), 0)))},
		{name: "removed worker", column: true, creds: of(s.stranger(t, api.Role_ROLE_WORKER)), worth: anyone},
		{name: "removed manager", column: true, creds: of(s.stranger(t, api.Role_ROLE_MANAGER)), worth: anyone, ahead: true},
		{name: "worker", column: true, creds: of(w), worth: worker},
		{name: "worker that claims to forward for an admin", creds: of(w), worth: worker, origin: authz.Caller{Kind: admin}},
		{name: "worker that is being promoted", creds: of(promoted), worth: worker},
		{name: "demoted manager, old certificate", creds: of(demoted), worth: worker},
		{name: "manager", column: true, creds: of(m), worth: manager},
	}
	return append(all, append(s.forgedIdentities(t, m), s.forwardedIdentities(of(m))...)...)
}

// forgedIdentities have a manager's name and key, and a certificate that is wrong in one way.
func (s *swarm) forgedIdentities(t *testing.T, m ca.Credentials) []identity {
	t.Helper()
	all := []identity{}
	for name, change := range map[string]func(*x509.Certificate){
		"expired":          func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"not yet valid":    func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) },
		"for servers only": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"a CA":             func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign },
		"an unknown role":  func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"root"} },
		"no role":          func(c *x509.Certificate) { c.Subject.OrganizationalUnit = nil },
	} {
		all = append(all, identity{name: "manager with a certificate: " + name, column: name == "expired", creds: s.with(s.forge(t, m, change))})
	}
	self := template(m.Chain()[0])
	cert := signed(t, self, self, m.RevealKey(), pair(m))
	faithful := s.forge(t, m, func(*x509.Certificate) {}) // shows that it is the changes that are refused
	return append(all,
		identity{name: "self-signed", creds: s.with(cert)},
		identity{name: "task", column: true, creds: s.with(s.task(t))},
		identity{name: "manager with a certificate: faithful", creds: s.with(faithful), worth: manager})
}

// with returns a client that trusts the swarm and shows cert, whatever that is worth.
func (s *swarm) with(cert tls.Certificate) credentials.TransportCredentials {
	c := s.server.ClientTLS(ca.OUManager)
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return credentials.NewTLS(c)
}

func (s *swarm) forge(t *testing.T, like ca.Credentials, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	c := template(like.Chain()[0])
	change(c)
	return s.signedFor(t, c, pair(like))
}

// signedFor signs c by the swarm's root for the holder of a key.
func (s *swarm) signedFor(t *testing.T, c *x509.Certificate, holder tls.Certificate) tls.Certificate {
	t.Helper()
	text, err := s.cluster.Root.RevealKey()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := ca.ParseKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, c, s.cluster.Root.Certificate(), key, holder)
}

// task returns what a task of the swarm has, signed by the same CA as everybody's.
func (s *swarm) task(t *testing.T) tls.Certificate {
	t.Helper()
	key, csr := catest.KeyAndCSR(t)
	chain, err := s.cluster.Root.IssueWorkload(time.Now(), csr, ca.Workload{ClusterID: s.cluster.ID, Service: "web", Slot: 1})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ca.ParseBundle(chain)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key}
}

func template(c *x509.Certificate) *x509.Certificate {
	t := *c
	t.SerialNumber = big.NewInt(1)
	t.Raw, t.Extensions, t.AuthorityKeyId, t.SubjectKeyId = nil, nil, nil, nil
	t.RawSubject, t.Subject.Names, t.Subject.ExtraNames = nil, nil, nil
	return &t
}

func signed(t *testing.T, c, parent *x509.Certificate, by *ecdsa.PrivateKey, holder tls.Certificate) tls.Certificate {
	t.Helper()
	key := holder.PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func pair(c ca.Credentials) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.Chain()[0].Raw}, PrivateKey: c.RevealKey()}
}

func otherName(n ca.Name) ca.Name {
	n.ClusterID = catest.NewID()
	return n
}
