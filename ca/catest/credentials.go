package catest

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
)

// Credentials makes those of a node that never joined anything: root signs what it is told. Life 0 is the default.
func Credentials(t testing.TB, root *ca.Root, name ca.Name, life time.Duration) ca.Credentials {
	t.Helper()
	key, csr := KeyAndCSR(t)
	chain, err := root.Issue(time.Now(), csr, ca.Profile{Name: name, Life: life})
	if err != nil {
		t.Fatal(err)
	}
	return Assemble(t, root, chain, key)
}

// Assemble makes credentials of what a CA answered.
func Assemble(t testing.TB, root *ca.Root, chain []byte, key *ecdsa.PrivateKey) ca.Credentials {
	t.Helper()
	certs, err := ca.ParseBundle(chain)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.NewCredentials([]*x509.Certificate{root.Certificate()}, certs, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// KeyAndCSR makes a node key and the request for it.
func KeyAndCSR(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// Member adds a node with the given role to r and returns its credentials.
func Member(t testing.TB, r *Registry, role api.Role) ca.Credentials {
	t.Helper()
	key, csr := KeyAndCSR(t)
	c, err := r.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tok := c.Worker
	if role == api.Role_ROLE_MANAGER {
		tok = c.Manager
	}
	issued, err := ca.NewAuthority(r).Join(t.Context(), time.Now(), ca.JoinRequest{CSR: csr, Token: tok.Reveal()})
	if err != nil {
		t.Fatal(err)
	}
	return Assemble(t, c.Root, issued.Chain, key)
}

// UserCertificate makes that of a user, with its key: root signs what it is told. Life 0 is the default.
func UserCertificate(t testing.TB, root *ca.Root, name ca.UserName, life time.Duration) tls.Certificate {
	t.Helper()
	if life == 0 {
		life = ca.DefaultUserLife
	}
	key, csr := KeyAndCSR(t)
	chain, err := root.IssueUser(time.Now(), csr, name, life)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ca.ParseBundle(chain)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key, Leaf: certs[0]}
}
