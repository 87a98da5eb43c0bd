package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/skep-io/skep/agent/identity"
	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/internal/fault"
)

// dataVersion is the layout of the data directory. Another version is refused: nothing is migrated by accident.
const dataVersion = "1"

// errMembership is returned when the membership can't be read.
var errMembership = errors.New("damaged: leave the swarm with `skep swarm leave --force` and join again")

// membershipFile is absent while the node is in no swarm.
const membershipFile = "swarm.json"

// disk is the data directory:
//
//	version              the layout's version
//	swarm.json           membership: absent while the node is in no swarm
//	joining.json         the key that waits for a person to let it into a swarm
//	certificates/        the node's identity
//	raft/                the cluster store, on managers
//	raft.former/         the store that a rejoin set aside, until the manager has caught up
//	store.key            the node's own key, which seals it while the swarm has no unlock key;
//	store.tpm2.cred      or the same, for this machine's TPM2 to open;
//	store.host.cred      or the same, for systemd's key of this host to open
//	backups/             scheduled backups, unless the swarm wants them elsewhere; they stay when the node leaves
//	agent/               tasks and their last status
//	network/             the addresses of containers
//	containers/          what belongs to one container each
//	images/              the image store
//	runtime/             the supervisor's journal and socket
type disk struct{ dir string }

// membership is what the node must know to come back after a restart.
type membership struct {
	ListenAddress    string `json:"listen_address"`
	AdvertiseAddress string `json:"advertise_address"`
	// AdvertiseOwn says that the advertised address was one of this machine's, and so follows when the machine gets another one.
	AdvertiseOwn bool `json:"advertise_own,omitempty"`
	// Managers are host:port of managers that this node knew last.
	Managers []string `json:"managers"`
	// Leaving says that the node is on its way out: after a crash it goes on with that.
	Leaving bool `json:"leaving,omitempty"`
}

// openDisk makes the data directory, or checks the one that is there.
func openDisk(dir string) (disk, error) {
	d := disk{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return disk{}, fmt.Errorf("make the data directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return disk{}, fmt.Errorf("protect the data directory: %w", err)
	}
	name := d.path("version")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d, d.adopt(name)
	}
	if err != nil {
		return disk{}, fmt.Errorf("read the version of the data directory: %w", err)
	}
	if version := strings.TrimSpace(string(text)); version != dataVersion {
		return disk{}, fault.New(fault.Precondition,
			"data directory %s has layout version %q and this skep reads version %s: run the skep that made it, or give another --data-dir",
			dir, version, dataVersion)
	}
	return d, nil
}

// adopt marks a new data directory. One that holds files of somebody else is refused.
func (d disk) adopt(versionFile string) error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") && entry.Name() != "lost+found" {
			return fault.New(fault.Precondition,
				"data directory %s holds %s but no version file: it is not skep's; give an empty one with --data-dir", d.dir, entry.Name())
		}
	}
	return atomicfile.Write(versionFile, []byte(dataVersion+"\n"), 0o600)
}

func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

// membership returns how the node is in a swarm; ok is false when it is in none.
func (d disk) membership() (m membership, ok bool, err error) {
	text, err := os.ReadFile(d.path(membershipFile))
	if errors.Is(err, fs.ErrNotExist) {
		return membership{}, false, nil
	}
	if err != nil {
		return membership{}, false, fmt.Errorf("read the membership: %w", err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return membership{}, false, fmt.Errorf("%s is %w: %w", d.path(membershipFile), errMembership, err)
	}
	return m, true, nil
}

func (d disk) saveMembership(m membership) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(d.path(membershipFile), append(text, '\n'), 0o600)
}

// forget removes all that the node has of its swarm. The membership goes first, durably: without it nobody looks at the rest, which
// after a crash goes at the next start.
func (d disk) forget() error {
	if err := atomicfile.Remove(d.path(membershipFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the swarm: %w", err)
	}
	var errs []error
	for _, name := range []string{"certificates", storeDir, formerStoreDir, keyFile, tpm2KeyFile, hostKeyFile, "agent", "containers", "network"} {
		if err := os.RemoveAll(d.path(name)); err != nil {
			errs = append(errs, fmt.Errorf("forget the swarm: %w", err))
		}
	}
	if err := identity.RemoveAll(d.path("identity")); err != nil { // mounts, too
		errs = append(errs, fmt.Errorf("forget the swarm: %w", err))
	}
	return errors.Join(errs...)
}

// setStoreAside makes place for a new store: the present one, if there is one, is kept beside it, and with it a key file that can't
// be read. When an earlier try set one aside, that one is kept.
func (d disk) setStoreAside(keyFileToo bool) error {
	former := d.path(formerStoreDir)
	_, err := os.Stat(former)
	switch {
	case err == nil:
		err = os.RemoveAll(d.path(storeDir))
	case errors.Is(err, fs.ErrNotExist):
		if err = atomicfile.Move(d.path(storeDir), former); errors.Is(err, fs.ErrNotExist) {
			err = os.Mkdir(former, 0o700)
		}
	}
	if err != nil || !keyFileToo {
		return err
	}
	return atomicfile.Move(d.path(keyFile), filepath.Join(former, keyFile))
}

// removeFormerStore removes what setStoreAside kept, if anything.
func (d disk) removeFormerStore() error {
	if err := os.RemoveAll(d.path(formerStoreDir)); err != nil {
		return fmt.Errorf("remove the former store: %w", err)
	}
	return nil
}
