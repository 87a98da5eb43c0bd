package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/vfs"
)

const (
	filePerm = 0o600
	dirPerm  = 0o700
	// A scheduled backup is called skep-CLUSTER-TIME-INDEX.skepbak, so that names are in the order of time.
	prefix     = "skep-"
	suffix     = ".skepbak"
	timeFormat = "20060102T150405Z"
)

// fileName names the scheduled backup of a state that is taken at a time.
func fileName(state *api.StoreSnapshot, now time.Time) string {
	return fmt.Sprintf("%s%s-%s-%d%s", prefix, state.GetClusterId(), now.UTC().Format(timeFormat), state.GetIndex(), suffix)
}

// saved is a scheduled backup that is on the disk.
type saved struct {
	path   string
	header *api.BackupHeader
	// problems are what Check says of it. With any it is kept all the same: they are the store's own, not the file's.
	problems []string
}

// save writes a backup into a directory, and verifies the file as it lies there. One that can't be read back is removed.
func (s *Scheduler) save(ctx context.Context, dir string) (saved, error) {
	if err := s.prepare(dir); err != nil {
		return saved{}, err
	}
	state, err := take(ctx, s.cfg.Store)
	if err != nil {
		return saved{}, err
	}
	secret, err := ownSecret(state)
	if err != nil {
		return saved{}, err
	}
	now := time.Now()
	b := saved{path: filepath.Join(dir, fileName(state, now))}
	err = vfs.WriteStream(s.cfg.FS, b.path, filePerm, func(w io.Writer) (err error) {
		b.header, err = Write(w, state, secret, now, s.cfg.Version)
		return err
	})
	if err != nil {
		return saved{}, err
	}
	if b.problems, err = s.verify(b.path, secret); err != nil {
		return saved{}, errors.Join(fmt.Errorf("verify %s: %w", b.path, err), s.cfg.FS.Remove(b.path))
	}
	return b, nil
}

// prepare makes the directory of backups, or checks the one that is there: whoever may write into it could make root write elsewhere,
// and remove what is to be kept.
func (s *Scheduler) prepare(dir string) error {
	if err := s.cfg.FS.MkdirAll(dir, dirPerm); err != nil {
		return fmt.Errorf("make the directory of backups: %w", err)
	}
	info, err := s.cfg.FS.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the directory of backups: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("others may write into the directory of backups %s (%v): run: chmod go-w %s, or name another one", dir, perm, dir)
	}
	return nil
}

// verify checks a file to its end.
func (s *Scheduler) verify(path string, secret Secret) (problems []string, err error) {
	f, err := s.cfg.FS.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, err
	}
	if err := r.Unlock(secret); err != nil {
		return nil, err
	}
	state, err := r.State()
	if err != nil {
		return nil, err
	}
	return Check(r.Header(), state), nil
}

// prune removes the oldest backups of a cluster in a directory, all but some, and what interrupted writes left. The newest, which is
// named, stays whatever the clock said when the others were made. (B5)
func (s *Scheduler) prune(dir, clusterID, newest string, keep int) error {
	names, err := s.cfg.FS.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the directory of backups: %w", err)
	}
	var old, remove []string
	for _, name := range names {
		switch {
		case !strings.HasPrefix(name, prefix+clusterID+"-") || name == newest:
		case strings.HasSuffix(name, suffix):
			old = append(old, name)
		case vfs.IsTemp(name):
			remove = append(remove, name)
		}
	}
	slices.Sort(old)
	remove = append(remove, old[:max(0, len(old)-(keep-1))]...)
	var failed []error
	for _, name := range remove {
		if err := s.cfg.FS.Remove(filepath.Join(dir, name)); err != nil {
			failed = append(failed, fmt.Errorf("remove an old backup: %w", err))
		}
	}
	return errors.Join(failed...)
}
