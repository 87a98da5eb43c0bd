package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/skep-io/skep/runtime/lsm"
)

const (
	dataDir  = "data"
	freshDir = "data.new"
	fillMark = "fill"
)

// Store has the volumes of a node. Make one with New.
type Store struct {
	// constant after New
	dir     string
	changed func()

	mu sync.Mutex
	// busy has a channel for each volume that is just made ready, which is closed when it is. Guarded by mu.
	busy map[string]chan struct{}
}

// New returns the volumes below a directory, which is made. Changed is called when one came or went; nil is nobody.
func New(dir string, changed func()) (*Store, error) {
	if changed == nil {
		changed = func() {}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of volumes: %w", err)
	}
	return &Store{dir: dir, changed: changed, busy: map[string]chan struct{}{}}, nil
}

// Provide returns the directory of a volume, making it if there is none. A volume that is empty is filled by fill first, unless
// that is nil; fill may find what an earlier call that was cut short left. Provide waits for another one that fills the same volume.
func (s *Store) Provide(ctx context.Context, name string, labels lsm.Labels, fill func(ctx context.Context, volume *os.Root) error) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	done, err := s.claim(ctx, name) // V2
	if err != nil {
		return "", err
	}
	defer done()
	dir := filepath.Join(s.dir, name)
	data := filepath.Join(dir, dataDir)
	there, err := exists(data)
	if err == nil && !there {
		err = makeDirectories(dir, data, labels)
	}
	if err != nil {
		return "", fmt.Errorf("make volume %s: %w", name, err)
	}
	if !there {
		s.changed()
	}
	if fill == nil {
		return data, nil
	}
	if err := fillOnce(ctx, data, filepath.Join(dir, fillMark), fill); err != nil {
		return "", fmt.Errorf("fill volume %s: %w", name, err)
	}
	return data, nil
}

// claim waits until nobody else makes the volume ready.
func (s *Store) claim(ctx context.Context, name string) (done func(), err error) {
	for {
		s.mu.Lock()
		other, taken := s.busy[name]
		if !taken {
			mine := make(chan struct{})
			s.busy[name] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.busy, name)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func makeDirectories(dir, data string, labels lsm.Labels) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// It gets its name with its label: the end of the daemon between the two would leave a volume that no container may use.
	fresh := filepath.Join(dir, freshDir)
	if err := os.Mkdir(fresh, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if labels.Mount != "" { // as long as it is empty, and no container's: nothing in it could lead elsewhere
		if err := lsm.ShareFile(fresh, labels); err != nil {
			return err
		}
	}
	return os.Rename(fresh, data)
}

// fillOnce fills a volume that is empty, or was being filled when the daemon ended.
func fillOnce(ctx context.Context, data, mark string, fill func(context.Context, *os.Root) error) error {
	marked, err := exists(mark)
	if err != nil {
		return err
	}
	if !marked {
		if empty, err := isEmpty(data); err != nil || !empty {
			return err
		}
		f, err := os.OpenFile(mark, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(data)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := fill(ctx, root); err != nil {
		return err
	}
	return os.Remove(mark)
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func isEmpty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}
