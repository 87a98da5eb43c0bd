package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/launch"
)

// recordVersion is the version of the file's format.
const recordVersion = 1

// record is what create remembers of a container.
type record struct {
	Version int
	Bundle  string
	Rootfs  string
	Created time.Time
	Pid     int
	Started uint64 // of the process, see launch.StartTime
	Group   string // below the top of each hierarchy
	Steps   []string
}

// container is one that was created. Its configuration is the one that it was created with.
type container struct {
	id, dir string
	record  record
	config  *specs.Spec
	opened  *cgroup.Group // or nil, until it is needed
}

func (r *Runtime) find(id string) (*container, error) {
	dir, err := r.dir(id)
	if err != nil {
		return nil, err
	}
	c := &container{id: id, dir: dir, config: &specs.Spec{}}
	err = readJSON(filepath.Join(dir, recordFile), &c.record)
	if errors.Is(err, fs.ErrNotExist) { // also while it is being created
		return nil, fmt.Errorf("container %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if c.record.Version != recordVersion {
		return nil, fmt.Errorf("container %s was created by another version of this runtime: format %d, not %d", id,
			c.record.Version, recordVersion)
	}
	return c, readJSON(filepath.Join(dir, configFile), c.config)
}

// save writes the record and the configuration.
func (c *container) save() error {
	for name, v := range map[string]any{configFile: c.config, recordFile: c.record} {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		temporary := filepath.Join(c.dir, name+".new")
		if err := os.WriteFile(temporary, data, 0o600); err != nil {
			return err
		}
		if err := os.Rename(temporary, filepath.Join(c.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// State is what the command of that name prints: the state of the specification, and what engines expect beside it.
type State struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

// State tells how a container is. Owner is always empty: containers belong to root.
func (r *Runtime) State(id string) (State, error) {
	c, err := r.find(id)
	if err != nil {
		return State{}, err
	}
	return State{State: c.state(c.status()), Rootfs: c.record.Rootfs, Created: c.record.Created}, nil
}

// state is the specification's state, as hooks get it.
func (c *container) state(status specs.ContainerState) specs.State {
	s := specs.State{
		Version: specs.Version, ID: c.id, Status: status, Bundle: c.record.Bundle, Annotations: c.config.Annotations,
	}
	if status != specs.StateStopped {
		s.Pid = c.record.Pid
	}
	return s
}

// status asks the kernel (I3).
func (c *container) status() specs.ContainerState {
	switch {
	case !c.alive():
		return specs.StateStopped
	case c.waits():
		return specs.StateCreated
	case c.frozen():
		return statePaused
	}
	return specs.StateRunning
}

// waits reports whether the container was not started yet.
func (c *container) waits() bool {
	_, err := os.Lstat(filepath.Join(c.dir, startFile))
	return err == nil
}

// alive reports whether the process runs (I2). One that only waits for its parent to notice its end does not.
func (c *container) alive() bool {
	started, err := launch.StartTime(c.record.Pid)
	if err != nil || started != c.record.Started {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.record.Pid))
	if err != nil {
		return false
	}
	i := strings.LastIndexByte(string(text), ')') // the name may contain anything
	fields := strings.Fields(string(text)[i+1:])
	return len(fields) > 0 && fields[0] != "Z" && fields[0] != "X"
}

// group is the container's control group, which is looked for once: finding the hierarchies takes reading all mounts.
func (c *container) group() (*cgroup.Group, error) {
	if c.opened != nil {
		return c.opened, nil
	}
	group, err := openGroup(c.record.Group)
	if err == nil {
		c.opened = group
	}
	return group, err
}

func openGroup(path string) (*cgroup.Group, error) {
	tree, err := cgroup.OpenAt(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return tree.Group(filepath.Base(path))
}
