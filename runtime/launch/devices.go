package launch

import (
	"path"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/spec"
)

// devices fills /dev: the devices and links that every container has, and the plan's further devices. They are the host's own (I3), which
// works in a user namespace, too, and on mounts that let nobody use nodes; a bundle's may be nodes.
func (p *program) devices() {
	if p.plan.StockDev {
		dev := p.directory("devices", "dev", resolveTrusted)
		for i, d := range hostDevices() {
			p.stockDevice(dev, i, d)
		}
		for _, l := range [][2]string{
			{"/proc/self/fd", "fd"},
			{"/proc/self/fd/0", "stdin"},
			{"/proc/self/fd/1", "stdout"},
			{"/proc/self/fd/2", "stderr"},
			{"pts/ptmx", "ptmx"},
		} {
			p.call("link /dev/"+l[1], unix.SYS_SYMLINKAT, p.str(l[0]), dev.arg(), p.str(l[1])).tolerate(unix.EEXIST)
		}
		p.close(dev)
	}
	for i, d := range p.plan.Devices {
		p.furtherDevice(i, d)
	}
}

func (p *program) stockDevice(dev reg, i int, d device) {
	name := "device /dev/" + d.name
	if p.plan.MakeNodes {
		p.call(name, unix.SYS_MKNODAT, dev.arg(), p.str(d.name), num(unix.S_IFCHR|0o666), num(unix.Mkdev(d.major, d.minor))).
			tolerate(unix.EEXIST)
		return
	}
	p.call(name, unix.SYS_MKNODAT, dev.arg(), p.str(d.name), num(unix.S_IFREG|0o666), num(0)).tolerate(unix.EEXIST)
	mounted := p.received(p.devicesAt + i)
	p.call(name, unix.SYS_MOVE_MOUNT, mounted.arg(), p.str(""), dev.arg(), p.str(d.name), num(unix.MOVE_MOUNT_F_EMPTY_PATH))
	p.give(mounted) // stays open: masks are clones of it
}

func (p *program) furtherDevice(i int, d spec.Device) {
	name := "device /" + d.Target
	if !p.plan.MakeNodes && d.Type != unix.S_IFIFO {
		mounted := p.received(p.furtherAt + i)
		p.onto(name, mounted, p.file(name, d.Target, resolveTrusted))
		p.close(mounted)
		return
	}
	dir, base := path.Split(d.Target)
	at := p.root
	if dir = strings.TrimSuffix(dir, "/"); dir != "" {
		at = p.directory(name, dir, resolveTrusted)
	}
	// A bundle may name a device that every container has, to give it another mode.
	p.call(name, unix.SYS_UNLINKAT, at.arg(), p.str(base), num(0)).tolerate(unix.ENOENT)
	p.call(name, unix.SYS_MKNODAT, at.arg(), p.str(base), num(d.Type|d.Mode), num(unix.Mkdev(d.Major, d.Minor)))
	p.call(name, unix.SYS_FCHOWNAT, at.arg(), p.str(base), num(d.UID), num(d.GID), num(unix.AT_SYMLINK_NOFOLLOW))
	if at != p.root {
		p.close(at)
	}
}

// windowSize is struct winsize.
type windowSize struct {
	rows, columns uint16
	_, _          uint16 // pixels
}

// rights is a control message with one descriptor, as the kernel reads it.
type rights struct {
	header unix.Cmsghdr
	fd     int32
	_      int32
}

// console makes a terminal of the container's own its standard streams and /dev/console, and sends the other end to the
// parent. No path that an image could redirect is followed, and the terminal goes onto /dev/console by descriptor
// (CVE-2025-52565).
func (p *program) console() {
	proc := &p.plan.Process
	if !proc.Terminal {
		return
	}
	const name = "terminal"
	request, size := p.resolve(unix.O_RDWR|unix.O_NOCTTY, 0, resolveTrusted)
	main := p.result(name, unix.SYS_OPENAT2, p.root.arg(), p.str("dev/pts/ptmx"), request, size)
	_, unlocked := place(p.table, int32(0))
	p.call(name, unix.SYS_IOCTL, main.arg(), num(unix.TIOCSPTLCK), unlocked)
	peer := p.result(name, unix.SYS_IOCTL, main.arg(), num(unix.TIOCGPTPEER), num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	if proc.Rows != 0 || proc.Columns != 0 {
		_, size := place(p.table, windowSize{rows: proc.Rows, columns: proc.Columns})
		p.call(name, unix.SYS_IOCTL, main.arg(), num(unix.TIOCSWINSZ), size)
	}
	p.call(name, unix.SYS_FCHOWN, peer.arg(), num(proc.UID), num(^uint32(0)))
	target := p.file("/dev/console", "dev/console", resolveTrusted)
	clone := p.result("/dev/console", unix.SYS_OPEN_TREE, peer.arg(), p.str(""), num(cloneOf))
	p.onto("/dev/console", clone, target)
	p.close(clone)

	message, _ := place(p.table, rights{header: unix.Cmsghdr{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS}})
	message.header.SetLen(unix.CmsgLen(4))
	word, _ := place(p.table, report{step: stepConsole})
	iov, _ := place(p.table, unix.Iovec{Base: (*byte)(unsafe.Pointer(word))})
	iov.SetLen(reportSize)
	msg, address := place(p.table, unix.Msghdr{Iov: iov, Iovlen: 1, Control: (*byte)(unsafe.Pointer(message))})
	msg.SetControllen(unix.CmsgSpace(4))
	p.store(main, &message.fd)
	p.call(name, unix.SYS_SENDMSG, num(p.control), address, num(unix.MSG_NOSIGNAL))
	p.close(main)
	for fd := range 3 {
		p.call(name, unix.SYS_DUP3, peer.arg(), num(fd), num(0))
	}
	p.call("controlling terminal", unix.SYS_IOCTL, num(0), num(unix.TIOCSCTTY), num(0))
	p.close(peer)
}
