package daemon

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/store/seal"
)

const (
	// sealedKeyFormat is the first byte of a sealed node key. Then come the number of envelopes, and the envelopes, all of one
	// length: a nonce of 24 bytes and an XChaCha20-Poly1305 ciphertext of the node key, with the first byte as associated data.
	sealedKeyFormat = 1
	// sealedKeyUse separates the key that seals the node key from all other uses of the unlock key.
	sealedKeyUse = "skep node key 1"
	// maxHolders is the number of unlock keys that open a node key at once: the old and the new.
	maxHolders = 2
)

// errSealedKey is returned when a sealed node key is damaged, or for another unlock key.
var errSealedKey = errors.New("the node's key does not open")

// holders are keys, each of which opens the node's key. Without any, the key lies in clear: then a key file beside it
// would protect nothing.
type holders []seal.Key

// holdersOf returns who opens the node's key when kek seals the store, or, on a worker, would.
func holdersOf(kek seal.Key, source seal.Source) holders {
	if source == seal.SourceKeyFile {
		return nil
	}
	return holders{kek}
}

// with returns holders so that those of h and of other open the key: without any, anybody does.
func (h holders) with(other holders) holders {
	if len(h) == 0 || len(other) == 0 {
		return nil
	}
	return append(slices.Clone(h), other...)
}

// sealer seals and opens a node key, and remembers whether it opened one.
type sealer struct {
	holders holders
	opened  bool
}

// Seal implements keyfile.Sealer.
func (s *sealer) Seal(plaintext []byte) ([]byte, error) {
	sealed := []byte{sealedKeyFormat, byte(len(s.holders))}
	for _, holder := range s.holders {
		aead, err := nodeKeyCipher(holder)
		if err != nil {
			return nil, err
		}
		nonce := make([]byte, aead.NonceSize())
		rand.Read(nonce) // never fails, see crypto/rand
		sealed = append(sealed, nonce...)
		sealed = aead.Seal(sealed, nonce, plaintext, sealed[:1])
	}
	return sealed, nil
}

// Open implements keyfile.Sealer.
func (s *sealer) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < 2 || sealed[0] != sealedKeyFormat || sealed[1] == 0 || sealed[1] > maxHolders {
		return nil, errSealedKey
	}
	size := (len(sealed) - 2) / int(sealed[1])
	if size < chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead || size*int(sealed[1]) != len(sealed)-2 {
		return nil, errSealedKey
	}
	for envelope := range slices.Chunk(sealed[2:], size) {
		for _, holder := range s.holders {
			aead, err := nodeKeyCipher(holder)
			if err != nil {
				return nil, err
			}
			nonce, ciphertext := envelope[:aead.NonceSize()], envelope[aead.NonceSize():]
			if plaintext, err := aead.Open(nil, nonce, ciphertext, sealed[:1]); err == nil {
				s.opened = true
				return plaintext, nil
			}
		}
	}
	return nil, errSealedKey
}

func nodeKeyCipher(holder seal.Key) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, holder.Bytes(), nil, sealedKeyUse, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.NewX(key)
}

// nodeKeys keeps the node's credentials on disk, sealed by the unlock key while the swarm has one and this node is a manager: a
// stolen disk of a locked manager can't speak for it either. Safe for concurrent use.
type nodeKeys struct {
	dataDir string

	// mu guards the rest.
	mu sync.Mutex
	// last are the credentials on disk; the zero value is none.
	last ca.Credentials
	// holders open the key that is saved next.
	holders holders
	// settled says that holders, and nobody else, open the key that is on disk.
	settled bool
}

// openKeys returns the credentials in a data directory, whose key may need one of some unlock keys.
func openKeys(dataDir string, h holders) *nodeKeys { return &nodeKeys{dataDir: dataDir, holders: h} }

// Load returns the credentials on disk, or an error of package keyfile.
func (k *nodeKeys) Load() (ca.Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &sealer{holders: k.holders}
	credentials, err := keyfile.Open(k.dataDir, s).Load()
	if err != nil {
		return ca.Credentials{}, err
	}
	k.last, k.settled = credentials, len(k.holders) == 0 && !s.opened
	return credentials, nil
}

// Save makes credentials durable.
func (k *nodeKeys) Save(c ca.Credentials) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.save(c, k.holders)
}

// Protect makes h those who open the key on disk, and does nothing when they are so already.
func (k *nodeKeys) Protect(h holders) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.settled && slices.EqualFunc(h, k.holders, seal.Key.Equal) {
		return nil
	}
	return k.save(k.last, h)
}

func (k *nodeKeys) save(c ca.Credentials, h holders) error {
	k.settled = false
	dir := keyfile.Open(k.dataDir, nil)
	if len(h) > 0 {
		dir = keyfile.Open(k.dataDir, &sealer{holders: h})
	}
	if err := dir.Save(c); err != nil {
		return err
	}
	k.last, k.holders, k.settled = c, h, true
	return nil
}

// reseal makes kek what opens a manager: its store, by the function given, and its node key. A crash on the way leaves a manager
// that the former key opens, or the new one: no moment needs both.
func (k *nodeKeys) reseal(before, after holders, store func() error) error {
	if err := k.Protect(before.with(after)); err != nil {
		return err
	}
	if err := store(); err != nil {
		return err
	}
	return k.Protect(after)
}
