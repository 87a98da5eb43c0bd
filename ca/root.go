package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/skep-io/skep/ca/token"
)

const (
	// RootLife is how long a root certificate lives.
	RootLife = 20 * 365 * 24 * time.Hour
	// Backdate is how long before its issue a certificate becomes valid, for clocks that are behind.
	Backdate = time.Hour

	rootName = "skep-ca"
	keyType  = "PRIVATE KEY" // PKCS #8
	// sec1KeyType is what `openssl ecparam -genkey -noout` writes.
	sec1KeyType = "EC PRIVATE KEY"
	redacted    = "[redacted]"
)

// Root is the swarm's certificate authority: a root certificate and what signs with its key.
type Root struct {
	cert *x509.Certificate
	// key is behind a function because fmt prints unexported fields without asking their methods. It is nil where external signs.
	key func() *ecdsa.PrivateKey
	// external signs where the key is not here, or is nil.
	external *External
	// cross are the certificates that lead from cert to an older root, and come after each certificate that is issued.
	cross []*x509.Certificate
}

// NewRoot makes a new root with a fresh key.
func NewRoot() (*Root, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make root CA: %w", err)
	}
	from := time.Now().Add(-Backdate)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: rootName}, NotBefore: from, NotAfter: from.Add(RootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make root CA: %w", err)
	}
	return newRoot(encodePEM(certificateType, der), key)
}

// ParseRoot reads a root from the two PEM texts that CertificatePEM and RevealKey return. The key must prove that it is the
// certificate's by signing. It returns ErrBadRoot or ErrBadBundle; no error repeats a byte of the key.
func ParseRoot(certPEM, keyPEM []byte) (*Root, error) {
	key, err := parseRootKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRoot, err)
	}
	return newRoot(certPEM, key)
}

// parseRootKey reads a key as we write it, or as older tools do.
func parseRootKey(text []byte) (*ecdsa.PrivateKey, error) {
	if der, _, err := nextPEM(text, sec1KeyType); err == nil {
		key, err := x509.ParseECPrivateKey(der)
		if err != nil || key.Curve != elliptic.P256() {
			return nil, errors.New("the key must be ECDSA P-256")
		}
		return key, nil
	}
	der, _, err := nextPEM(text, keyType)
	if err != nil {
		return nil, err
	}
	return ParseKey(der)
}

func newRoot(certPEM []byte, key *ecdsa.PrivateKey) (*Root, error) {
	roots, err := ParseRoots(certPEM)
	if err != nil {
		return nil, err
	}
	if len(roots) != 1 {
		return nil, fmt.Errorf("%w: %d certificates instead of one", ErrBadRoot, len(roots))
	}
	if err := proveKey(roots[0], key); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRoot, err)
	}
	return &Root{cert: roots[0], key: func() *ecdsa.PrivateKey { return key }}, nil
}

// Certificate returns the root certificate, which the caller must not modify.
func (r *Root) Certificate() *x509.Certificate { return r.cert }

// CertificatePEM returns the root certificate as nodes keep it.
func (r *Root) CertificatePEM() []byte { return encodePEM(certificateType, r.cert.Raw) }

// Digest returns the digest that join tokens for this root pin.
func (r *Root) Digest() token.Digest { return token.DigestOf([]*x509.Certificate{r.cert}) }

// RevealKey returns the private key as PKCS #8 PEM, or nothing where an external CA has it. Its only use is to be put into the
// sealed store (C6).
func (r *Root) RevealKey() ([]byte, error) {
	if r.key == nil {
		return nil, nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(r.key())
	if err != nil {
		return nil, fmt.Errorf("encode root key: %w", err)
	}
	return encodePEM(keyType, der), nil
}

// String returns "[redacted]".
func (r *Root) String() string { return redacted }

// GoString returns "[redacted]".
func (r *Root) GoString() string { return redacted }

// Format prints "[redacted]" for every verb.
func (r *Root) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON returns "[redacted]" as a JSON string.
func (r *Root) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns "[redacted]".
func (r *Root) LogValue() slog.Value { return slog.StringValue(redacted) }

// ParseKey reads an ECDSA P-256 key from PKCS #8. No error repeats a byte of it.
func ParseKey(der []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("malformed private key")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the key must be ECDSA P-256")
	}
	return key, nil
}

// proveKey returns ErrMismatch unless what key signs verifies with the certificate's public key.
func proveKey(cert *x509.Certificate, key *ecdsa.PrivateKey) error {
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return ErrMismatch
	}
	digest := sha256.Sum256(cert.Raw)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil || !ecdsa.VerifyASN1(pub, digest[:], sig) {
		return ErrMismatch
	}
	return nil
}
