package seal

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/crypto/chacha20poly1305"
)

// Errors that a caller can branch on.
var (
	// ErrUnlockKey is returned when a text is not an unlock key: mistyped, cut short, or something else.
	ErrUnlockKey = errors.New("this is not an unlock key: it must have the form " + unlockPrefix + "… and be complete")
	// ErrWrongKey is returned when a key does not open what it should.
	ErrWrongKey = errors.New("the key does not fit")
	// ErrOpen is returned when an envelope was changed, cut, or belongs elsewhere.
	ErrOpen = errors.New("sealed data is damaged or was tampered with")
	// ErrFormat is returned when data were written by another version.
	ErrFormat = errors.New("the format is of another version")
)

// KeySize is the size of a key in bytes.
const KeySize = chacha20poly1305.KeySize

// redacted is what all ways to print a key give.
const redacted = "[redacted]"

// Key is a secret key. Whatever prints it prints "[redacted]". The zero value is no key.
type Key struct{ bytes [KeySize]byte }

// NewKey returns a random key.
func NewKey() Key {
	var k Key
	rand.Read(k.bytes[:]) // never fails, see crypto/rand
	return k
}

// KeyFromBytes returns the key with these 32 bytes.
func KeyFromBytes(b []byte) (Key, error) {
	if len(b) != KeySize {
		return Key{}, fmt.Errorf("a key has %d bytes, not %d", KeySize, len(b))
	}
	return Key{[KeySize]byte(b)}, nil
}

// Bytes returns the secret itself.
func (k Key) Bytes() []byte { return k.bytes[:] }

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.Equal(Key{}) }

// Equal compares in constant time.
func (k Key) Equal(other Key) bool {
	return subtle.ConstantTimeCompare(k.bytes[:], other.bytes[:]) == 1
}

// String returns "[redacted]".
func (Key) String() string { return redacted }

// GoString returns "[redacted]".
func (Key) GoString() string { return redacted }

// Format writes "[redacted]" for every verb.
func (Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// MarshalJSON returns "[redacted]".
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns "[redacted]".
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns "[redacted]".
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// unlockPrefix names the format of unlock keys, and keyChecksum is the length of the checksum in them.
const (
	unlockPrefix = "SKPKEY-1-"
	keyChecksum  = 4
)

// UnlockKey returns the form in which a person keeps k: "SKPKEY-1-" and 58 characters. It is as secret as the key.
func (k Key) UnlockKey() string { return k.text(unlockPrefix) }

// ParseUnlockKey reads what UnlockKey returned; spaces around it are ignored. It returns ErrUnlockKey for anything else.
func ParseUnlockKey(text string) (Key, error) { return parseKey(unlockPrefix, text, ErrUnlockKey) }
