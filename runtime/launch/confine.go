package launch

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/spec"
)

// appArmorExec is where a process says which AppArmor profile it is to have from its next execve on. It is opened on the host's procfs,
// before an image can have a say in what is there; a write counts for the process that opened it only.
const appArmorExec = "/proc/thread-self/attr/apparmor/exec"

// What SELinux reads likewise, in the same place and under the same conditions: the label from the next execve on, and that of keyrings.
const (
	selinuxExec = "/proc/thread-self/attr/exec"
	selinuxKey  = "/proc/thread-self/attr/keycreate"
)

// labels chooses what mandatory access control confines by. It must come before the child leaves the host's mounts.
func (p *program) labels() {
	p.appArmor()
	label := p.plan.Process.SELinux
	if label == "" {
		return
	}
	name := "confine by the SELinux label " + label
	p.order(name, selinuxExec, label)
	p.order(name, selinuxKey, label)
}

// order writes a line to a file of the kernel.
func (p *program) order(name, file, text string) {
	f := p.result(name, unix.SYS_OPENAT, cwd(), p.str(file), num(unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW), num(0))
	p.call(name, unix.SYS_WRITE, f.arg(), p.str(text), num(len(text)))
	p.close(f)
}

// Of the file system of message queues, from ipc/mqueue.c.
const (
	mqueueType  = "mqueue"
	mqueueMagic = 0x19800202
)

// labelQueues labels the container's message queues. The kernel made their file system with the namespace, for the launcher's user, so that the
// container's root can't; and it takes no label when it is mounted. Nothing of the container runs yet.
func (p *Process) labelQueues(plan *spec.Plan) error {
	if plan.MountLabel == "" || plan.Namespaces&unix.CLONE_NEWIPC == 0 { // the host's are not the container's to label
		return nil
	}
	for _, m := range plan.Mounts {
		if m.Type != mqueueType {
			continue
		}
		root, err := p.Root()
		if err != nil {
			return err
		}
		defer unix.Close(root)
		fd, err := unix.Openat2(root, m.Target, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolveTrusted})
		if err != nil {
			return fmt.Errorf("label message queues: %w", err)
		}
		defer unix.Close(fd)
		var fs unix.Statfs_t
		if err = unix.Fstatfs(fd, &fs); err == nil && fs.Type == mqueueMagic {
			err = unix.Fsetxattr(fd, lsm.SELinuxAttr, []byte(plan.MountLabel), 0)
		}
		if err != nil {
			return fmt.Errorf("label message queues: %w", err)
		}
	}
	return nil
}

// appArmor chooses the profile.
func (p *program) appArmor() {
	profile := p.plan.Process.AppArmor
	if profile == "" {
		return
	}
	p.order("confine by the AppArmor profile "+profile, appArmorExec, "exec "+profile)
}

// Rights of Landlock, from linux/landlock.h.
const (
	landlockRead = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// landlockFile are those that a rule for a single file may have.
	landlockFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE
	// landlockAll are what is handled: nothing of it is possible where no rule gives it. Commands to devices are not: who can
	// open a device was given it.
	landlockAll = landlockRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// truncateLandlock is the first ABI with a right to truncate, which before came with the right to write.
const truncateLandlock = 3

// scopeLandlock is the first ABI that can forbid connections to abstract unix sockets of processes that are not confined alike, which
// landlockScopeAbstract (LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET) asks for.
const (
	scopeLandlock         = 6
	landlockScopeAbstract = 1
)

// rulesetAttr is struct landlock_ruleset_attr.
type rulesetAttr struct {
	files  uint64
	_      uint64 // of the network
	scoped uint64
}

// Landlock reports whether the container of a plan is confined by Landlock: where the kernel can, and the plan wants it.
func (l *Launcher) Landlock(plan *spec.Plan) bool {
	return plan.Landlock && plan.Seccomp != nil && l.landlock >= lsm.LeastLandlock
}

// pathBeneath is struct landlock_path_beneath_attr.
type pathBeneath struct {
	allowed uint64
	parent  int32
	_       int32 // not part of it
}

// confine gives up, by Landlock, all files that are not below the container's root, and writing where no mount is writable (I8).
// The root and every mount were opened by the same steps when they were made. The stdio, whose files are elsewhere, may be opened again,
// as through /dev/stdout.
//
// It needs CAP_SYS_ADMIN, which the child still has: it works without no-new-privileges, too.
func (p *program) confine() {
	if p.landlock == 0 {
		return
	}
	handled := uint64(landlockAll)
	if p.landlock < truncateLandlock {
		handled &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	const name = "confine by Landlock"
	ruleset := rulesetAttr{files: handled}
	size := unsafe.Sizeof(ruleset.files) // no later version asks for more
	if p.plan.Namespaces&unix.CLONE_NEWNET == 0 && p.landlock >= scopeLandlock {
		// Abstract sockets are in the network's name space, and have no modes: on the host's network, its programs' are there.
		ruleset.scoped, size = landlockScopeAbstract, unsafe.Sizeof(ruleset)
	}
	_, attr := place(p.table, ruleset)
	set := p.result(name, unix.SYS_LANDLOCK_CREATE_RULESET, attr, num(size), num(0))
	rights := uint64(landlockRead)
	if !p.plan.ReadOnlyRoot {
		rights = handled
	}
	p.allow(name, set, p.root.arg(), rights)
	for fd := range 3 {
		// What has no name, such as a pipe, needs no rule and takes none.
		p.allow(name, set, num(fd), handled&landlockFile&^unix.LANDLOCK_ACCESS_FS_EXECUTE).tolerate(unix.EBADFD)
	}
	if p.plan.ReadOnlyRoot {
		p.allowMounts(name, set, handled)
	}
	p.call(name, unix.SYS_LANDLOCK_RESTRICT_SELF, set.arg(), num(0))
	p.close(set)
}

// allow adds a rule for what is below a descriptor.
func (p *program) allow(name string, set reg, fd arg, rights uint64) *step {
	rule, at := place(p.table, pathBeneath{allowed: rights, parent: int32(fd.value)})
	if fd.from != 0 {
		p.call(name, callStore, address(&rule.parent), fd)
	}
	return p.call(name, unix.SYS_LANDLOCK_ADD_RULE, set.arg(), num(unix.LANDLOCK_RULE_PATH_BENEATH), at, num(0))
}

// allowMounts adds a rule for each mount that is writable.
func (p *program) allowMounts(name string, set reg, handled uint64) {
	binds := 0
	for _, m := range p.plan.Mounts {
		rights := handled
		if m.Bind() {
			if !p.binds[binds].dir {
				rights &= landlockFile
			}
			binds++
		}
		if !m.Writable() {
			continue
		}
		how := uint64(resolveInRoot)
		if m.Trusted {
			how = resolveTrusted
		}
		// Another mount may be over this one by now, and something else in its place, or nothing: then there is no such rule, which
		// gives less.
		request, size := p.resolve(openTarget, 0, how)
		target := p.take()
		open := p.call(name+": /"+m.Target, unix.SYS_OPENAT2, p.root.arg(), p.str(m.Target), request, size)
		open.out = target
		open.tolerate(unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EACCES)
		at := p.here()
		p.allow(name+": /"+m.Target, set, target.arg(), rights).tolerate(unix.EINVAL)
		p.close(target)
		p.land(at)
	}
}
