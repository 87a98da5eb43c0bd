package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"strings"
)

var (
	// ErrMissing is returned when no token was given at all.
	ErrMissing = errors.New("join token is necessary: get one with `skep swarm join-token worker` on a manager")
	// ErrMalformed is returned when the text is no join token: a character is missing, surplus or changed.
	ErrMalformed = errors.New("invalid join token: copy the whole line that `skep swarm join-token worker` prints on a manager")
	// ErrOtherRoot is returned when a well-formed token pins another root certificate than the one at hand.
	ErrOtherRoot = errors.New("join token belongs to another swarm, or the swarm's root CA has changed: get a new one with `skep swarm join-token worker` on a manager")
	// ErrWrongSecret is returned when the token pins the right root but its secret is none that is valid now.
	ErrWrongSecret = errors.New("join token is not valid (it may have been rotated): get a new one with `skep swarm join-token worker` on a manager")
)

const (
	prefix      = "SKPTKN"
	version     = "1"
	digestWidth = 50 // characters: 36^50 > 2^256
	secretWidth = 25 // characters: 36^25 > 2^128
	secretSize  = 16 // bytes
	redacted    = "[redacted]"
)

// Len is the length in bytes of every join token; anything longer need not be read.
const Len = len(prefix) + 1 + len(version) + 1 + digestWidth + 1 + secretWidth

// Digest is the SHA-256 that pins a root bundle. It is public.
type Digest [sha256.Size]byte

// DigestOf returns the digest of a root bundle in the order given.
func DigestOf(roots []*x509.Certificate) Digest {
	h := sha256.New()
	for _, c := range roots {
		h.Write(c.Raw)
	}
	return Digest(h.Sum(nil))
}

// String returns the digest as it stands in a token.
func (d Digest) String() string { return base36(d[:], digestWidth) }

// Token is one join token. The zero value is no valid token and equals none.
type Token struct {
	digest Digest
	// secret is nil in the zero value. It is behind a function because fmt calls no method on an unexported field of a
	// struct that holds a Token: it prints what it finds there, through pointers too for some verbs (T3).
	secret func() [secretSize]byte
}

// holding returns a token of the two parts.
func holding(d Digest, secret [secretSize]byte) Token {
	return Token{digest: d, secret: func() [secretSize]byte { return secret }}
}

// New makes a token with a fresh random secret for the given root.
func New(d Digest) Token {
	var secret [secretSize]byte
	_, _ = rand.Read(secret[:]) // documented never to fail
	return holding(d, secret)
}

// Parse reads a token as Reveal prints it. It returns ErrMissing for an empty string and ErrMalformed for anything else that is
// not exactly one token (T1).
func Parse(s string) (Token, error) {
	if s == "" {
		return Token{}, ErrMissing
	}
	if len(s) != Len {
		return Token{}, ErrMalformed
	}
	parts := strings.Split(s, "-")
	if len(parts) != 4 || parts[0] != prefix || parts[1] != version {
		return Token{}, ErrMalformed
	}
	var (
		digest Digest
		secret [secretSize]byte
	)
	if !unbase36(digest[:], parts[2], digestWidth) || !unbase36(secret[:], parts[3], secretWidth) {
		return Token{}, ErrMalformed
	}
	return holding(digest, secret), nil
}

// Digest returns the digest of the root bundle that the token pins.
func (t Token) Digest() Digest { return t.digest }

// IsZero reports whether t is the zero value, that is, no token.
func (t Token) IsZero() bool { return t.secret == nil }

// Reveal returns the token in clear. Its only callers are the command that prints a token to an admin, the sealed store, and the
// request of a joiner that has verified the root. The zero value reveals "".
func (t Token) Reveal() string {
	if t.IsZero() {
		return ""
	}
	secret := t.secret()
	return strings.Join([]string{prefix, version, t.digest.String(), base36(secret[:], secretWidth)}, "-")
}

// SecretHash is what is kept of the secret of a join grant: 128 random bits are not found again by trying.
type SecretHash [sha256.Size]byte

// SecretHash returns the SHA-256 of the secret. The zero value has none, and returns the zero hash, which no secret has.
func (t Token) SecretHash() SecretHash {
	if t.IsZero() {
		return SecretHash{}
	}
	secret := t.secret()
	return sha256.Sum256(secret[:])
}

// GrantID returns the ID of the join grant that has this hash: the first half of it, in the form that all IDs have.
func (h SecretHash) GrantID() string { return base36(h[:secretSize], secretWidth) }

// Equal compares two hashes in time that does not depend on them (T2). The zero hash equals none.
func (h SecretHash) Equal(other []byte) bool {
	return h != SecretHash{} && subtle.ConstantTimeCompare(h[:], other) == 1
}

// Check compares a presented token with one that is valid, in time that does not depend on the secret (T2). It returns nil,
// ErrOtherRoot or ErrWrongSecret. The zero value matches nothing.
func (t Token) Check(presented Token) error {
	if t.IsZero() || presented.IsZero() {
		return ErrWrongSecret
	}
	want, got := t.secret(), presented.secret()
	sameSecret := subtle.ConstantTimeCompare(want[:], got[:])
	if t.digest != presented.digest { // public, so no care is needed
		return ErrOtherRoot
	}
	if sameSecret != 1 {
		return ErrWrongSecret
	}
	return nil
}

// String returns "[redacted]" (T3).
func (t Token) String() string { return redacted }

// GoString returns "[redacted]" (T3).
func (t Token) GoString() string { return redacted }

// Format prints "[redacted]" for every verb (T3).
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON returns "[redacted]" as a JSON string (T3).
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns "[redacted]" (T3).
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// base36 prints b as a number of exactly width digits, which must suffice.
func base36(b []byte, width int) string {
	digits := new(big.Int).SetBytes(b).Text(36)
	return strings.Repeat("0", width-len(digits)) + digits
}

// unbase36 is the inverse of base36. It reports false for any text that base36 cannot have printed.
func unbase36(dst []byte, s string, width int) bool {
	if len(s) != width {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	n, ok := new(big.Int).SetString(s, 36)
	if !ok || n.BitLen() > 8*len(dst) {
		return false
	}
	n.FillBytes(dst)
	return true
}
