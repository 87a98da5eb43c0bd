package lsm

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of what isolates containers beside the namespaces that each kernel has.
const (
	UserNS  = "userns"
	Seccomp = "seccomp"
	// Landlock confines to the container's own files.
	LandlockName = "landlock"
	AppArmorName = "apparmor"
	SELinuxName  = "selinux"
)

// LeastLandlock is the first ABI of Landlock with which processes may move files between directories.
const LeastLandlock = 2

// Landlock asks the kernel for the version of its Landlock; 0 where there is none.
func Landlock() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// Isolation names what every container here is isolated by, unless it asks for less. AppArmor is there once the default profile is loaded,
// SELinux where it enforces a policy that knows containers.
func Isolation() []string {
	var out []string
	for _, part := range []struct {
		in   bool
		name string
	}{
		{userNamespaces(), UserNS},
		{exists("/proc/sys/kernel/seccomp"), Seccomp},
		{Landlock() >= LeastLandlock, LandlockName},
		{ProfileLoaded(), AppArmorName},
		{SELinux() && SELinuxEnforces(), SELinuxName},
	} {
		if part.in {
			out = append(out, part.name)
		}
	}
	return out
}

// userNamespaces reports whether the kernel has user namespaces, and some may be made.
func userNamespaces() bool {
	most, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	return err == nil && strings.TrimSpace(string(most)) != "0" && exists("/proc/self/ns/user")
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
