package launch

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/spec"
)

// program builds the table of one container.
type program struct {
	*table
	plan *spec.Plan
	// fds is where the kernel puts the received descriptors, in the child's copy of this memory. Minus one until then.
	fds []int32
	// Indexes into fds.
	rootAt, devicesAt, furtherAt, bindsAt, imagesAt, groupsAt, memoryAt, starterAt int

	entrances []int32 // to the control group; like fds

	landlock int      // the ABI to confine by, or 0
	control  int      // the child's descriptor of the control socket
	rootfs   string   // where on the host the root is attached, or "" for /
	attachTo reg      // rootfs, opened
	starter  bool     // whether a socket to start by was sent
	pause    bool     // whether the parent has something to do when all is mounted
	binds    []source // in the order of the plan's bind mounts
	memory   []Memory
	stacked  int // how many mounts are over the host's root, beside the container's
	views    []cgroup.View
	root     reg // the root mount
	workDir  reg
}

// source is what is known of a bind mount's source when the table is built.
type source struct {
	dir bool
}

// resolve flags of openat2 for the targets of mounts, I2.
const (
	resolveTrusted = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	resolveInRoot  = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
)

// build writes the whole table. passed are the parent's descriptors that become the child's from 0 on, and ctl is its
// control socket; all are above what they become.
func (p *program) build(passed []int, ctl int) error {
	p.isolate(passed, ctl)
	p.namespaces()
	p.receive("receive mounts", &p.fds)
	p.labels()
	p.findRootfs()
	p.identity()
	p.attachRoot()
	p.mounts(false)
	p.attachMemory()
	p.mounts(true) // I7
	p.devices()
	p.console()
	p.sysctls()
	p.pauseMounted()
	p.closeTmpfs()
	p.masks()
	p.readOnlyPaths()
	p.enterWorkDir()
	p.pivot()
	p.loopback()
	p.waitForStart()
	p.confine()
	p.credentials()
	p.exec()
	return p.sealed()
}

// isolate drops everything that the fork brought along (I1).
func (p *program) isolate(passed []int, ctl int) {
	p.call("protect memory", unix.SYS_PRCTL, num(unix.PR_SET_DUMPABLE), num(0), num(0), num(0), num(0))
	for to, from := range passed {
		p.call("stdio", unix.SYS_DUP3, num(from), num(to), num(0))
	}
	p.call("control socket", unix.SYS_DUP3, num(ctl), num(p.control), num(unix.O_CLOEXEC))
	p.call("close descriptors", unix.SYS_CLOSE_RANGE, num(p.control+1), num(^uint32(0)), num(0))
	p.resetSignals()
}

// lastSignal is the highest signal number (_NSIG).
const lastSignal = 64

// kernelSigaction is struct sigaction as the kernel has it; all zero is SIG_DFL.
type kernelSigaction [4]uint64 // handler, flags, restorer, mask

// ignored are the signals that this process ignores. A forker, which it starts, ignores no others; and its programs call for that when
// they begin.
var ignored = sync.OnceValue(func() (out []int) {
	for sig := 1; sig <= lastSignal; sig++ {
		var action kernelSigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
		if errno == 0 && action[0] == sigIgnore {
			out = append(out, sig)
		}
	}
	return out
})

// sigIgnore is SIG_IGN.
const sigIgnore = 1

// resetSignals undoes what the parent ignores or blocks: execve would keep that. What it handles, the fork has reset.
func (p *program) resetSignals() {
	_, action := place(p.table, kernelSigaction{})
	for _, sig := range ignored() {
		p.call("reset signals", unix.SYS_RT_SIGACTION, num(sig), action, num(0), num(8))
	}
	_, mask := place(p.table, uint64(0))
	p.call("unblock signals", unix.SYS_RT_SIGPROCMASK, num(unix.SIG_SETMASK), mask, num(0), num(8))
}

// late are the namespaces that the child makes itself: the parent has other things to do that need the rest of the child only, and the
// kernel takes long for a network. The one of control groups needs the child in its own.
const late = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// makeNamespaces names the step that makes them.
const makeNamespaces = "make namespaces"

// namespaces makes those, and enters the control group, in the order in which no namespace but that group's is on its account, unless the
// child began in the group (v2). When it is told of the group, the ids are mapped: whose a network's files in /proc are is settled when it is made.
func (p *program) namespaces() {
	p.receive("receive the control group", &p.entrances)
	if flags := p.plan.Namespaces & late &^ unix.CLONE_NEWCGROUP; flags != 0 {
		p.call(makeNamespaces, unix.SYS_UNSHARE, num(flags))
	}
	p.enter(p.entrances)
	if p.plan.Namespaces&unix.CLONE_NEWCGROUP != 0 {
		p.call("cgroup namespace", unix.SYS_UNSHARE, num(unix.CLONE_NEWCGROUP))
	}
}

// enter moves the child into a control group.
func (p *program) enter(entrances []int32) {
	const name = "enter the control group"
	for i := range entrances {
		entrance := p.load(&entrances[i])
		p.call(name, unix.SYS_WRITE, entrance.arg(), p.str(cgroup.Entering), num(len(cgroup.Entering)))
		p.close(entrance)
	}
}

// receive waits for as many descriptors of the parent as there is room for, or for its word if that is none, and moves the room to the table's
// memory.
func (p *program) receive(name string, fds *[]int32) {
	size := unix.CmsgSpace(4 * len(*fds))
	buffer := p.room(uintptr(size))
	*fds = unsafe.Slice((*int32)(unsafe.Add(buffer, unix.CmsgLen(0))), len(*fds))
	for i := range *fds {
		(*fds)[i] = -1
	}
	payload, _ := place(p.table, [8]byte{})
	iov, _ := place(p.table, unix.Iovec{Base: &payload[0], Len: 1})
	_, msg := place(p.table, unix.Msghdr{Iov: iov, Iovlen: 1, Control: (*byte)(buffer), Controllen: uint64(size)})
	p.call(name, unix.SYS_RECVMSG, num(p.control), msg, num(unix.MSG_CMSG_CLOEXEC)).must = true
}

// received loads a descriptor that the parent sent.
func (p *program) received(i int) reg { return p.load(&p.fds[i]) }

// identity makes the child root of its own world.
func (p *program) identity() {
	p.becomeRoot()
	if h := p.plan.Hostname; h != "" {
		p.call("hostname", unix.SYS_SETHOSTNAME, p.str(h), num(len(h)))
	}
	if d := p.plan.Domainname; d != "" {
		p.call("domain name", unix.SYS_SETDOMAINNAME, p.str(d), num(len(d)))
	}
}

// becomeRoot takes the ids of the root of the child's user namespace, and a session of its own.
func (p *program) becomeRoot() {
	p.call("clear groups", unix.SYS_SETGROUPS, num(0), num(0))
	p.call("group root", unix.SYS_SETRESGID, num(0), num(0), num(0))
	p.call("user root", unix.SYS_SETRESUID, num(0), num(0), num(0))
	p.call("session", unix.SYS_SETSID)
	p.call("umask", unix.SYS_UMASK, num(0))
	// A keyring of its own, where the kernel has them.
	p.call("keyring", unix.SYS_KEYCTL, num(unix.KEYCTL_JOIN_SESSION_KEYRING), num(0)).
		tolerate(unix.ENOSYS, unix.EPERM, unix.EDQUOT, unix.EACCES)
}

// enterWorkDir opens the working directory, making it if the image lacks it.
func (p *program) enterWorkDir() {
	if p.plan.Process.Cwd == "." {
		p.workDir = p.root
		return
	}
	p.workDir = p.directory("working directory /"+p.plan.Process.Cwd, p.plan.Process.Cwd, resolveInRoot)
}

// pivot makes the root mount the root directory and drops the host's.
func (p *program) pivot() {
	if p.plan.ReadOnlyRoot {
		p.setAttr("make the root read-only", p.root, unix.MOUNT_ATTR_RDONLY, 0)
	}
	p.call("enter the root", unix.SYS_FCHDIR, p.root.arg())
	p.call("pivot_root", unix.SYS_PIVOT_ROOT, p.str("."), p.str("."))
	// Each call takes the topmost of what is stacked here: what attachRoot put over the host's root, and then that with all below
	// it. One call too few would leave the host's root behind "/..".
	for range p.stacked + 1 {
		p.call("drop the host's root", unix.SYS_UMOUNT2, p.str("."), num(unix.MNT_DETACH))
	}
	p.call("enter /", unix.SYS_CHDIR, p.str("/"))
	if flags := p.plan.RootPropagation; flags != 0 {
		p.call("propagation of the root", unix.SYS_MOUNT, p.str(""), p.str("/"), p.str(""), num(flags), num(0))
	}
}

// interfaceFlags is struct ifreq as SIOCSIFFLAGS reads it.
type interfaceFlags struct {
	name  [16]byte
	flags uint16
	_     [22]byte
}

// loopback brings the loopback interface of a new network up.
func (p *program) loopback() {
	if p.plan.Namespaces&unix.CLONE_NEWNET == 0 {
		return
	}
	_, request := place(p.table, interfaceFlags{name: [16]byte{'l', 'o'}, flags: unix.IFF_UP})
	s := p.take()
	open := p.call("loopback", unix.SYS_SOCKET, num(unix.AF_INET), num(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), num(0))
	open.out = s
	open.tolerate(unix.EAFNOSUPPORT)
	at := p.here()
	p.call("loopback up", unix.SYS_IOCTL, s.arg(), num(unix.SIOCSIFFLAGS), request)
	p.close(s)
	p.land(at)
}

// waitForStart tells the parent that all is ready and waits for its word.
func (p *program) waitForStart() {
	p.tell(stepReady)
	if p.starter {
		socket := p.received(p.starterAt)
		conn := p.result("wait for start", unix.SYS_ACCEPT4, socket.arg(), num(0), num(0), num(unix.SOCK_CLOEXEC))
		p.call("wait for start", unix.SYS_DUP3, conn.arg(), num(p.control), num(unix.O_CLOEXEC))
		p.close(conn)
		p.close(socket)
	}
	p.hear("wait for start")
}

// tell reports a step to the parent.
func (p *program) tell(step uint64) {
	_, word := place(p.table, report{step: step})
	p.call("report", unix.SYS_WRITE, num(p.control), word, num(reportSize))
}

// hear waits for a byte of the parent.
func (p *program) hear(name string) {
	_, word := place(p.table, [8]byte{})
	p.call(name, unix.SYS_READ, num(p.control), word, num(1)).must = true
}

// pauseMounted lets the parent do something between the mounts and the drop of the host's root.
func (p *program) pauseMounted() {
	if !p.pause {
		return
	}
	p.tell(stepMounted)
	p.hear("wait for hooks")
}

// exec runs the program: the first of the paths that there is.
func (p *program) exec() {
	args, env := p.strs(p.plan.Process.Args), p.strs(p.plan.Process.Env)
	name := "exec " + p.plan.Process.Args[0]
	for i, path := range p.plan.Process.Programs {
		s := p.call(name, unix.SYS_EXECVE, p.str(path), args, env)
		if i < len(p.plan.Process.Programs)-1 {
			s.tolerate(unix.ENOENT, unix.ENOTDIR, unix.EACCES)
		}
	}
}
