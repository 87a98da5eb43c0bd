package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/quota"
)

const (
	recordFile    = "container.json"
	recordVersion = 1
	// maxRecord is the most bytes of a record that are read, and thus written.
	maxRecord = 1 << 20
)

// The names within a container's directory; see the package comment.
const (
	upperDir    = "upper"
	workDir     = "work"
	logFileName = "log.json"
)

// record is what must be known of a container after a restart of the daemon.
type record struct {
	Version int `json:"version"`
	// Image is the digest of its manifest, for the lease on its layers.
	Image string `json:"image"`
	// Mounted are the digests of the images that it has mounted.
	Mounted []string `json:"mounted,omitempty"`
	// IDBase is the first id of its range.
	IDBase uint32 `json:"id_base"`
	// Boot names the run of the machine in which it was prepared; empty in records of earlier versions.
	Boot string `json:"boot,omitempty"`
	// Checked says that the container's health is checked.
	Checked bool `json:"checked,omitempty"`
	// Bounded says that the writable layer is a project of the file system, with the number IDBase.
	Bounded bool `json:"bounded,omitempty"`
	// Process and Mount are its labels of SELinux, which no other container may have; empty where that is off.
	Process string `json:"process_label,omitempty"`
	Mount   string `json:"mount_label,omitempty"`
	// Given says what is in the files that are written again when their values change, by their paths.
	Given map[string]given `json:"given,omitempty"`
	// Released says that everything but the log is gone.
	Released bool `json:"released,omitempty"`
}

// parseRecord reads a record.
func parseRecord(data []byte) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, err
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("version %d, want %d", r.Version, recordVersion)
	}
	return r, nil
}

// checkSize returns an error if a record is too big. What makes it grow is the user's.
func checkSize(data []byte) error {
	if len(data) > maxRecord {
		return fault.New(fault.Invalid, "%s has more than %d bytes: the container has too many files whose values can change while it runs, or images mounted",
			recordFile, maxRecord)
	}
	return nil
}

// readRecord returns the record in a container's directory, or fs.ErrNotExist.
func readRecord(dir string) (record, error) {
	f, err := os.Open(filepath.Join(dir, recordFile))
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return record{}, err
	}
	if err := checkSize(data); err != nil {
		return record{}, err
	}
	return parseRecord(data)
}

// writeRecord replaces the record all at once. It is not synced: a crash of the machine ends the container too, and what is left
// of it is removed then.
func writeRecord(dir string, r record) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = checkSize(data)
	}
	if err != nil {
		return err
	}
	return atomicfile.Replace(filepath.Join(dir, recordFile), data, 0o600)
}

// makeDirectories makes a container's directory with an empty writable layer that belongs to the container's root.
func makeDirectories(dir string, idBase uint32) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{upperDir, workDir} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o755)); err != nil {
			return err
		}
		// The root of the merged file system takes its owner from the upper directory.
		if err := os.Chown(path, int(idBase), int(idBase)); err != nil {
			return err
		}
	}
	return nil
}

// boundLayer bounds what can be written in an empty writable layer. The first id of the container is the number of the layer's project: no two
// containers have the same, and others who use projects on this file system begin with small numbers.
func boundLayer(dir string, idBase uint32, size int64) error {
	err := quota.Bound(idBase, size, filepath.Join(dir, upperDir), filepath.Join(dir, workDir))
	if errors.Is(err, quota.ErrUnsupported) {
		return fault.New(fault.Precondition, "storage size of %d bytes: %w", size, err)
	}
	return err
}

// removeLayer removes the writable layer, and keeps the log.
func removeLayer(dir string) error {
	return errors.Join(os.RemoveAll(filepath.Join(dir, upperDir)), os.RemoveAll(filepath.Join(dir, workDir)))
}

// directoriesIn returns the names of the containers' directories.
func directoriesIn(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}
