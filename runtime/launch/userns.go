package launch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/spec"
)

// NewUserNS makes a user namespace with the ids of a plan, and no process in it: mounts need one to map ids. The caller
// closes it.
func NewUserNS(plan *spec.Plan) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	t := newTable(nil)
	t.call("protect memory", unix.SYS_PRCTL, num(unix.PR_SET_DUMPABLE), num(0), num(0), num(0), num(0))
	t.call("close", unix.SYS_CLOSE, num(pair[0]))
	_, word := place(t, [8]byte{})
	t.call("wait", unix.SYS_READ, num(pair[1]), word, num(1))
	if err := t.sealed(); err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	pid, pidfd, err := fork(t, pair[1], unix.CLONE_NEWUSER, -1)
	unix.Close(pair[1])
	if err != nil && pid == 0 {
		unix.Close(pair[0])
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	p := &Process{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), control: os.NewFile(uintptr(pair[0]), "control")}
	defer p.Abort()
	if err != nil {
		return nil, err
	}
	if err := mapIDs(pid, plan); err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
}
