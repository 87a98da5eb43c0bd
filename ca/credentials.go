package ca

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Credentials are what a node proves itself with: root certificates, its own certificate chain and the key to it. A value is
// consistent (C4) and immutable; the zero value is none.
type Credentials struct {
	name  Name
	roots []*x509.Certificate
	chain []*x509.Certificate
	pool  *x509.CertPool
	// key is behind a function because fmt prints unexported fields without asking their methods.
	key func() *ecdsa.PrivateKey
}

// NewCredentials checks that key, chain (the node's certificate first) and roots belong together and name a node (C4). It returns
// ErrMismatch, ErrBadName or ErrBadBundle. Whether the certificate is current is not its question: an expired one must be
// loadable, so that the node can say who it was. It keeps the slices, which the caller must not modify afterwards.
func NewCredentials(roots, chain []*x509.Certificate, key *ecdsa.PrivateKey) (Credentials, error) {
	if len(roots) == 0 || len(chain) == 0 || key == nil {
		return Credentials{}, fmt.Errorf("%w: root, certificate or key is missing", ErrBadBundle)
	}
	pool := poolOf(roots)
	leaf := chain[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         pool,
		Intermediates: poolOf(chain[1:]),
		CurrentTime:   issuedAt(leaf), // the root may be younger than the backdated start, and a cross-signed one end before the leaf
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return Credentials{}, fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	name, err := NameOf(leaf)
	if err != nil {
		return Credentials{}, err
	}
	if err := proveKey(leaf, key); err != nil {
		return Credentials{}, err
	}
	return Credentials{
		name: name, roots: roots, chain: chain, pool: pool,
		key: func() *ecdsa.PrivateKey { return key },
	}, nil
}

// issuedAt returns when a certificate was issued, Backdate after it became valid. One that lives for less was not backdated by us.
func issuedAt(cert *x509.Certificate) time.Time {
	if at := cert.NotBefore.Add(Backdate); at.Before(cert.NotAfter) {
		return at
	}
	return cert.NotBefore
}

// Trusting returns c with other trusted roots, in the order given. It returns ErrMismatch if c's own certificate leads to none of them.
func (c Credentials) Trusting(roots []*x509.Certificate) (Credentials, error) {
	return NewCredentials(roots, c.chain, c.key())
}

// IsZero reports whether c is the zero value.
func (c Credentials) IsZero() bool { return c.key == nil }

// Name returns who the certificate says its bearer is.
func (c Credentials) Name() Name { return c.name }

// Roots returns the trusted root certificates, which the caller must not modify.
func (c Credentials) Roots() []*x509.Certificate { return c.roots }

// Chain returns the node's certificate and those between it and a root, which the caller must not modify.
func (c Credentials) Chain() []*x509.Certificate { return c.chain }

// RevealKey returns the private key. Its callers are TLS and the key file (C6).
func (c Credentials) RevealKey() *ecdsa.PrivateKey { return c.key() }

// String returns "[redacted]".
func (c Credentials) String() string { return redacted }

// GoString returns "[redacted]".
func (c Credentials) GoString() string { return redacted }

// Format prints "[redacted]" for every verb.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON returns "[redacted]" as a JSON string.
func (c Credentials) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns "[redacted]".
func (c Credentials) LogValue() slog.Value { return slog.StringValue(redacted) }

// certificate is c as crypto/tls wants it.
func (c Credentials) certificate() tls.Certificate {
	raw := make([][]byte, 0, len(c.chain))
	for _, cert := range c.chain {
		raw = append(raw, cert.Raw)
	}
	return tls.Certificate{Certificate: raw, PrivateKey: c.key(), Leaf: c.chain[0]}
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}
