package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/skep-io/skep/ca"
)

const (
	redacted = "[redacted]"
	keyType  = "PRIVATE KEY" // PKCS #8
)

// errMismatch is returned for a certificate that is not the key's.
var errMismatch = errors.New("the certificate is for another key")

// svid is a task's identity. A value is consistent: its key is that of its certificate, which names a task. The zero value is none.
type svid struct {
	name  ca.Workload
	chain []*x509.Certificate
	// key is behind a function because fmt prints unexported fields without asking their methods.
	key func() *ecdsa.PrivateKey
}

// newSVID checks that a chain, which is PEM with the task's certificate first, and a key are one identity.
func newSVID(chainPEM []byte, key *ecdsa.PrivateKey) (svid, error) {
	chain, err := ca.ParseBundle(chainPEM)
	if err != nil {
		return svid{}, err
	}
	name, err := ca.WorkloadOf(chain[0])
	if err != nil {
		return svid{}, err
	}
	if !key.PublicKey.Equal(chain[0].PublicKey) {
		return svid{}, errMismatch
	}
	return svid{name: name, chain: chain, key: func() *ecdsa.PrivateKey { return key }}, nil
}

// parseSVID is newSVID for a key in PEM.
func parseSVID(chainPEM, keyPEM []byte) (svid, error) {
	block, rest := pem.Decode(keyPEM)
	if block == nil || block.Type != keyType || len(bytes.TrimSpace(rest)) > 0 {
		return svid{}, errors.New("malformed private key")
	}
	key, err := ca.ParseKey(block.Bytes)
	if err != nil {
		return svid{}, err
	}
	return newSVID(chainPEM, key)
}

func (s svid) isZero() bool { return s.key == nil }

// valid reports whether there is an SVID that has not ended.
func (s svid) valid(now time.Time) bool { return !s.isZero() && now.Before(s.chain[0].NotAfter) }

// revealKey returns the private key as PKCS #8. It goes to the task alone (W1).
func (s svid) revealKey() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key())
	if err != nil {
		return nil, fmt.Errorf("encode key of %s: %w", s.name.SPIFFEID(), err)
	}
	return der, nil
}

// String returns a placeholder.
func (s svid) String() string { return redacted }

// GoString returns a placeholder.
func (s svid) GoString() string { return redacted }

// Format writes a placeholder under every verb.
func (s svid) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a placeholder.
func (s svid) LogValue() slog.Value { return slog.StringValue(redacted) }

// rawChain is the certificates in DER, one after the other, as the Workload API has them.
func rawChain(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, c.Raw...)
	}
	return out
}
