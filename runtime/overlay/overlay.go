package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/memfs"
)

// Errors of this package.
var (
	// ErrLayers is returned when a description of layers is incomplete.
	ErrLayers = errors.New("layers not usable")
	// ErrUnsupported is returned when the kernel can't mount layers in either way.
	ErrUnsupported = errors.New("overlay mounts with id-mapped layers are not available")
)

// Layers describe a root file system.
type Layers struct {
	// Lower are the directories of the image's layers, the topmost first. At least one.
	Lower []string
	// Upper and Work are the writable layer and the directory that overlayfs needs beside it, on the same file
	// system. Upper becomes the container root's, and is not worth keeping after a crash of the machine (I5). Both
	// empty: changes go to memory, which is only meant for the mount points of a container with a read-only root.
	Upper, Work string
	// UserNS is a descriptor of the container's user namespace, or -1 to leave ids as they are.
	UserNS int
	// RootUID and RootGID are the host's ids of the container's root.
	RootUID, RootGID uint32
	// Suid leaves set-user-id bits in force.
	Suid bool
	// Label is the label of SELinux that all files have, or "".
	Label string
}

// maxLayers is below the kernel's limit of 500 and above what registries accept.
const maxLayers = 256

func (l Layers) check() error {
	if len(l.Lower) == 0 || len(l.Lower) > maxLayers {
		return fmt.Errorf("%w: %d layers, 1 to %d are possible", ErrLayers, len(l.Lower), maxLayers)
	}
	if (l.Upper == "") != (l.Work == "") {
		return fmt.Errorf("%w: a writable layer needs a work directory and the reverse", ErrLayers)
	}
	return nil
}

// scratchSize bounds the layer in memory of containers without a writable one.
const scratchSize = 1 << 20

// Driver mounts layers in the way that the kernel offers. It is constant after Probe.
type Driver struct {
	dir    string // private directory for attaching
	byPath bool
}

// Probe finds out how the kernel takes layers. The directory dir must exist, on a disk and for this purpose alone.
func Probe(dir string) (*Driver, error) {
	left, err := filepath.Glob(filepath.Join(dir, attachPrefix+"*")) // by a process that was killed
	if err != nil {
		return nil, fmt.Errorf("probe overlay mounts: %w", err)
	}
	for _, at := range left {
		if err := takeDown(at); err != nil {
			return nil, fmt.Errorf("clean up %s: %w", at, err)
		}
	}
	probe, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return nil, fmt.Errorf("probe overlay mounts: %w", err)
	}
	defer os.Remove(probe)
	var failed []error
	for _, byPath := range []bool{false, true} {
		d := &Driver{dir: dir, byPath: byPath}
		fd, err := d.Mount(Layers{Lower: []string{probe}, UserNS: -1})
		if err == nil {
			unix.Close(fd)
			return d, nil
		}
		failed = append(failed, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrUnsupported, errors.Join(failed...))
}

// Rest are the mounts of single layers, which a mount of all of them was made from and does not need any more. To close them takes the kernel
// a while, for which it waits until all processors have passed through it.
type Rest struct{ made []*stack }

// Close closes them. It may be called again.
func (r *Rest) Close() {
	for _, s := range r.made {
		s.close()
	}
	r.made = nil
}

// Mount makes the root file system and gives its detached mount, which the caller closes.
func (d *Driver) Mount(l Layers) (int, error) {
	var rest Rest
	defer rest.Close()
	return d.MountLeaving(&rest, l)
}

// MountLeaving is Mount, but leaves it to the caller to close rest.
func (d *Driver) MountLeaving(rest *Rest, l Layers) (int, error) {
	if err := l.check(); err != nil {
		return -1, err
	}
	fd, err := d.mountLayers(rest, l)
	if errors.Is(err, unix.EIO) && l.Upper != "" {
		if err := acknowledge(l.Upper); err != nil {
			return -1, fmt.Errorf("writable layer: %w", err)
		}
		fd, err = d.mountLayers(rest, l)
	}
	return fd, err
}

// acknowledge takes notice of an error that a writable layer's disk had at some time, in anybody's file: the kernel mounts no volatile layer
// on it before somebody has, even when all is well again. What is broken still shows at the next try.
func acknowledge(upper string) error {
	disk, err := unix.Open(upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", upper, err)
	}
	defer unix.Close(disk)
	_ = unix.Syncfs(disk) // returns that error
	return nil
}

func (d *Driver) mountLayers(rest *Rest, l Layers) (int, error) {
	s := &stack{attr: unix.MOUNT_ATTR_NODEV, label: l.Label}
	rest.made = append(rest.made, s)
	if !l.Suid {
		s.attr |= unix.MOUNT_ATTR_NOSUID // I3
	}
	if err := s.addLowers(l.Lower, l.UserNS); err != nil {
		return -1, err
	}
	var err error
	if l.Upper != "" {
		err = s.openUpper(l)
	} else {
		err = s.scratchUpper(l)
	}
	if err != nil {
		return -1, fmt.Errorf("writable layer: %w", err)
	}
	return d.mount(s)
}

// MountImage shows the layers of an image, the topmost first, to a container that has a root of its own. Nothing can be written, and no
// set-user-id bit is in force. It gives the detached mount, which the caller closes, as rest; userns and label are as in Layers.
func (d *Driver) MountImage(rest *Rest, lower []string, userns int, label string) (int, error) {
	if err := (Layers{Lower: lower}).check(); err != nil {
		return -1, err
	}
	s := &stack{attr: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_RDONLY, label: label}
	rest.made = append(rest.made, s)
	if err := s.addLowers(lower, userns); err != nil {
		return -1, err
	}
	if err := s.addEmpty(); err != nil {
		return -1, fmt.Errorf("empty layer: %w", err)
	}
	return d.mount(s)
}

func (d *Driver) mount(s *stack) (int, error) {
	mount := s.mountByDescriptor
	if d.byPath {
		mount = func() (int, error) { return s.mountByPath(d.dir) }
	}
	fd, err := mount()
	if err != nil {
		return -1, fmt.Errorf("mount layers: %w", err)
	}
	return fd, nil
}

// stack is one overlay mount in the making. It owns its descriptors.
type stack struct {
	attr        int
	label       string // or ""
	lower       []int  // detached mounts, the topmost first
	upper, work int    // directories; valid if hasUpper
	hasUpper    bool
	volatile    bool      // I5
	scratch     *memfs.FS // or nil
}

func (s *stack) close() {
	for _, fd := range s.lower {
		unix.Close(fd)
	}
	if s.hasUpper {
		unix.Close(s.upper)
		unix.Close(s.work)
	}
	if s.scratch != nil {
		s.scratch.Close()
	}
}

func (s *stack) addLowers(dirs []string, userns int) error {
	for _, dir := range dirs {
		if err := s.addLower(dir, userns); err != nil {
			return fmt.Errorf("layer %s: %w", dir, err)
		}
	}
	return nil
}

// addEmpty adds a layer without anything at the bottom: overlayfs takes no single layer without a writable one.
func (s *stack) addEmpty() error {
	fs, err := memfs.New(0, rootMode, 0, 0)
	if err != nil {
		return err
	}
	defer fs.Close()
	fd, err := unix.FcntlInt(uintptr(fs.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.lower = append(s.lower, fd)
	return nil
}

// addLower clones one layer's mount, read-only (I1) and with the container's ids.
func (s *stack) addLower(dir string, userns int) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	s.lower = append(s.lower, fd)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if userns >= 0 {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(userns)
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr)
	if errors.Is(err, unix.EINVAL) && userns >= 0 {
		return fmt.Errorf("map ids: %w (its file system may not support id-mapped mounts)", err)
	}
	if err != nil {
		return fmt.Errorf("map ids: %w", err)
	}
	return nil
}

const dirFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// rootMode is the mode of the container's root directory, which is the writable layer's.
const rootMode = 0o755

func (s *stack) openUpper(l Layers) error {
	upper, err := unix.Open(l.Upper, dirFlags, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", l.Upper, err)
	}
	work, err := unix.Open(l.Work, dirFlags, 0)
	if err != nil {
		unix.Close(upper)
		return fmt.Errorf("open %s: %w", l.Work, err)
	}
	s.upper, s.work, s.hasUpper, s.volatile = upper, work, true, true
	if err := forgetVolatile(work); err != nil {
		return fmt.Errorf("clean up %s: %w", l.Work, err)
	}
	if err := unix.Fchownat(upper, "", int(l.RootUID), int(l.RootGID), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("own %s: %w", l.Upper, err)
	}
	if err := unix.Chmod(procPath(upper), rootMode); err != nil {
		return fmt.Errorf("mode of %s: %w", l.Upper, err)
	}
	return nil
}

// forgetVolatile removes the mark by which the kernel refuses a layer that was mounted before without ever being synced: whoever mounts it
// again knows that the machine did not crash since.
func forgetVolatile(work int) error {
	for _, mark := range []struct {
		name  string
		flags int
	}{{"work/incompat/volatile/dirty", 0}, {"work/incompat/volatile", unix.AT_REMOVEDIR}} {
		if err := unix.Unlinkat(work, mark.name, mark.flags); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func (s *stack) scratchUpper(l Layers) error {
	fs, err := memfs.New(scratchSize, 0o700, 0, 0)
	if err != nil {
		return err
	}
	s.scratch = fs
	if err := fs.Mkdir("upper", rootMode, l.RootUID, l.RootGID); err != nil {
		return err
	}
	if err := fs.Mkdir("work", 0o700, 0, 0); err != nil {
		return err
	}
	upper, err := unix.Openat(fs.FD(), "upper", dirFlags, 0)
	if err != nil {
		return err
	}
	work, err := unix.Openat(fs.FD(), "work", dirFlags, 0)
	if err != nil {
		unix.Close(upper)
		return err
	}
	s.upper, s.work, s.hasUpper = upper, work, true
	return nil
}

// options are the parameters of every mount: I2, and no feature that a layer could use against another.
func (s *stack) options() [][2]string {
	out := [][2]string{{"redirect_dir", "nofollow"}, {"index", "off"}, {"metacopy", "off"}}
	if s.label != "" {
		out = append(out, [2]string{"context", s.label})
	}
	return out
}

func (s *stack) mountByDescriptor() (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for _, fd := range s.lower {
		if err := unix.FsconfigSetFd(fs, "lowerdir+", fd); err != nil {
			return -1, fmt.Errorf("lowerdir: %w", err)
		}
	}
	if s.hasUpper {
		if err := unix.FsconfigSetFd(fs, "upperdir", s.upper); err != nil {
			return -1, fmt.Errorf("upperdir: %w", err)
		}
		if err := unix.FsconfigSetFd(fs, "workdir", s.work); err != nil {
			return -1, fmt.Errorf("workdir: %w", err)
		}
	}
	if s.volatile {
		if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
			return -1, fmt.Errorf("volatile: %w", err)
		}
	}
	for _, o := range append(s.options(), [2]string{"source", "overlay"}) {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("%s: %w", o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, s.attr)
}

// mountByPath attaches everything below a private directory, mounts by the classic call, and takes it all down again:
// the clone that it gives holds what it needs.
func (s *stack) mountByPath(dir string) (fd int, err error) {
	at, err := os.MkdirTemp(dir, attachPrefix)
	if err != nil {
		return -1, err
	}
	defer func() { // in reverse, since the mount below merged uses the others
		if failed := takeDown(at); failed != nil && err == nil {
			unix.Close(fd)
			fd, err = -1, failed
		}
	}()
	var names []string
	for i, lower := range s.lower {
		name := fmt.Sprintf("%s/%d", at, i)
		names = append(names, name)
		if err := attach(lower, name); err != nil {
			return -1, err
		}
	}
	upper, work := procPath(s.upper), procPath(s.work)
	if s.scratch != nil {
		name := at + "/s"
		if err := attach(s.scratch.FD(), name); err != nil {
			return -1, err
		}
		upper, work = name+"/upper", name+"/work"
	}
	data := []string{"lowerdir=" + strings.Join(names, ":")}
	if s.hasUpper {
		data = append(data, "upperdir="+upper, "workdir="+work)
	}
	if s.volatile {
		data = append(data, "volatile")
	}
	for _, o := range s.options() {
		if strings.Contains(o[1], ",") { // which a label may have
			o[1] = `"` + o[1] + `"`
		}
		data = append(data, o[0]+"="+o[1])
	}
	return s.mountClassic(at+"/merged", strings.Join(data, ","))
}

// mountClassic mounts at merged and gives a detached clone of that mount.
func (s *stack) mountClassic(merged, data string) (int, error) {
	if err := os.Mkdir(merged, 0o700); err != nil {
		return -1, err
	}
	if err := unix.Mount("overlay", merged, "overlay", unix.MS_NODEV|unix.MS_NOSUID, data); err != nil {
		return -1, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, merged, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	attr := &unix.MountAttr{Attr_set: uint64(s.attr), Attr_clr: unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// attachPrefix begins the names of directories for attaching.
const attachPrefix = "m"

func attach(fd int, name string) error {
	if err := os.Mkdir(name, 0o700); err != nil {
		return err
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// takeDown detaches all that is attached below at, and removes the empty directories. Whoever still uses a mount keeps
// it. Nothing is ever removed recursively: what is below may be a layer whose mount would not go.
func takeDown(at string) error {
	entries, err := os.ReadDir(at)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := at + "/" + e.Name()
		// EINVAL says that nothing is mounted there.
		if err := unix.Unmount(name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("detach %s: %w", name, err)
		}
		if err := unix.Rmdir(name); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return unix.Rmdir(at)
}

// procPath names an open directory for calls that take no descriptor.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
