package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/skep-io/skep/api"
)

// errNoIdentity is why a machine in no swarm refuses people.
var errNoIdentity = errors.New("this node is in no swarm")

// PeopleTLS returns a configuration for a listener where people talk to a node: a client must show a current user certificate of the
// node's cluster, and no other will do, least of all a node's. Identity returns the node's at the moment, or nil while it is
// in no swarm; then nobody gets in.
func PeopleTLS(identity func() *Identity) *tls.Config {
	outer := policy()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		i := identity()
		if i == nil {
			return nil, errNoIdentity
		}
		cert, pool := i.tlsCertificate()
		return peopleTLS(*cert, pool, i.checkUser), nil
	}
	return outer
}

// checkUser returns an error unless cert, which has been verified, is a user's of this cluster.
func (i *Identity) checkUser(cert *x509.Certificate) error {
	name, err := UserOf(cert)
	if err != nil {
		return err
	}
	if name.ClusterID != i.ClusterID() {
		return fmt.Errorf("%w: another swarm's", ErrBadUser)
	}
	return nil
}

// ExternalPeopleTLS returns a configuration for a listener where a CA that is none of the swarm's vouches for people, who know the
// node by cert.
func ExternalPeopleTLS(cert tls.Certificate, authorities *x509.CertPool) *tls.Config {
	return peopleTLS(cert, authorities, func(leaf *x509.Certificate) error {
		if leaf.IsCA || !IsUserName(leaf.Subject.CommonName) {
			return fmt.Errorf("%w: name", ErrBadUser)
		}
		return nil
	})
}

// PeopleCredentials returns a configuration for people as a gRPC server wants it, with the bounds of Identity.ServerCredentials.
func PeopleCredentials(c *tls.Config) credentials.TransportCredentials {
	return boundedCreds{TransportCredentials: credentials.NewTLS(c)}
}

// peopleTLS lets clients in that authorities vouch for and check does not refuse.
func peopleTLS(cert tls.Certificate, authorities *x509.CertPool, check func(leaf *x509.Certificate) error) *tls.Config {
	c := policy()
	c.Certificates = []tls.Certificate{cert}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs = authorities
	c.VerifyConnection = func(s tls.ConnectionState) error { return check(s.PeerCertificates[0]) }
	return c
}

// IssuedUser is what the CA gives a user.
type IssuedUser struct {
	// Chain is PEM, the user's certificate first.
	Chain []byte
	// Certificate is the first of Chain.
	Certificate *x509.Certificate
	// Roots is PEM: by them the user knows the managers.
	Roots []byte
}

// IssueUser gives a person a certificate. That the caller may ask for it is for the caller to know.
func (a *Authority) IssueUser(ctx context.Context, now time.Time, user string, role api.UserRole, life time.Duration, csr []byte) (IssuedUser, error) {
	c, err := a.registry.Cluster(ctx)
	if err != nil {
		return IssuedUser{}, err
	}
	chain, err := c.Issuer().IssueUser(now, csr, UserName{ClusterID: c.ID, User: user, Role: role}, life)
	if err != nil {
		return IssuedUser{}, fmt.Errorf("issue certificate of user %s: %w", user, err)
	}
	certs, err := ParseBundle(chain)
	if err != nil {
		return IssuedUser{}, err
	}
	return IssuedUser{Chain: chain, Certificate: certs[0], Roots: EncodeBundle(c.trusted())}, nil
}
