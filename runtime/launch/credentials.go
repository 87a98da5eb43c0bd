package launch

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// lastCapability is the highest number that the kernel's sets have room for.
const lastCapability = 63

// known are the capabilities that the kernel knows.
var known = sync.OnceValue(func() (out uint64) {
	for n := range lastCapability + 1 {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); !errors.Is(err, unix.EINVAL) {
			out |= 1 << n
		}
	}
	return out
})

// credentials gives up, step by step, everything that the program is not to have. Each step needs what a later one
// drops, so the order matters.
func (p *program) credentials() {
	proc := &p.plan.Process
	p.call("enter the working directory", unix.SYS_FCHDIR, p.workDir.arg())
	p.call("umask", unix.SYS_UMASK, num(proc.Umask))
	if p.plan.Personality.Set {
		p.call("personality", unix.SYS_PERSONALITY, num(p.plan.Personality.Domain))
	}
	if !proc.NoNewPrivs {
		p.seccomp() // needs CAP_SYS_ADMIN, so it can't come last
	}
	for n := range lastCapability + 1 {
		if known()&^proc.Capabilities.Bounding&(1<<n) != 0 {
			p.call("drop a capability", unix.SYS_PRCTL, num(unix.PR_CAPBSET_DROP), num(n), num(0), num(0), num(0))
		}
	}
	p.user()
	if proc.NoNewPrivs {
		p.call("no new privileges", unix.SYS_PRCTL, num(unix.PR_SET_NO_NEW_PRIVS), num(1), num(0), num(0), num(0))
	}
	p.capabilities()
	p.call("close descriptors", unix.SYS_CLOSE_RANGE, num(p.control), num(^uint32(0)), num(unix.CLOSE_RANGE_CLOEXEC)) // I1
	if proc.NoNewPrivs {
		p.seccomp() // I4
	}
}

// user changes to the process's ids, keeping the permitted capabilities for a moment.
func (p *program) user() {
	proc := &p.plan.Process
	groups := num(0)
	if len(proc.Groups) > 0 {
		groups = placeAll(p.table, proc.Groups)
	}
	p.call("groups", unix.SYS_SETGROUPS, num(len(proc.Groups)), groups)
	p.call("keep capabilities", unix.SYS_PRCTL, num(unix.PR_SET_KEEPCAPS), num(1), num(0), num(0), num(0))
	p.call("group", unix.SYS_SETRESGID, num(proc.GID), num(proc.GID), num(proc.GID))
	p.call("user", unix.SYS_SETRESUID, num(proc.UID), num(proc.UID), num(proc.UID))
	p.call("keep capabilities", unix.SYS_PRCTL, num(unix.PR_SET_KEEPCAPS), num(0), num(0), num(0), num(0))
	// The change of user made the process dumpable again.
	p.call("protect memory", unix.SYS_PRCTL, num(unix.PR_SET_DUMPABLE), num(0), num(0), num(0), num(0))
}

// capabilityHeader and capabilityData are those of linux/capability.h, version 3.
type capabilityHeader struct {
	version uint32
	_       int32 // whose; 0 is the caller
}

type capabilityData struct {
	effective, permitted, inheritable uint32
}

const capabilityVersion = 0x20080522

func (p *program) capabilities() {
	sets := &p.plan.Process.Capabilities
	half := func(shift int) capabilityData {
		return capabilityData{
			effective:   uint32(sets.Effective >> shift),
			permitted:   uint32(sets.Permitted >> shift),
			inheritable: uint32(sets.Inheritable >> shift),
		}
	}
	_, header := place(p.table, capabilityHeader{version: capabilityVersion})
	_, data := place(p.table, [2]capabilityData{half(0), half(32)})
	p.call("clear ambient capabilities", unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT), num(unix.PR_CAP_AMBIENT_CLEAR_ALL), num(0), num(0), num(0))
	p.call("set capabilities", unix.SYS_CAPSET, header, data)
	for n := range lastCapability + 1 {
		if sets.Ambient&(1<<n) != 0 {
			p.call("raise an ambient capability", unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT), num(unix.PR_CAP_AMBIENT_RAISE), num(n), num(0), num(0))
		}
	}
}

func (p *program) seccomp() {
	f := p.plan.Seccomp
	if f == nil {
		return
	}
	// struct sock_fprog, with the address of the program as a number.
	_, prog := place(p.table, struct {
		length  uint16
		program uintptr
	}{uint16(len(f.Program)), placeAll(p.table, f.Program).value})
	p.call("load the seccomp filter", unix.SYS_SECCOMP, num(unix.SECCOMP_SET_MODE_FILTER), num(f.Flags), prog)
}
