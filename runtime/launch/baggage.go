package launch

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/spec"
)

// baggage is what the parent prepares for one child: detached mounts, and the table that says what to do with them.
// It owns its descriptors.
type baggage struct {
	root    int // or -1
	devices []int
	binds   []bindMount
	groups  []int // the views of the control group, if the plan shows them
	memory  []int // the job's
	program *program
}

// bindMount is the clone of one bind mount's source.
type bindMount struct {
	fd    int
	dir   bool
	mount spec.Mount
}

// gather clones what the host gives and writes the table.
func (l *Launcher) gather(job Job) (*baggage, error) {
	b := &baggage{root: -1}
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
	for _, m := range job.Plan.Mounts {
		if !m.Bind() {
			continue
		}
		if err := b.openBind(m); err != nil {
			return fmt.Errorf("bind mount %s at /%s: %w", m.Source, m.Target, err)
		}
	}
	if slices.ContainsFunc(job.Plan.Mounts, func(m spec.Mount) bool { return m.Type == cgroupType }) {
		if err := b.openGroups(job.Group); err != nil {
			return fmt.Errorf("show control group: %w", err)
		}
	}
	for _, m := range job.Memory {
		b.memory = append(b.memory, m.FS.FD())
	}
	b.program = &program{table: newTable(), plan: job.Plan, memory: job.Memory, views: job.Group.Views()}
	b.program.rootAt = 0
	b.program.devicesAt = 1
	b.program.bindsAt = b.program.devicesAt + len(b.devices)
	b.program.groupsAt = b.program.bindsAt + len(b.binds)
	b.program.memoryAt = b.program.groupsAt + len(b.groups)
	b.program.fds = make([]int32, b.program.memoryAt+len(b.memory))
	for _, m := range b.binds {
		b.program.binds = append(b.program.binds, source{dir: m.dir})
	}
	return nil
}

// openBind clones one source. Mount events never travel between the container and the host.
func (b *baggage) openBind(m spec.Mount) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	if err != nil {
		return err
	}
	b.binds = append(b.binds, bindMount{fd: fd, mount: m})
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	b.binds[len(b.binds)-1].dir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	clear := uint64(0)
	if m.Attr&unix.MOUNT_ATTR__ATIME != 0 {
		clear = unix.MOUNT_ATTR__ATIME
	}
	return setMount(fd, unix.MountAttr{Attr_set: m.Attr, Attr_clr: clear, Propagation: unix.MS_PRIVATE})
}

// openGroups clones the container's own directories of the control group hierarchies, read-only: nothing above them
// can be reached through a clone.
func (b *baggage) openGroups(group *cgroup.Group) error {
	for _, v := range group.Views() {
		fd, err := unix.OpenTree(unix.AT_FDCWD, v.Dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		b.groups = append(b.groups, fd)
		attr := unix.MountAttr{
			Attr_set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
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
		err := setMount(m.fd, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)})
		if err != nil {
			return fmt.Errorf("map ids of bind mount %s: %w", m.mount.Source, err)
		}
	}
	return nil
}

// setMount changes a detached mount and all below it.
func setMount(fd int, attr unix.MountAttr) error {
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
}

// fds lists the descriptors for the child, in the order that the table expects.
func (b *baggage) fds() []int {
	out := append([]int{b.root}, b.devices...)
	for _, m := range b.binds {
		out = append(out, m.fd)
	}
	return append(append(out, b.groups...), b.memory...)
}

func (b *baggage) close() {
	if b.root >= 0 {
		unix.Close(b.root)
	}
	for _, fd := range append(b.devices, b.groups...) {
		unix.Close(fd)
	}
	for _, m := range b.binds {
		unix.Close(m.fd)
	}
}

// highFD is above every descriptor number that the child uses for itself.
const highFD = 16

// fork starts the child on its table.
func (b *baggage) fork(job Job) (*Process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	var moved []int // the child's ends, out of the way of the numbers that it will give them
	defer func() {
		for _, fd := range append(moved, pair[1]) {
			unix.Close(fd)
		}
	}()
	for _, fd := range []int{int(job.Stdio[0].Fd()), int(job.Stdio[1].Fd()), int(job.Stdio[2].Fd()), pair[1]} {
		high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, highFD)
		if err != nil {
			unix.Close(pair[0])
			return nil, fmt.Errorf("child's descriptors: %w", err)
		}
		moved = append(moved, high)
	}
	if err := b.program.build([3]int{moved[0], moved[1], moved[2]}, moved[3]); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("build launch table: %w", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ctl := os.NewFile(uintptr(pair[0]), "control")
	pid, pidfd, err := fork(b.program.table, namespaces, job.Group.FD())
	if err != nil && pid == 0 {
		return nil, errors.Join(err, ctl.Close())
	}
	p := &Process{
		pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), control: ctl, names: b.program.names,
		rlimits: job.Plan.Process.Rlimits,
	}
	if err != nil {
		p.Abort()
		return nil, err
	}
	return p, nil
}
