package supervisor

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrKernel is returned when the kernel is too old for containers.
var ErrKernel = errors.New("kernel too old")

// The oldest kernel: cgroup.kill is the last of the calls that launches need.
const (
	leastMajor = 5
	leastMinor = 14
)

// checkKernel refuses a kernel on which no container could be made, before anything fails for a reason that nobody would see.
func checkKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("kernel version: %w", err)
	}
	return kernelServes(unix.ByteSliceToString(u.Release[:]))
}

func kernelServes(release string) error {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("kernel version %.64q: %w", release, err)
	}
	if major > leastMajor || major == leastMajor && minor >= leastMinor {
		return nil
	}
	return fmt.Errorf("%w: Linux %s, containers need %d.%d, and 5.19 to mount images: install a newer kernel; --runtime runc replaces the launcher only, and gets its root file systems by the same mounts",
		ErrKernel, release, leastMajor, leastMinor)
}
