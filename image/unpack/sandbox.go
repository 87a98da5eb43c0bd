package unpack

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// kept are the capabilities that Apply needs: to give files away, to look into
// and fix directories it gave away, to keep setuid and setgid bits, to make
// devices, and to set file capabilities.
func kept() []uintptr {
	return []uintptr{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_MKNOD, unix.CAP_SETFCAP,
	}
}

// denied are the system calls that the child has no use for and that reach
// beyond files: the sandbox's fourth wall, after namespaces, the empty root and
// the missing capabilities.
func denied() []string {
	return []string{
		"mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick",
		"mount_setattr", "unshare", "setns", "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev",
		"socket", "socketpair", "connect", "bind", "listen", "bpf", "perf_event_open", "userfaultfd",
		"io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key",
		"init_module", "finit_module", "delete_module", "kexec_load", "reboot", "swapon", "swapoff",
		"open_by_handle_at", "name_to_handle_at", "settimeofday", "clock_settime", "sethostname", "setdomainname",
		"personality", "quotactl", "acct",
	}
}

// childAttr are the namespaces that the child starts in. It has no user
// namespace of its own, because in one it could make no devices.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
	}
}

// enterSandbox makes the detached mount target the root of this process and
// gives up everything that applying a layer does not need. There is no way back.
func enterSandbox(target int, limits Limits) error {
	unix.Umask(0)
	if err := pivot(target); err != nil {
		return err
	}
	if err := setRlimits(limits); err != nil {
		return err
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	return loadSeccomp()
}

// pivot leaves the target as the only mount. It is first attached over /proc,
// which exists on every host and is not needed any more.
func pivot(target int) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.MoveMount(target, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach layer: %w", err)
	}
	if err := unix.Fchdir(target); err != nil {
		return fmt.Errorf("enter layer: %w", err)
	}
	// With both arguments the same directory the old root ends up mounted on
	// the new one, where it is detached at once.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot into layer: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach host: %w", err)
	}
	return unix.Chdir("/")
}

func setRlimits(limits Limits) error {
	for _, l := range []struct {
		resource int
		value    uint64
	}{
		{unix.RLIMIT_FSIZE, uint64(limits.Bytes)},
		{unix.RLIMIT_NOFILE, 1024}, // the cache, the parents, and a few
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_CPU, 3600}, // seconds; the largest layers take minutes
	} {
		if err := unix.Prlimit(0, l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}, nil); err != nil {
			return fmt.Errorf("set resource limit %d: %w", l.resource, err)
		}
	}
	return nil
}

// dropCapabilities leaves only the kept ones, in every set of every thread, and
// none that an execve could bring back.
func dropCapabilities() error {
	var keep uint64
	for _, c := range kept() {
		keep |= 1 << c
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := onThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c)
		if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: this kernel has fewer
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	err := onThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])))
	if err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// loadSeccomp sets no_new_privs and the filter, on every thread.
func loadSeccomp() error {
	err := seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls:      []seccomp.SyscallGroup{{Names: denied(), Action: seccomp.ActionErrno}},
		},
	})
	if err != nil {
		return fmt.Errorf("load seccomp filter: %w", err)
	}
	return nil
}
