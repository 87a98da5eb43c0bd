package secret

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/internal/taskid"
)

const (
	// vaultMagic begins a sealed file, and vaultUse separates its key from all other uses of the node's.
	vaultMagic = "SKPOFFL1"
	vaultUse   = "skep offline secrets 1"
	// maxSealed is the most bytes of a file that are read: more than what a manager sends at once.
	maxSealed = 65 << 20
)

// ErrSealed is returned when a file does not open.
var ErrSealed = errors.New("it does not open: it was changed, is another node's or another task's, or was sealed by a key that this node has no more")

// Vault keeps secrets of tasks on the disk, sealed by the node's key. Make one with OpenVault. It is safe for concurrent use.
type Vault struct {
	// constant after OpenVault
	dir, nodeID string
	key         func() ([]byte, error)

	mu sync.Mutex
	// The fields below are guarded by mu.

	// kept has the versions of what is in each task's file, by ids; nil for a file that this run did not write.
	kept map[string]map[string]uint64
	// sealedBy is the key of the files that this run wrote.
	sealedBy []byte
}

// OpenVault opens or makes the directory of a node's files. Key returns what only this node has, at each call what it is then: when it changes,
// files are sealed anew by the next Keep. It is overwritten after use.
func OpenVault(dir, nodeID string, key func() ([]byte, error)) (*Vault, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of sealed secrets: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list sealed secrets: %w", err)
	}
	v := &Vault{dir: dir, nodeID: nodeID, key: key, kept: map[string]map[string]uint64{}}
	for _, e := range entries {
		v.kept[e.Name()] = nil
	}
	return v, nil
}

// Len returns the number of tasks whose secrets are kept.
func (v *Vault) Len() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.kept)
}

// Keep seals what a holder has of a task's secrets, unless they are kept as they are. When one of them isn't there, what is kept stays.
func (v *Vault) Keep(task string, ids []string, from *Holder) error {
	if err := taskid.Check("task", task); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	key, err := v.derive()
	if err != nil {
		return err
	}
	if !bytes.Equal(key, v.sealedBy) { // all that was kept is to be written again
		v.sealedBy = key
		for id := range v.kept {
			v.kept[id] = nil
		}
	}
	versions := from.versions(ids)
	if versions == nil || maps.Equal(versions, v.kept[task]) && v.kept[task] != nil {
		return nil
	}
	plaintext, err := gather(versions, from)
	defer clear(plaintext)
	if err != nil {
		return err
	}
	sealed, err := v.seal(task, plaintext, key)
	if err == nil {
		err = atomicfile.Write(v.path(task), sealed, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the secrets of task %s: %w", task, err)
	}
	v.kept[task] = versions
	return nil
}

// gather returns secrets as a file has them, for the caller to overwrite. What isn't there any more is left out; of what is another version by now, the
// versions are corrected.
func gather(versions map[string]uint64, from *Holder) ([]byte, error) {
	var out bytes.Buffer
	for id := range versions {
		value, ok := from.Get(id)
		if !ok {
			delete(versions, id)
			continue
		}
		versions[id] = value.Version()
		_, err := protodelim.MarshalTo(&out, &api.Secret{Id: id, Version: value.Version(), Spec: &api.SecretSpec{Data: value.Reveal()}})
		value.Clear()
		if err != nil {
			return out.Bytes(), fmt.Errorf("seal secret %s: %w", id, err)
		}
	}
	return out.Bytes(), nil
}

// Load puts what is kept of a task into a holder, but for what it has in the same or a later version. It returns an error of the file system, fs.ErrNotExist
// among them, or ErrSealed.
func (v *Vault) Load(task string, to *Holder) error {
	if err := taskid.Check("task", task); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	path := v.path(task)
	sealed, err := atomicfile.Read(path, maxSealed)
	if err != nil {
		return fmt.Errorf("open the sealed secrets of task %s: %w", task, err)
	}
	key, err := v.derive()
	if err != nil {
		return err
	}
	plaintext, err := v.open(task, sealed, key)
	if err != nil {
		return fmt.Errorf("the sealed secrets of task %s, in %s: %w", task, path, err)
	}
	defer clear(plaintext)
	for r := bytes.NewReader(plaintext); r.Len() > 0; {
		s := &api.Secret{}
		if err := (protodelim.UnmarshalOptions{MaxSize: maxSealed}).UnmarshalFrom(r, s); err != nil {
			return fmt.Errorf("the sealed secrets of task %s, in %s: %w", task, path, err)
		}
		if has, ok := to.Get(s.GetId()); !ok || has.Version() < s.GetVersion() {
			to.Put(s.GetId(), s.GetVersion(), s.GetSpec().GetData())
		}
		clear(s.GetSpec().GetData())
	}
	return nil
}

// Sweep erases the files of all tasks but those that keep says yes to, and whatever else is in the directory.
func (v *Vault) Sweep(keep func(task string) bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for name := range v.kept {
		if taskid.Check("task", name) == nil && keep(name) {
			continue
		}
		if err := atomicfile.Remove(v.path(name)); err != nil {
			errs = append(errs, fmt.Errorf("erase sealed secrets: %w", err))
			continue
		}
		delete(v.kept, name)
	}
	return errors.Join(errs...)
}

// Clear erases everything.
func (v *Vault) Clear() error { return v.Sweep(func(string) bool { return false }) }

func (v *Vault) path(name string) string { return filepath.Join(v.dir, name) }

// derive makes the key that seals files of what only this node has.
func (v *Vault) derive() ([]byte, error) {
	own, err := v.key()
	if err != nil {
		return nil, fmt.Errorf("the node's own key: %w", err)
	}
	defer clear(own)
	key, err := hkdf.Key(sha256.New, own, nil, vaultUse, chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive the key of sealed secrets: %w", err)
	}
	return key, nil
}

func (v *Vault) seal(task string, plaintext, key []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(vaultMagic)+aead.NonceSize(), len(vaultMagic)+aead.NonceSize()+len(plaintext)+aead.Overhead())
	copy(out, vaultMagic)
	nonce := out[len(vaultMagic):]
	rand.Read(nonce) // never fails, see crypto/rand
	return aead.Seal(out, nonce, plaintext, v.place(task)), nil
}

func (v *Vault) open(task string, sealed, key []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(sealed, []byte(vaultMagic))
	if !ok || len(rest) < aead.NonceSize() {
		return nil, ErrSealed
	}
	plaintext, err := aead.Open(nil, rest[:aead.NonceSize()], rest[aead.NonceSize():], v.place(task))
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

// place is what a file is bound to (S4).
func (v *Vault) place(task string) []byte {
	out := []byte(vaultMagic)
	for _, part := range []string{v.nodeID, task} {
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = append(out, part...)
	}
	return out
}
