package launch

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/overlay"
	"github.com/skep-io/skep/runtime/spec"
)

// baggage is what the parent prepares for one child: detached mounts, and the table that says what to do with them.
// It owns its descriptors.
type baggage struct {
	root    int // or -1
	devices []int
	further []int // the plan's devices, or /dev/null where the child makes them itself
	binds   []bindMount
	images  []int // detached mounts of layers, made when the user namespace is there
	rest    overlay.Rest
	// entrances are those to the control group, of which the child hears first.
	entrances []int
	groups    []int // the views of the control group, if the plan shows them
	memory    []int // the job's
	starter   []int // the job's, if it has one
	program   *program
	region    *region // or nil: the table's, once there is one
}

// bindMount is the clone of one bind mount's source.
type bindMount struct {
	fd    int
	dir   bool
	mount spec.Mount
}

// gather clones what the host gives and writes the table, in the region if there is one.
func (l *Launcher) gather(job Job, r *region) (*baggage, error) {
	b := &baggage{root: -1, region: r}
	err := b.collect(l, job)
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *baggage) collect(l *Launcher, job Job) error {
	for i, fd := range l.devices {
		clone, err := unix.OpenTree(fd, "", cloneOf)
		if err != nil {
			return fmt.Errorf("device %s: %w", hostDevices()[i].name, err)
		}
		b.devices = append(b.devices, clone)
		// Devices and only devices may be opened here, but run or written to as a file system they can't be.
		if err := setMount(clone, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}); err != nil {
			return fmt.Errorf("device %s: %w", hostDevices()[i].name, err)
		}
	}
	if err := b.openDevices(job.Plan); err != nil {
		return err
	}
	for _, m := range job.Plan.Mounts {
		if !m.Bind() {
			continue
		}
		if err := b.openBind(m); err != nil {
			return fmt.Errorf("bind mount %s at /%s: %w", m.Source, m.Target, err)
		}
	}
	for _, m := range job.Plan.Mounts {
		if m.Type == cgroupType && b.groups == nil {
			if err := b.openGroups(job.Group, m.Attr); err != nil {
				return fmt.Errorf("show control group: %w", err)
			}
		}
	}
	for _, m := range job.Memory {
		b.memory = append(b.memory, m.FS.FD())
	}
	var err error
	if b.entrances, err = job.Group.Entrances(); err != nil {
		return err
	}
	b.program = &program{
		table: newTable(b.region), plan: job.Plan, memory: job.Memory, views: job.Group.Views(), control: control + len(job.Preserve),
		rootfs: job.Rootfs, pause: job.Mounted != nil, starter: job.Starter != nil,
	}
	if l.Landlock(job.Plan) {
		b.program.landlock = l.landlock
	}
	if job.Starter != nil {
		b.starter = []int{int(job.Starter.Fd())}
	}
	b.program.entrances = make([]int32, len(b.entrances))
	b.program.rootAt = 0
	b.program.devicesAt = 1
	b.program.furtherAt = b.program.devicesAt + len(b.devices)
	b.program.bindsAt = b.program.furtherAt + len(b.further)
	b.program.imagesAt = b.program.bindsAt + len(b.binds)
	b.program.groupsAt = b.program.imagesAt + images(job.Plan)
	b.program.memoryAt = b.program.groupsAt + len(b.groups)
	b.program.starterAt = b.program.memoryAt + len(b.memory)
	b.program.fds = make([]int32, b.program.starterAt+len(b.starter))
	if n := len(b.program.fds); n > maxDescriptors {
		return fmt.Errorf("%d mounts and devices from the host, at most %d are possible", n, maxDescriptors)
	}
	for _, m := range b.binds {
		b.program.binds = append(b.program.binds, source{dir: m.dir})
	}
	return nil
}

// images counts the mounts of layers.
func images(plan *spec.Plan) (n int) {
	for _, m := range plan.Mounts {
		if m.Layered() {
			n++
		}
	}
	return n
}

// maxDescriptors is SCM_MAX_FD: what fits one message.
const maxDescriptors = 253

// openBind clones one source.
func (b *baggage) openBind(m spec.Mount) error {
	fd, dir, err := OpenBind(m)
	if err != nil {
		return err
	}
	b.binds = append(b.binds, bindMount{fd: fd, dir: dir, mount: m})
	return nil
}

// OpenBind clones the source of a bind mount of a plan, with the attributes that the plan gives it, and says whether it is a directory.
// Ids are as on the source. Mount events travel between the clone and the host only where the plan says so. The caller closes it.
func OpenBind(m spec.Mount) (fd int, dir bool, err error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	if fd, err = openSource(m, flags); err != nil {
		return -1, false, err
	}
	if dir, err = dressBind(fd, m); err != nil {
		unix.Close(fd)
		return -1, false, err
	}
	return fd, dir, nil
}

// dressBind gives a clone what the plan says.
func dressBind(fd int, m spec.Mount) (dir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if err := setMount(fd, unix.MountAttr{Attr_set: m.AllAttr, Attr_clr: m.AllClear}); err != nil {
		return false, err
	}
	clear := m.Clear
	if m.Attr&unix.MOUNT_ATTR__ATIME != 0 {
		clear |= unix.MOUNT_ATTR__ATIME
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: m.Attr, Attr_clr: clear}); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, propagate(fd, m.Propagation)
}

// propagate sets how mount events travel from and to a detached mount: not at all if how is 0. What is mounted below one that is private
// or a slave would otherwise go on sharing the host's.
func propagate(fd int, how uint64) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if how&unix.MS_SHARED == 0 || how&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	if how &^= unix.MS_REC; how == 0 {
		how = unix.MS_PRIVATE
	}
	return unix.MountSetattr(fd, "", flags, &unix.MountAttr{Propagation: how})
}

// openRootfs clones the directory that is the root. A root that shares mount events does so when it is in place.
func (b *baggage) openRootfs(job Job) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, job.Rootfs, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	b.root = fd
	how := uint64(0)
	if job.Plan.RootPropagation&(unix.MS_SHARED|unix.MS_SLAVE) != 0 {
		how = unix.MS_SLAVE | unix.MS_REC
	}
	return propagate(fd, how)
}

// openDevices clones the host's devices that the plan names, for a container that can't make nodes.
func (b *baggage) openDevices(plan *spec.Plan) error {
	if plan.MakeNodes {
		return nil
	}
	for _, d := range plan.Devices {
		source := d.Source
		if d.Type == unix.S_IFIFO {
			source = "/dev/null"
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return fmt.Errorf("device %s: %w", source, err)
		}
		b.further = append(b.further, fd)
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if err == nil && d.Type != unix.S_IFIFO && (st.Mode&unix.S_IFMT != d.Type || st.Rdev != unix.Mkdev(d.Major, d.Minor)) { // I3
			err = ErrDevice
		}
		if err != nil {
			return fmt.Errorf("device %s: %w", source, err)
		}
	}
	return nil
}

// openSource clones what a bind mount shows. With NoLinks it is what was looked at before under that name. What is in the source may be a container's, so that links on the way to a part of it
// could lead anywhere: none is followed.
func openSource(m spec.Mount, flags uint) (int, error) {
	if m.Subdir == "" && !m.NoLinks {
		return unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC}
	if m.NoLinks {
		how.Resolve = unix.RESOLVE_NO_SYMLINKS
	}
	source, err := unix.Openat2(unix.AT_FDCWD, m.Source, how)
	if err != nil {
		return -1, err
	}
	defer unix.Close(source)
	if m.Subdir == "" {
		return unix.OpenTree(source, "", flags|unix.AT_EMPTY_PATH)
	}
	part, err := unix.Openat2(source, m.Subdir, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveTrusted | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return -1, fmt.Errorf("%s in it: %w", m.Subdir, err)
	}
	defer unix.Close(part)
	return unix.OpenTree(part, "", flags|unix.AT_EMPTY_PATH)
}

// openGroups clones the container's own directories of the control group hierarchies: nothing above them can be reached
// through a clone. Of attr it takes whether they can be written.
func (b *baggage) openGroups(group *cgroup.Group, attr uint64) error {
	for _, v := range group.Views() {
		fd, err := unix.OpenTree(unix.AT_FDCWD, v.Dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		b.groups = append(b.groups, fd)
		attr := unix.MountAttr{
			Attr_set:    attr&unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
			Propagation: unix.MS_PRIVATE,
		}
		if err := setMount(fd, attr); err != nil {
			return err
		}
	}
	return nil
}

// mapBinds gives bind mounts that ask for it the ids of the container.
func (b *baggage) mapBinds(userns int) error {
	for _, m := range b.binds {
		if !m.mount.IDMap {
			continue
		}
		if err := MapIDs(m.fd, userns); err != nil {
			return fmt.Errorf("bind mount %s: %w", m.mount.Source, err)
		}
	}
	return nil
}

// MapIDs has a detached mount and all below it show the ids that a user namespace has for those on its files.
func MapIDs(fd, userns int) error {
	if err := setMount(fd, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}); err != nil {
		return fmt.Errorf("map ids: %w", err)
	}
	return nil
}

// setMount changes a detached mount and all below it.
func setMount(fd int, attr unix.MountAttr) error {
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
}

// fds lists the descriptors for the child, in the order that the table expects.
func (b *baggage) fds() []int {
	out := slices.Concat([]int{b.root}, b.devices, b.further)
	for _, m := range b.binds {
		out = append(out, m.fd)
	}
	return slices.Concat(out, b.images, b.groups, b.memory, b.starter)
}

func closeAll(lists ...[]int) {
	for _, fd := range slices.Concat(lists...) {
		unix.Close(fd)
	}
}

// close may be called again.
func (b *baggage) close() {
	closeAll(b.devices, b.further, b.images, b.groups, b.entrances)
	for _, m := range b.binds {
		unix.Close(m.fd)
	}
	if b.root >= 0 {
		unix.Close(b.root)
	}
	b.rest.Close()
	switch {
	case b.program != nil:
		b.program.release()
	case b.region != nil:
		b.region.giveBack()
	}
	*b = baggage{root: -1}
}

// fork starts the child on its table.
func (b *baggage) fork(job Job) (*Process, error) {
	p, err := b.program.spawn(slices.Concat(job.Stdio[:], job.Preserve), b.program.build, offspring{
		flags:  job.Plan.Namespaces &^ late,
		group:  job.Group.FD(),
		within: -1,
		here:   func() (pid, pidfd int, err error) { return b.clone(job) },
	})
	if err != nil {
		return nil, err
	}
	p.rlimits = job.Plan.Process.Rlimits
	return p, nil
}
