package supervisor

import (
	"fmt"
	"path"
	"strings"

	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/memfs"
	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/spec"
)

// maxFiles bounds the in-memory files of a container.
const maxFiles = 512

// defaultFileMode lets every user in the container read, as Docker does for secrets and configs.
const defaultFileMode = 0o444

// memory are the in-memory file systems of a container to be. It owns them; the launched container keeps its own
// hold.
type memory struct {
	id     string // the container's
	mounts []launch.Memory
	dirs   map[string]*memfs.FS // of files that are shown as whole directories
}

func (m *memory) close() {
	for _, mount := range m.mounts {
		mount.FS.Close()
	}
}

// fillMemory writes the files of a request into memory (I3).
func fillMemory(files []protocol.File, id string, plan *spec.Plan) (*memory, error) {
	m := &memory{id: id, dirs: make(map[string]*memfs.FS)}
	if err := m.fill(files, plan); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *memory) fill(files []protocol.File, plan *spec.Plan) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%w: %d files, at most %d are possible", protocol.ErrInvalid, len(files), maxFiles)
	}
	total := int64(0)
	for _, f := range files {
		total += int64(len(f.Data))
	}
	for _, f := range files {
		if err := m.add(f, plan, total); err != nil {
			return fmt.Errorf("file %.128q: %w", path.Join(f.Dir, f.Name), err)
		}
	}
	for _, mount := range m.mounts {
		if err := mount.FS.Seal(); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) add(f protocol.File, plan *spec.Plan, total int64) error {
	dir, err := target(f)
	if err != nil {
		return err
	}
	mode, uid, gid, err := owned(f, plan)
	if err != nil {
		return err
	}
	mem, err := m.in(f, dir, plan, total)
	if err != nil {
		return err
	}
	return mem.Write(f.Name, f.Data, mode, uid, gid)
}

// owned gives the mode and the host ids that a file is to have.
func owned(f protocol.File, plan *spec.Plan) (mode, uid, gid uint32, err error) {
	uid, okUID := plan.HostUID(f.UID)
	gid, okGID := plan.HostGID(f.GID)
	if !okUID || !okGID {
		return 0, 0, 0, fmt.Errorf("%w: owner %d:%d is not mapped in the container", protocol.ErrInvalid, f.UID, f.GID)
	}
	if f.Mode == 0 {
		return defaultFileMode, uid, gid, nil
	}
	return uint32(f.Mode.Perm()), uid, gid, nil
}

// target checks where a file goes and gives its directory, relative to the root.
func target(f protocol.File) (string, error) {
	dir := strings.TrimPrefix(path.Clean("/"+f.Dir), "/")
	first, _, _ := strings.Cut(dir, "/")
	switch {
	case !path.IsAbs(f.Dir) || strings.ContainsRune(f.Dir, 0) || !memfs.PlainName(f.Name):
		return "", fmt.Errorf("%w: not an absolute directory and a plain name", protocol.ErrInvalid)
	case f.Name == memfs.Draft:
		return "", fmt.Errorf("%w: %s is the runtime's own name", protocol.ErrInvalid, f.Name)
	case dir == "" && !f.Single:
		return "", fmt.Errorf("%w: files can't replace the root directory", protocol.ErrInvalid)
	case f.Exec && !f.Single:
		return "", fmt.Errorf("%w: only a single file can be a program", protocol.ErrInvalid)
	case first == "proc" || first == "sys" || first == "dev":
		return "", fmt.Errorf("%w: /%s is the kernel's", protocol.ErrInvalid, first)
	}
	return dir, nil
}

// in gives the file system that a file belongs to.
func (m *memory) in(f protocol.File, dir string, plan *spec.Plan, total int64) (*memfs.FS, error) {
	if mem := m.dirs[dir]; mem != nil && !f.Single {
		return mem, nil
	}
	shown := dir
	if f.Single {
		shown = path.Join(dir, f.Name)
	}
	uid, _ := plan.HostUID(0)
	gid, _ := plan.HostGID(0)
	mem, err := memfs.NewNamed(fileMark(m.id, shown), plan.MountLabel, total, 0o755, uid, gid)
	if err != nil {
		return nil, err
	}
	if f.Single {
		if f.Exec {
			if err := mem.AllowExec(); err != nil {
				mem.Close()
				return nil, err
			}
		}
		m.mounts = append(m.mounts, launch.Memory{Target: shown, File: f.Name, FS: mem})
		return mem, nil
	}
	m.mounts = append(m.mounts, launch.Memory{Target: dir, FS: mem})
	m.dirs[dir] = mem
	return mem, nil
}
