package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// Errors that a caller can branch on.
var (
	// ErrFormat is returned when the directory was written by another version.
	ErrFormat = errors.New("data directory of another version")
	// ErrNone is returned when there is no store in the directory.
	ErrNone = errors.New("no store here")
	// ErrCorrupt is returned when something on disk is damaged, missing or was tampered with; the error is a *CorruptError.
	ErrCorrupt = errors.New("damaged or tampered with")
)

// CorruptError names what can't be trusted. It matches ErrCorrupt.
type CorruptError struct {
	// What is damaged: "log entry", "log segment", "snapshot", "file FORMAT".
	What string
	// Index of the entry or snapshot, number of the segment, or 0.
	Index uint64
	// Err is the cause, or nil.
	Err error
}

// Error says what is damaged, and what to do.
func (e *CorruptError) Error() string {
	text := e.What
	if e.Index > 0 {
		text = fmt.Sprintf("%s %d", e.What, e.Index)
	}
	text += " is " + ErrCorrupt.Error()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + "; this manager stops: remove it from the swarm, clear its data directory and join it again, or restore a backup"
}

// Is makes the error match ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// Version is the format that this package writes. It reads version 1, too, and brings it to this one.
const Version = 2

const (
	formatFile     = "FORMAT"
	incompleteFile = "INCOMPLETE"
	ringFile       = "keys"
	spareFile      = "spare.tmp" // a segment that is kept ready; its name says that it may go
	filePerm       = 0o600
	dirPerm        = 0o700
	maxFormat      = 1024
)

func formatText(cluster string, version int) string {
	return fmt.Sprintf("skep store %d\ncluster %s\n", version, cluster)
}

// readFormat returns the cluster that the directory belongs to, and the version that it is in.
func readFormat(fsys vfs.FS, dir string) (cluster string, version int, err error) {
	b, err := vfs.ReadFile(fsys, filepath.Join(dir, formatFile), maxFormat)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return "", 0, fmt.Errorf("read format of %s: %w", dir, err)
	}
	head, rest, _ := strings.Cut(string(b), "\n")
	number, ok := strings.CutPrefix(head, "skep store ")
	if version, err = strconv.Atoi(number); !ok || err != nil || version < 1 || version > Version {
		return "", 0, fmt.Errorf("%w: %s says %q, this program reads %q: start the version of skep that wrote it",
			ErrFormat, filepath.Join(dir, formatFile), head, fmt.Sprint("skep store ", Version))
	}
	cluster, ok = strings.CutPrefix(strings.TrimSuffix(rest, "\n"), "cluster ")
	if !ok || formatText(cluster, version) != string(b) {
		return "", 0, &CorruptError{What: "file " + formatFile}
	}
	return cluster, version, nil
}

// Inspect says, without any key, which cluster the store in dir belongs to and where its KEK comes from. It returns ErrNone
// when there is no store, or only a half-made one.
func Inspect(fsys vfs.FS, dir string) (cluster string, source seal.Source, err error) {
	cluster, _, err = readFormat(fsys, dir)
	if err != nil {
		return "", 0, err
	}
	source, err = seal.RingSource(fsys, filepath.Join(dir, ringFile))
	return cluster, source, err
}

// begin prepares an empty directory, clearing what an interrupted Create left.
func begin(fsys vfs.FS, dir string) error {
	if err := fsys.MkdirAll(dir, dirPerm); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	ours, incomplete := []string{}, false
	for _, name := range names {
		switch {
		case name == formatFile:
			return fmt.Errorf("%s holds a store already: %w", dir, fs.ErrExist)
		case name == incompleteFile:
			incomplete = true
		case name == ringFile, name == databaseFile, name == spareFile, isSnapshot(name), isSegment(name):
			ours = append(ours, name)
		}
	}
	if len(ours) > 0 && !incomplete {
		return &CorruptError{What: "file " + formatFile, Err: fs.ErrNotExist}
	}
	if err := vfs.WriteFile(fsys, filepath.Join(dir, incompleteFile), filePerm, nil); err != nil {
		return err
	}
	for _, name := range ours {
		if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("clear %s: %w", dir, err)
		}
	}
	return nil
}

// complete makes the directory a store.
func complete(fsys vfs.FS, dir, cluster string) error {
	if err := vfs.WriteFile(fsys, filepath.Join(dir, formatFile), filePerm, []byte(formatText(cluster, Version))); err != nil {
		return err
	}
	return fsys.Remove(filepath.Join(dir, incompleteFile))
}
