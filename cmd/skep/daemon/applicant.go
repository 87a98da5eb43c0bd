package daemon

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/store/seal"
)

// applicantFile is there while the node waits for a person to let it into a swarm.
const applicantFile = "joining.json"

// applicant is a key with which this machine asked to join, and is no member yet. A join that waits for approval, or that failed half
// way, goes on with the same key when it is tried again with the same token: so the machine is one node, and one use of its token.
type applicant struct {
	hash token.SecretHash
	key  *ecdsa.PrivateKey
	// waits says that a person has to let it in.
	waits bool
}

// storedApplicant is the form on the disk.
type storedApplicant struct {
	// SecretHash is that of the join token.
	SecretHash []byte `json:"secret_hash"`
	// Key is PKCS #8.
	Key []byte `json:"key"`
}

// apply returns the key to join with by a token: that of an earlier try, or a fresh one.
func (d *Daemon) apply(secret token.Token) (*ecdsa.PrivateKey, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hash := secret.SecretHash()
	if d.applicant != nil && d.applicant.hash.Equal(hash[:]) {
		return d.applicant.key, nil
	}
	key, err := ca.NewKey()
	if err != nil {
		return nil, err
	}
	d.applicant = &applicant{hash: hash, key: key}
	return key, nil
}

// keepWaiting notes that the applicant waits for a person, so that it goes on waiting after a restart. Where the node's key would not
// lie in clear on the disk (see holdersOf), neither does this one: there a restart makes it another applicant.
func (d *Daemon) keepWaiting(source seal.Source) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.applicant == nil || d.applicant.waits {
		return nil
	}
	d.applicant.waits = true
	if source != seal.SourceKeyFile {
		return nil
	}
	return d.disk.saveApplicant(d.applicant)
}

// forgetApplicant ends what an earlier try began, and reports whether there was a try that waits.
func (d *Daemon) forgetApplicant() (waited bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	waited = d.applicant != nil && d.applicant.waits
	d.applicant = nil
	return waited, d.disk.removeApplicant()
}

// endApplication forgets the applicant of a machine that is a member now. What is left on the disk goes at the next start.
func (d *Daemon) endApplication() {
	if _, err := d.forgetApplicant(); err != nil {
		d.logger.Warn("a former join leaves something behind", "error", err)
	}
}

// resumeApplicant goes on with what a restart interrupted. What can't be read is dropped: the next try is another applicant.
func (d *Daemon) resumeApplicant() {
	found, err := d.disk.readApplicant()
	if err != nil {
		d.logger.Warn("can't go on with the join that waited for approval: join anew", "error", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applicant = found
}

func (d disk) saveApplicant(a *applicant) error {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("keep the key of a join: %w", err)
	}
	text, err := json.Marshal(storedApplicant{SecretHash: a.hash[:], Key: der})
	if err != nil {
		return fmt.Errorf("keep the key of a join: %w", err)
	}
	return atomicfile.Write(d.path(applicantFile), text, 0o600)
}

// readApplicant returns the applicant that waits, or nil.
func (d disk) readApplicant() (*applicant, error) {
	text, err := os.ReadFile(d.path(applicantFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of a join: %w", err)
	}
	var stored storedApplicant
	if err := json.Unmarshal(text, &stored); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", d.path(applicantFile), err)
	}
	key, err := ca.ParseKey(stored.Key)
	if err != nil || len(stored.SecretHash) != len(token.SecretHash{}) {
		return nil, fmt.Errorf("%s is damaged", d.path(applicantFile))
	}
	return &applicant{hash: token.SecretHash(stored.SecretHash), key: key, waits: true}, nil
}

func (d disk) removeApplicant() error {
	if err := atomicfile.Remove(d.path(applicantFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the key of a join: %w", err)
	}
	return nil
}
