package volume

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/volumename"
	"github.com/skep-io/skep/runtime/lsm"
)

const (
	// recordFile has what is known of a volume that was made by name, and not by a task.
	recordFile = "volume.json"
	// removedPrefix begins the names of what is being removed: no volume has such a name.
	removedPrefix = ".removed-"
	// maxRecord bounds a record: labels are bounded by the managers.
	maxRecord = 1 << 20
	// maxVolumes is how many a node may have for another one to be made by name.
	maxVolumes = 1024
)

// Volume is what is known of a volume.
type Volume struct {
	Name      string
	CreatedAt time.Time
	Labels    map[string]string
	// Dir is the directory that containers see.
	Dir string
}

// record is the layout of recordFile.
type record struct {
	CreatedAt time.Time
	Labels    map[string]string `json:",omitempty"`
}

func checkName(name string) error {
	if !volumename.Valid(name) {
		return fault.New(fault.Invalid, "volume name %.128q is not 2 to 128 letters, digits, _, . and -", name) // V3
	}
	return nil
}

// Create makes an empty volume. One that is there already stays as it is.
func (s *Store) Create(ctx context.Context, name string, labels map[string]string) (Volume, error) {
	if err := checkName(name); err != nil {
		return Volume{}, err
	}
	done, err := s.claim(ctx, name)
	if err != nil {
		return Volume{}, err
	}
	defer done()
	dir := filepath.Join(s.dir, name)
	if there, err := exists(filepath.Join(dir, dataDir)); err != nil || there {
		return s.read(name, err)
	}
	names, err := s.Names()
	if err == nil && len(names) >= maxVolumes {
		err = fault.New(fault.Exhausted, "this node has %d volumes, the most that can be made: remove some", len(names))
	}
	if err != nil {
		return Volume{}, err
	}
	text, err := json.Marshal(record{time.Now().UTC(), labels})
	if err != nil {
		return Volume{}, fmt.Errorf("make volume %s: %w", name, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return Volume{}, fmt.Errorf("make volume %s: %w", name, err)
	}
	// The record comes first: a volume is there when its data directory is.
	if err := atomicfile.Write(filepath.Join(dir, recordFile), text, 0o600); err != nil {
		return Volume{}, fmt.Errorf("make volume %s: %w", name, err)
	}
	if err := makeForAnyTask(dir); err != nil {
		return Volume{}, fmt.Errorf("make volume %s: %w", name, err)
	}
	s.changed()
	return s.read(name, nil)
}

// makeForAnyTask makes the directories of a volume, with the label that all containers share where SELinux has labels for them.
func makeForAnyTask(dir string) error {
	var labels lsm.Labels
	if lsm.SELinux() {
		var err error
		if labels, err = lsm.NewLabels(nil); err != nil {
			return err
		}
		defer lsm.ReleaseLabel(labels.Process)
	}
	return makeDirectories(dir, filepath.Join(dir, dataDir), labels)
}

// read returns what is known of a volume that is there, unless there is an error already.
func (s *Store) read(name string, err error) (Volume, error) {
	v := Volume{Name: name, Dir: filepath.Join(s.dir, name, dataDir)}
	if err != nil {
		return v, fmt.Errorf("look at volume %s: %w", name, err)
	}
	info, err := os.Lstat(filepath.Dir(v.Dir))
	if err != nil {
		return v, fmt.Errorf("look at volume %s: %w", name, err)
	}
	v.CreatedAt = info.ModTime() // of a volume that a task made, if nothing better is known
	text, err := os.ReadFile(filepath.Join(s.dir, name, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	var r record
	switch {
	case err != nil:
	case len(text) > maxRecord:
		err = fmt.Errorf("%s has %d bytes, more than %d", recordFile, len(text), maxRecord)
	default:
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return v, fmt.Errorf("read what is known of volume %s: %w", name, err)
	}
	v.CreatedAt, v.Labels = r.CreatedAt, r.Labels
	return v, nil
}

// Names returns the names of all volumes, in order.
func (s *Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var names []string
	for _, e := range entries {
		if there, err := exists(filepath.Join(s.dir, e.Name(), dataDir)); err == nil && there && volumename.Valid(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Get returns what is known of a volume, or fault.NotFound.
func (s *Store) Get(name string) (Volume, error) {
	if err := checkName(name); err != nil {
		return Volume{}, err
	}
	err := s.noSuch(name)
	if fault.KindOf(err) == fault.NotFound {
		return Volume{}, err
	}
	return s.read(name, err)
}

// noSuch returns fault.NotFound if there is no such volume, or why that is not known.
func (s *Store) noSuch(name string) error {
	there, err := exists(filepath.Join(s.dir, name, dataDir))
	if err == nil && !there {
		return fault.New(fault.NotFound, "no such volume: %s", name)
	}
	return err
}

// Remove removes a volume and all that is in it. It asks mayGo once nobody can make the volume ready any more, and does nothing when
// that returns an error. A volume that is not there is fault.NotFound.
func (s *Store) Remove(ctx context.Context, name string, mayGo func() error) error {
	away, err := s.takeAway(ctx, name, mayGo)
	if err != nil {
		return err
	}
	s.changed()
	if err := os.RemoveAll(away); err != nil {
		return fmt.Errorf("remove what was in volume %s: %w", name, err)
	}
	return nil
}

// takeAway gives a volume another name, by which it is no volume any more (V4).
func (s *Store) takeAway(ctx context.Context, name string, mayGo func() error) (away string, err error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	done, err := s.claim(ctx, name)
	if err != nil {
		return "", err
	}
	defer done()
	if err := s.noSuch(name); fault.KindOf(err) == fault.NotFound {
		return "", err // a damaged one can go
	}
	if err := mayGo(); err != nil {
		return "", err
	}
	away = filepath.Join(s.dir, removedPrefix+rand.Text())
	if err := os.Rename(filepath.Join(s.dir, name), away); err != nil {
		return "", fmt.Errorf("remove volume %s: %w", name, err)
	}
	return away, nil
}

// Clean removes what the removal of volumes left that the end of the daemon cut short.
func (s *Store) Clean() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("clean volumes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removedPrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
