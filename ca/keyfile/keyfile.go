package keyfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/atomicfile"
)

var (
	// ErrNone is returned when the directory has no credentials: the node is in no swarm.
	ErrNone = errors.New("this node is not part of a swarm")
	// ErrLocked is returned when the key is sealed and there is no Sealer, or one that can't open it.
	ErrLocked = errors.New("the node's key is locked: run `skep swarm unlock`")
	// ErrCorrupt is returned when files are missing, damaged or don't fit together.
	ErrCorrupt = errors.New("the node's certificate files are damaged: leave the swarm with `skep swarm leave --force` and join again")
)

const (
	rootFile = "swarm-root-ca.crt"
	certFile = "swarm-node.crt"
	keyFile  = "swarm-node.key"

	keyType    = "PRIVATE KEY"
	sealedType = "SKEP SEALED PRIVATE KEY"

	// maxFile in bytes bounds what is read; a certificate bundle is the largest.
	maxFile = ca.MaxBundleSize
	// maxKeys in the key file: the new and the old.
	maxKeys = 2

	fileMode = 0o600
	dirMode  = 0o700
)

// Sealer encrypts the key at rest. What it seals, it opens, unless a bit changed. It returns an error when it has another key
// than the one that sealed.
type Sealer interface {
	Seal(plaintext []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// Dir is a node's certificate directory.
type Dir struct {
	path   string
	sealer Sealer // or nil: the key is kept in clear
	write  func(path string, data []byte, perm fs.FileMode) error
}

// Open returns the directory "certificates" in dataDir, which need not exist yet. Sealer is nil to keep the key in clear.
func Open(dataDir string, sealer Sealer) *Dir {
	return &Dir{path: filepath.Join(dataDir, "certificates"), sealer: sealer, write: atomicfile.Write}
}

// Save makes c durable in place of what was there. It also seals a key that lay in clear, and the other way round.
func (d *Dir) Save(c ca.Credentials) error {
	if err := os.MkdirAll(d.path, dirMode); err != nil {
		return fmt.Errorf("make certificate directory: %w", err)
	}
	fresh, err := d.encodeKey(c.RevealKey())
	if err != nil {
		return err
	}
	inUse, err := d.keyInUse()
	if err != nil {
		return fmt.Errorf("save credentials: %w", err)
	}
	steps := []struct {
		name string
		data []byte
	}{
		{rootFile, ca.EncodeBundle(c.Roots())},
		{keyFile, append(bytes.Clone(fresh), inUse...)},
		{certFile, ca.EncodeBundle(c.Chain())},
		{keyFile, fresh},
	}
	for _, s := range steps {
		if err := d.write(filepath.Join(d.path, s.name), s.data, fileMode); err != nil {
			return fmt.Errorf("save %s: %w", s.name, err)
		}
	}
	return nil
}

// Load returns the credentials in the directory (K2). It returns ErrNone, ErrLocked or ErrCorrupt, or what the file system said.
// An expired certificate is no error here.
func (d *Dir) Load() (ca.Credentials, error) {
	if err := d.clean(); err != nil {
		return ca.Credentials{}, err
	}
	certPEM, err := d.read(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return ca.Credentials{}, ErrNone // a join that was interrupted before it was one
	}
	rootPEM, rootErr := d.read(rootFile)
	keyPEM, keyErr := d.read(keyFile)
	if err := errors.Join(err, rootErr, keyErr); err != nil {
		return ca.Credentials{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return assemble(rootPEM, certPEM, keyPEM, d.sealer)
}

// Remove deletes everything that Save and other versions of it wrote, for a node that leaves.
func (d *Dir) Remove() error {
	for _, name := range []string{keyFile, certFile, rootFile} {
		if err := atomicfile.Remove(filepath.Join(d.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove credentials: %w", err)
		}
	}
	return nil
}

// clean removes what a crash left of unfinished writes: it may be a key in clear.
func (d *Dir) clean() error {
	for _, name := range []string{keyFile, certFile, rootFile} {
		if err := atomicfile.Clean(filepath.Join(d.path, name)); err != nil {
			return fmt.Errorf("load credentials: %w", err)
		}
	}
	return nil
}

// keyInUse returns the key that the certificate on disk is for, as PEM, or nothing. It must stay until the certificate is
// replaced. It need not be the first key of the file: an earlier Save may have stopped half way.
func (d *Dir) keyInUse() ([]byte, error) {
	certPEM, certErr := d.read(certFile)
	keyPEM, keyErr := d.read(keyFile)
	if errors.Is(certErr, fs.ErrNotExist) || errors.Is(keyErr, fs.ErrNotExist) {
		return nil, nil
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	chain, err := ca.ParseBundle(certPEM)
	if err != nil {
		return nil, nil //nolint:nilerr // a damaged certificate is for no key
	}
	keys, _, err := parseKeys(keyPEM, d.sealer)
	if err != nil {
		return nil, nil //nolint:nilerr // nor is a damaged key for any
	}
	for _, key := range keys {
		if key.PublicKey.Equal(chain[0].PublicKey) {
			return d.encodeKey(key)
		}
	}
	return nil, nil
}

func (d *Dir) read(name string) ([]byte, error) {
	return atomicfile.Read(filepath.Join(d.path, name), maxFile)
}

func (d *Dir) encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode node key: %w", err)
	}
	if d.sealer == nil {
		return pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}), nil
	}
	sealed, err := d.sealer.Seal(der)
	if err != nil {
		return nil, fmt.Errorf("seal node key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: sealedType, Bytes: sealed}), nil
}

// assemble makes credentials of the three files: of the keys, the one that the certificate is for.
func assemble(rootPEM, certPEM, keyPEM []byte, sealer Sealer) (ca.Credentials, error) {
	roots, err := ca.ParseRoots(rootPEM)
	if err != nil {
		return ca.Credentials{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, rootFile, err)
	}
	chain, err := ca.ParseBundle(certPEM)
	if err != nil {
		return ca.Credentials{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, certFile, err)
	}
	keys, locked, err := parseKeys(keyPEM, sealer)
	if err != nil {
		return ca.Credentials{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, keyFile, err)
	}
	for _, key := range keys {
		if !key.PublicKey.Equal(chain[0].PublicKey) {
			continue
		}
		c, err := ca.NewCredentials(roots, chain, key)
		if err != nil {
			return ca.Credentials{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return c, nil
	}
	if locked {
		return ca.Credentials{}, ErrLocked
	}
	return ca.Credentials{}, fmt.Errorf("%w: %w", ErrCorrupt, ca.ErrMismatch)
}

// parseKeys returns the keys in a key file that can be read, and whether there are others that are locked.
func parseKeys(text []byte, sealer Sealer) (keys []*ecdsa.PrivateKey, locked bool, err error) {
	for n := 0; len(bytes.TrimSpace(text)) > 0; n++ {
		block, rest := pem.Decode(text)
		if block == nil || n == maxKeys {
			return nil, false, errors.New("not one or two PEM blocks")
		}
		text = rest
		der := block.Bytes
		switch block.Type {
		case keyType:
		case sealedType:
			if der = open(sealer, block.Bytes); der == nil {
				locked = true
				continue
			}
		default:
			return nil, false, errors.New("unknown type of PEM block")
		}
		key, err := ca.ParseKey(der)
		if err != nil {
			return nil, false, err
		}
		keys = append(keys, key)
	}
	return keys, locked, nil
}

// open returns nil if the sealed key can't be opened: then another key of the file may still fit.
func open(s Sealer, sealed []byte) []byte {
	if s == nil {
		return nil
	}
	der, err := s.Open(sealed)
	if err != nil {
		return nil
	}
	return der
}
