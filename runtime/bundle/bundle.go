package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/cgroup"
)

// Errors of this package. Engines compare the texts of the first three.
var (
	// ErrExists is returned when a container with the name is there already.
	ErrExists = errors.New("container with given ID already exists")
	// ErrNotFound is returned when there is no such container.
	ErrNotFound = errors.New("container does not exist")
	// ErrNotRunning is returned when the process to signal has ended.
	ErrNotRunning = errors.New("container not running")
	// ErrState is returned when a container is not in the state that the command needs.
	ErrState = errors.New("container is in another state")
)

// Runtime keeps containers below one directory. It is constant after New.
type Runtime struct {
	root   string
	logger *slog.Logger
}

// New uses the directory root, which it makes when the first container is created. The logger gets what is wrong but
// stops nothing, such as a hook that fails after the fact.
func New(root string, logger *slog.Logger) (*Runtime, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("root directory %q is not an absolute path", root)
	}
	return &Runtime{root: filepath.Clean(root), logger: logger}, nil
}

func (r *Runtime) dir(id string) (string, error) {
	if !cgroup.ValidName(id) {
		return "", fmt.Errorf("container name %.128q is not of at most 128 letters, digits, \"_\", \".\" and \"-\"", id)
	}
	return filepath.Join(r.root, id), nil
}

// Files of a container's directory.
const (
	recordFile = "state.json"
	configFile = "config.json"
	startFile  = "start"
)

// maxConfig bounds a bundle's configuration; engines write some 30 KB.
const maxConfig = 8 << 20

// readJSON reads a file of at most maxConfig bytes.
func readJSON(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", path, err)
	case len(data) > maxConfig:
		return fmt.Errorf("read %s: more than %d bytes", path, maxConfig)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Config reads the configuration of a bundle.
func Config(dir string) (*specs.Spec, error) {
	s := &specs.Spec{}
	err := readJSON(filepath.Join(dir, configFile), s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bundle %s has no %s: %w", dir, configFile, err)
	}
	return s, err
}
