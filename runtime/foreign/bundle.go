package foreign

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/overlay"
	"github.com/skep-io/skep/runtime/spec"
)

// bundle is a directory in the making.
type bundle struct {
	dir    string
	job    Job
	config *specs.Spec // a copy of the job's
	userns int         // with the container's ids, or -1 if it shares the host's
}

// bundleVersion is the version of the specification that the bundle names: it asks for nothing newer, and crun refuses a version that it
// does not know.
const bundleVersion = "1.0.2"

// furnish mounts all that the container is to have, and writes what it is.
func (b *bundle) furnish(driver *overlay.Driver) error {
	gid, _ := b.job.Plan.HostGID(0)
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("skep", b.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("mode=710,gid=%d", gid)); err != nil { // I2
		return fmt.Errorf("mount %s: %w", b.dir, err)
	}
	// Mounts below must not travel: the host shares its own.
	if err := unix.Mount("", b.dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount %s: %w", b.dir, err)
	}
	b.userns = -1
	if b.job.Plan.UserNS() {
		userns, err := launch.NewUserNS(b.job.Plan)
		if err != nil {
			return err
		}
		b.userns = int(userns.Fd())
		defer userns.Close()
	}
	if err := b.mountRoot(driver); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	if err := b.mountSources(driver); err != nil {
		return err
	}
	if err := b.attachMemory(); err != nil {
		return err
	}
	b.config.Version = bundleVersion
	b.config.Linux.CgroupsPath = b.job.Group
	clampLimits(b.config.Process.Rlimits)
	data, err := json.Marshal(b.config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o600)
}

func (b *bundle) mountRoot(driver *overlay.Driver) error {
	fd, err := driver.Mount(launch.RootLayers(b.job.Root, b.job.Plan, b.userns))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	root := filepath.Join(b.dir, "rootfs")
	b.config.Root = &specs.Root{Path: root, Readonly: b.job.Plan.ReadOnlyRoot}
	return attach(fd, root, true)
}

// attach puts a detached mount at a new directory or file.
func attach(fd int, path string, dir bool) error {
	if dir {
		if err := os.Mkdir(path, 0o711); err != nil {
			return err
		}
	} else if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// mountSources replaces the sources of bind mounts by clones with the attributes and ids that the plan gives them, and
// gives all other mounts those that the plan adds.
func (b *bundle) mountSources(driver *overlay.Driver) error {
	if err := passable(filepath.Join(b.dir, "mounts")); err != nil {
		return err
	}
	for i, m := range b.job.Plan.Mounts {
		out := &b.config.Mounts[i]
		if m.Layered() {
			path := filepath.Join(b.dir, "mounts", strconv.Itoa(i))
			if err := b.mountImage(driver, m, path); err != nil {
				return fmt.Errorf("image at /%s: %w", m.Target, err)
			}
			out.Type, out.Source, out.Options = "bind", path, []string{"bind", "rprivate", "ro", "nosuid", "nodev"}
			continue
		}
		if !m.Bind() {
			if m.Attr&unix.MOUNT_ATTR_NOSUID != 0 && !slices.Contains(out.Options, "nosuid") {
				out.Options = append(out.Options, "nosuid")
			}
			continue
		}
		path := filepath.Join(b.dir, "mounts", strconv.Itoa(i))
		if err := b.cloneSource(m, path); err != nil {
			return fmt.Errorf("bind mount %s at /%s: %w", m.Source, m.Target, err)
		}
		out.Type, out.Source = "bind", path
		out.Options = []string{"rbind", "rprivate"} // the clone has its attributes, and keeps them
		if m.Propagation&unix.MS_SLAVE != 0 {
			out.Options[1] = "rslave"
		}
	}
	return nil
}

// mountImage attaches an image's layers, or a directory in them, at a path. Links in an image stay in it.
func (b *bundle) mountImage(driver *overlay.Driver, m spec.Mount, path string) error {
	var rest overlay.Rest
	defer rest.Close()
	fd, err := driver.MountImage(&rest, m.Layers, b.userns, b.job.Plan.MountLabel)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if m.Subdir == "" {
		return attach(fd, path, true)
	}
	if err := attach(fd, path+".whole", true); err != nil {
		return err
	}
	part, err := unix.Openat2(fd, m.Subdir, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("directory %s: %w", m.Subdir, err)
	}
	defer unix.Close(part)
	clone, err := unix.OpenTree(part, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(clone)
	return attach(clone, path, true)
}

func (b *bundle) cloneSource(m spec.Mount, path string) error {
	if m.Propagation&unix.MS_SHARED != 0 {
		return errors.New("mounts that a container makes can be shared with the node by Skep's own launcher only")
	}
	fd, dir, err := launch.OpenBind(m)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if m.IDMap {
		if err := launch.MapIDs(fd, b.userns); err != nil {
			return err
		}
	}
	return attach(fd, path, dir)
}

// attachMemory shows the container's files in memory by bind mounts.
func (b *bundle) attachMemory() error {
	if err := passable(filepath.Join(b.dir, "memory")); err != nil {
		return err
	}
	for i, m := range b.job.Memory {
		path := filepath.Join(b.dir, "memory", strconv.Itoa(i))
		if err := attach(m.FS.FD(), path, true); err != nil {
			return err
		}
		b.config.Mounts = append(b.config.Mounts, specs.Mount{
			Destination: "/" + m.Target, Type: "bind", Source: filepath.Join(path, m.File),
			Options: []string{"bind", "rprivate"}, // it is sealed
		})
	}
	return nil
}

// capSysResource is the capability to raise hard limits.
const capSysResource = 24

// clampLimits lowers resource limits to what may be given, as the supervisor's own launcher does: less is safe.
func clampLimits(limits []specs.POSIXRlimit) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<capSysResource) != 0 {
		return
	}
	for i := range limits {
		l := &limits[i]
		n, ok := spec.Resource(l.Type)
		var have unix.Rlimit
		if ok && unix.Getrlimit(n, &have) == nil {
			l.Hard = min(l.Hard, have.Max)
			l.Soft = min(l.Soft, l.Hard)
		}
	}
}
