package launch

import (
	"path"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/spec"
)

// Arguments of the mount calls.
const (
	moveOnto   = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	cloneOf    = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	openTarget = unix.O_PATH | unix.O_NOFOLLOW
	openDir    = unix.O_PATH | unix.O_DIRECTORY
)

// findRootfs opens the place of the root on the host, while the child still has the host's ids to reach it.
func (p *program) findRootfs() {
	if p.rootfs == "" {
		return
	}
	request, size := p.resolve(openDir, 0, 0)
	p.attachTo = p.result("root "+p.rootfs, unix.SYS_OPENAT2, cwd(), p.str(p.rootfs), request, size)
}

// attachRoot cuts the child off from the host's mount events and puts the root mount over the host's root, or where
// hooks expect it, from where pivot_root will take it. The host's /proc stays reachable for the kernel until then, which it demands of those who
// mount another one in a user namespace.
func (p *program) attachRoot() {
	p.call("private mounts", unix.SYS_MOUNT, p.str(""), p.str("/"), p.str(""), num(unix.MS_REC|unix.MS_PRIVATE), num(0))
	for i, m := range p.memory {
		if m.File != "" { // its mount is needed for as long as the file is taken from it
			p.overHostRoot("attach memory", p.memoryAt+i)
		}
	}
	p.partImages()
	if !p.plan.StockDev || p.plan.MakeNodes {
		// Masks are clones of the null device, which must be attached for that; here nothing else attaches it.
		null := p.received(p.devicesAt)
		p.call("attach null device", unix.SYS_MOVE_MOUNT, null.arg(), p.str(""), cwd(), p.str("/dev/null"), num(unix.MOVE_MOUNT_F_EMPTY_PATH))
		p.give(null)
	}
	if p.rootfs == "" {
		p.root = p.overHostRoot("attach root", p.rootAt)
		return
	}
	p.root = p.received(p.rootAt)
	p.onto("attach root", p.root, p.attachTo)
}

// overHostRoot attaches a received mount on top of the host's root and gives its register.
func (p *program) overHostRoot(name string, at int) reg {
	r := p.received(at)
	p.call(name, unix.SYS_MOVE_MOUNT, r.arg(), p.str(""), cwd(), p.str("/"), num(unix.MOVE_MOUNT_F_EMPTY_PATH))
	if at != p.rootAt {
		p.stacked++
		p.give(r) // the descriptor stays open; it is loaded again when it is needed
	}
	return r
}

// directory opens a directory below the root, making what is missing, and gives its register. No step follows a link
// out of the root (I2).
func (p *program) directory(name, rel string, how uint64) reg {
	parent := p.root
	elements := strings.Split(rel, "/")
	for i, element := range elements {
		p.call(name, unix.SYS_MKDIRAT, parent.arg(), p.str(element), num(0o755)).
			tolerate(unix.EEXIST, unix.EROFS, unix.EPERM, unix.EACCES) // where it exists, opening tells
		prefix := strings.Join(elements[:i+1], "/")
		request, size := p.resolve(openDir, 0, how)
		next := p.result(name, unix.SYS_OPENAT2, p.root.arg(), p.str(prefix), request, size)
		if parent != p.root {
			p.close(parent)
		}
		parent = next
	}
	return parent
}

// file opens a file below the root, making it if it is missing, and gives its register.
func (p *program) file(name, rel string, how uint64) reg {
	dir, base := path.Split(rel)
	if dir = strings.TrimSuffix(dir, "/"); dir != "" {
		p.close(p.directory(name, dir, how))
	}
	// Through a dangling link the file is made where the link points to, within the root. Whatever fails here fails
	// again below, where it is reported.
	request, size := p.resolve(unix.O_RDONLY|unix.O_CREAT|unix.O_NONBLOCK|unix.O_NOCTTY, 0o644, how)
	made := p.take()
	create := p.call(name, unix.SYS_OPENAT2, p.root.arg(), p.str(path.Join(dir, base)), request, size)
	create.out = made
	create.tolerate(unix.EROFS, unix.EACCES, unix.ENXIO, unix.EISDIR)
	at := p.here()
	p.close(made)
	p.land(at)
	request, size = p.resolve(unix.O_PATH, 0, how)
	return p.result(name, unix.SYS_OPENAT2, p.root.arg(), p.str(rel), request, size)
}

// mounts makes the mounts of the plan: first those whose targets an image may redirect, then the trusted ones.
func (p *program) mounts(trusted bool) {
	for i, m := range p.plan.Mounts {
		if m.Trusted == trusted {
			p.mount(i, m)
		}
	}
}

// mount makes mount i of the plan.
func (p *program) mount(i int, m spec.Mount) {
	name, how := "mount /"+m.Target, uint64(resolveInRoot)
	if m.Trusted {
		how = resolveTrusted
	}
	switch {
	case m.Bind():
		p.bind(name, i, m, how)
		return
	case m.Layered():
		p.image(name, i, m, how)
		return
	case m.Type == cgroupType:
		p.controlGroups(name, m)
		return
	}
	if m.Type == tmpfsType { // it may have to take mount points and devices first: closeTmpfs
		m.Attr &^= unix.MOUNT_ATTR_RDONLY
	}
	mounted := p.filesystem(name, m)
	p.onto(name, mounted, p.directory(name, m.Target, how))
	p.close(mounted)
}

const tmpfsType = "tmpfs"

// closeTmpfs makes those read-only that the plan wants so.
func (p *program) closeTmpfs() {
	for _, m := range p.plan.Mounts {
		if m.Type != tmpfsType || m.Attr&unix.MOUNT_ATTR_RDONLY == 0 {
			continue
		}
		name := "make read-only /" + m.Target
		r := p.directory(name, m.Target, resolveInRoot)
		p.setAttr(name, r, unix.MOUNT_ATTR_RDONLY, 0)
		p.close(r)
	}
}

// onto attaches mounted to target and closes target.
func (p *program) onto(name string, mounted, target reg) {
	p.call(name, unix.SYS_MOVE_MOUNT, mounted.arg(), p.str(""), target.arg(), p.str(""), num(moveOnto))
	p.close(target)
}

// filesystem creates a file system of the container's own and gives the detached mount.
func (p *program) filesystem(name string, m spec.Mount) reg {
	fs := p.result(name, unix.SYS_FSOPEN, p.str(m.Type), num(unix.FSOPEN_CLOEXEC))
	source := m.Source
	if source == "" {
		source = m.Type
	}
	options := append([]spec.Option{{Key: "source", Value: source}}, m.Options...)
	if label := p.plan.MountLabel; label != "" && labelled(m.Type) {
		options = append(options, spec.Option{Key: "context", Value: label})
	}
	for _, o := range options {
		kind, value := unix.FSCONFIG_SET_STRING, p.str(o.Value)
		if o.Value == "" {
			kind, value = unix.FSCONFIG_SET_FLAG, num(0)
		}
		p.call(name+" option "+o.Key, unix.SYS_FSCONFIG, fs.arg(), num(kind), p.str(o.Key), value, num(0))
	}
	p.call(name, unix.SYS_FSCONFIG, fs.arg(), num(unix.FSCONFIG_CMD_CREATE), num(0), num(0), num(0))
	mounted := p.result(name, unix.SYS_FSMOUNT, fs.arg(), num(unix.FSMOUNT_CLOEXEC), num(m.Attr))
	p.close(fs)
	return mounted
}

// labelled reports whether a file system takes a label of SELinux for all that is in it, from who is root in a user namespace only: of these
// the kernel lets (selinux_set_mnt_opts in security/selinux/hooks.c).
func labelled(fstype string) bool {
	return fstype == "tmpfs" || fstype == "ramfs" || fstype == "devpts"
}

// bind attaches a tree of the host that the parent cloned.
func (p *program) bind(name string, i int, m spec.Mount, how uint64) {
	n := 0
	for _, before := range p.plan.Mounts[:i] {
		if before.Bind() {
			n++
		}
	}
	var target reg
	if p.binds[n].dir {
		target = p.directory(name, m.Target, how)
	} else {
		target = p.file(name, m.Target, how)
	}
	mounted := p.received(p.bindsAt + n)
	p.onto(name, mounted, target)
	p.close(mounted)
}

// partImages replaces images of which a directory is shown by that directory. Each is over everything else while the directory is looked up:
// ".." at the root of a mount leads to what is mounted over it. Links stay in the image, and nobody can change it meanwhile.
func (p *program) partImages() {
	n := p.imagesAt
	for _, m := range p.plan.Mounts {
		if !m.Layered() {
			continue
		}
		if m.Subdir != "" {
			p.overHostRoot("attach image", n)
			name := "directory " + m.Subdir + " of the image at /" + m.Target
			request, size := p.resolve(openDir, 0, resolveInRoot)
			whole := p.received(n)
			part := p.result(name, unix.SYS_OPENAT2, whole.arg(), p.str(m.Subdir), request, size)
			p.close(whole)
			clone := p.result(name, unix.SYS_OPEN_TREE, part.arg(), p.str(""), num(cloneOf))
			p.close(part)
			p.store(clone, &p.fds[n])
			p.give(clone)
		}
		n++
	}
}

// image attaches what is shown of an image.
func (p *program) image(name string, i int, m spec.Mount, how uint64) {
	n := p.imagesAt
	for _, before := range p.plan.Mounts[:i] {
		if before.Layered() {
			n++
		}
	}
	mounted := p.received(n)
	p.onto(name, mounted, p.directory(name, m.Target, how))
	p.close(mounted)
}

// cgroupType is the plan's word for the container's own control group.
const cgroupType = "cgroup"

// controlGroups shows the container its control group: on v2 one directory, on v1 one for each hierarchy.
func (p *program) controlGroups(name string, m spec.Mount) {
	if len(p.views) == 1 && len(p.views[0].Controllers) == 0 {
		target := p.directory(name, m.Target, resolveTrusted)
		mounted := p.received(p.groupsAt)
		p.onto(name, mounted, target)
		p.close(mounted)
		return
	}
	all := p.filesystem(name, spec.Mount{
		Type: "tmpfs", Attr: m.Attr &^ unix.MOUNT_ATTR_RDONLY, Options: []spec.Option{{Key: "mode", Value: "755"}},
	})
	p.onto(name, all, p.directory(name, m.Target, resolveTrusted))
	for i, v := range p.views {
		dir := strings.Join(v.Controllers, ",")
		p.call(name, unix.SYS_MKDIRAT, all.arg(), p.str(dir), num(0o755))
		if len(v.Controllers) > 1 {
			for _, c := range v.Controllers {
				p.call(name, unix.SYS_SYMLINKAT, p.str(dir), all.arg(), p.str(c))
			}
		}
		mounted := p.received(p.groupsAt + i)
		p.call(name, unix.SYS_MOVE_MOUNT, mounted.arg(), p.str(""), all.arg(), p.str(dir), num(unix.MOVE_MOUNT_F_EMPTY_PATH))
		p.close(mounted)
	}
	if m.Attr&unix.MOUNT_ATTR_RDONLY != 0 {
		p.setAttr(name, all, unix.MOUNT_ATTR_RDONLY, 0)
	}
	p.close(all)
}

// attachMemory attaches the in-memory file systems, or single files of them.
func (p *program) attachMemory() {
	for i, m := range p.memory {
		name := "mount /" + m.Target
		if m.File == "" {
			target := p.directory(name, m.Target, resolveInRoot)
			mounted := p.received(p.memoryAt + i)
			p.onto(name, mounted, target)
			p.close(mounted)
			continue
		}
		target := p.file(name, m.Target, resolveInRoot)
		whole := p.received(p.memoryAt + i)
		one := p.result(name, unix.SYS_OPEN_TREE, whole.arg(), p.str(m.File), num(cloneOf&^unix.AT_EMPTY_PATH))
		p.close(whole)
		p.onto(name, one, target)
		p.close(one)
	}
}

// sysctls sets parameters through the container's own procfs, before that becomes read-only.
func (p *program) sysctls() {
	for _, s := range p.plan.Sysctls {
		name := "sysctl " + strings.ReplaceAll(s.Path, "/", ".") // as who asked for it wrote it
		request, size := p.resolve(unix.O_WRONLY, 0, resolveTrusted)
		f := p.result(name, unix.SYS_OPENAT2, p.root.arg(), p.str("proc/sys/"+s.Path), request, size)
		p.call(name, unix.SYS_WRITE, f.arg(), p.str(s.Value), num(len(s.Value)))
		p.close(f)
	}
}

// masks hides paths: a directory under an empty read-only one, a file under the host's null device.
func (p *program) masks() {
	empty := spec.Mount{
		Type:    "tmpfs",
		Attr:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		Options: []spec.Option{{Key: "nr_inodes", Value: "1"}, {Key: "size", Value: "4096"}, {Key: "mode", Value: "555"}},
	}
	for _, path := range p.plan.Masked {
		name := "mask /" + path
		request, size := p.resolve(openTarget|unix.O_DIRECTORY, 0, resolveTrusted)
		target := p.take()
		asDir := p.call(name, unix.SYS_OPENAT2, p.root.arg(), p.str(path), request, size)
		asDir.out = target
		asDir.tolerate(unix.ENOTDIR, unix.ENOENT)
		dirAt := p.here()
		mounted := p.filesystem(name, empty)
		p.onto(name, mounted, target)
		p.close(mounted)
		p.call(name, callJump)
		doneAt := p.here()
		p.land(dirAt)
		p.maskFile(name, path)
		p.land(doneAt)
	}
}

func (p *program) maskFile(name, path string) {
	target := p.take()
	request, size := p.resolve(openTarget, 0, resolveTrusted)
	asFile := p.call(name, unix.SYS_OPENAT2, p.root.arg(), p.str(path), request, size)
	asFile.out = target
	asFile.tolerate(unix.ENOENT)
	at := p.here()
	null := p.received(p.devicesAt)
	clone := p.result(name, unix.SYS_OPEN_TREE, null.arg(), p.str(""), num(cloneOf))
	p.give(null)
	p.setAttr(name, clone, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, 0)
	p.onto(name, clone, target)
	p.close(clone)
	p.land(at)
}

// readOnlyPaths covers paths with read-only clones of themselves.
func (p *program) readOnlyPaths() {
	for _, path := range p.plan.ReadOnly {
		name := "make read-only /" + path
		target := p.take()
		request, size := p.resolve(openTarget, 0, resolveTrusted)
		open := p.call(name, unix.SYS_OPENAT2, p.root.arg(), p.str(path), request, size)
		open.out = target
		open.tolerate(unix.ENOENT)
		at := p.here()
		clone := p.result(name, unix.SYS_OPEN_TREE, target.arg(), p.str(""), num(cloneOf|unix.AT_RECURSIVE))
		p.setAttr(name, clone, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
			unix.AT_RECURSIVE)
		p.onto(name, clone, target)
		p.close(clone)
		p.land(at)
	}
}

// setAttr sets attributes of the mount in r.
func (p *program) setAttr(name string, r reg, attr uint64, flags uint) {
	_, at := place(p.table, unix.MountAttr{Attr_set: attr})
	p.call(name, unix.SYS_MOUNT_SETATTR, r.arg(), p.str(""), num(flags|unix.AT_EMPTY_PATH), at, num(unsafe.Sizeof(unix.MountAttr{})))
}
