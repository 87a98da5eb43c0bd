package backup

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
)

// MinPassphrase is the least number of characters of a passphrase. Argon2id makes guessing slow, not impossible.
const MinPassphrase = 12

// Parameters of Argon2id: those that RFC 9106 recommends where memory is not plenty.
const (
	saltSize      = 16
	argonTime     = 3
	argonMemory   = 64 << 10 // KiB
	argonThreads  = 4
	maxTime       = 10
	maxMemory     = 256 << 10 // KiB; more is refused, because the header is not proved when it is used
	maxThreads    = 64
	minMemory     = 8 << 10 // KiB
	redacted      = "[redacted]"
	maxPassphrase = 1024 // bytes
)

// Secret seals a backup, or opens it: a key or a passphrase. The zero value is neither. Whatever prints it prints "[redacted]".
type Secret struct {
	key seal.Key
	// passphrase is nil without one. It is behind a function because fmt prints unexported fields without asking their methods.
	passphrase func() string
}

// FromKey returns a key as a secret.
func FromKey(k seal.Key) Secret { return Secret{key: k} }

// FromPassphrase returns a passphrase as a secret that opens a backup.
func FromPassphrase(text string) Secret { return Secret{passphrase: func() string { return text }} }

// NewPassphrase returns a passphrase as a secret that may seal a backup, or ErrPassphrase.
func NewPassphrase(text string) (Secret, error) {
	switch n := utf8.RuneCountInString(text); {
	case n < MinPassphrase:
		return Secret{}, fmt.Errorf("%w: it has %d characters, give it %d at least", ErrPassphrase, n, MinPassphrase)
	case len(text) > maxPassphrase:
		return Secret{}, fmt.Errorf("%w: it has %d bytes, and %d are the most", ErrPassphrase, len(text), maxPassphrase)
	}
	return FromPassphrase(text), nil
}

// IsZero reports whether s is no secret.
func (s Secret) IsZero() bool { return s.passphrase == nil && s.key.IsZero() }

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON returns "[redacted]".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// parameters returns fresh parameters for a backup that s seals; nil for a key.
func (s Secret) parameters() *api.PassphraseParameters {
	if s.passphrase == nil {
		return nil
	}
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails, see crypto/rand
	return &api.PassphraseParameters{Salt: salt, Time: argonTime, MemoryKib: argonMemory, Threads: argonThreads}
}

// kek returns the key that seals a backup's data key. Without parameters that is a backup key.
func (s Secret) kek(p *api.PassphraseParameters) (seal.Key, error) {
	switch {
	case p == nil && s.key.IsZero():
		return seal.Key{}, ErrNeedsKey
	case p == nil:
		return s.key, nil
	case s.passphrase == nil:
		return seal.Key{}, ErrNeedsPassphrase
	case len(p.GetSalt()) != saltSize, p.GetTime() < 1, p.GetTime() > maxTime, p.GetThreads() < 1, p.GetThreads() > maxThreads,
		p.GetMemoryKib() < minMemory, p.GetMemoryKib() > maxMemory:
		return seal.Key{}, fmt.Errorf("parameters of the passphrase: %w", ErrDamaged)
	}
	return seal.KeyFromBytes(argon2.IDKey([]byte(s.passphrase()), p.GetSalt(), p.GetTime(), p.GetMemoryKib(), uint8(p.GetThreads()), seal.KeySize))
}
