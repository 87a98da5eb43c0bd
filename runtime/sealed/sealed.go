package sealed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// seals are all that keep the content as it is.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Running reports whether the program runs from a sealed copy.
func Running() (bool, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return false, fmt.Errorf("find the running program: %w", err)
	}
	defer exe.Close()
	have, err := unix.FcntlInt(exe.Fd(), unix.F_GET_SEALS, 0)
	if errors.Is(err, unix.EINVAL) { // a file system without seals
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read seals: %w", err)
	}
	return have&seals == seals, nil
}

// Exec replaces the process by its sealed copy. It returns nil if it runs from one already, which then has the given name, and
// otherwise only if that fails. The replaced program starts again from the beginning of main, on the thread of the caller.
func Exec(name string) error {
	done, err := Running()
	if err != nil {
		return err
	}
	if done {
		return SetName(name)
	}
	return Replace(name, "/proc/self/exe", os.Environ())
}

// SetName gives all threads of the process its name, which the kernel took from the path of the copy: that is a number, or exe. Threads to
// come get it from those that there are, and so do children until they run another program.
func SetName(name string) error {
	files, err := filepath.Glob("/proc/self/task/[0-9]*/comm")
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte(name), 0); err != nil && !errors.Is(err, os.ErrNotExist) { // a thread may have ended
			return fmt.Errorf("name the process: %w", err)
		}
	}
	return nil
}

// Replace replaces the process by a sealed copy of the program at path, with the same arguments and the given environment.
// It returns only if that fails.
func Replace(name, path string, env []string) error {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before 6.3, where every memfd is executable
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fmt.Errorf("copy program to memory: %w", err)
	}
	defer unix.Close(fd)
	if err := fill(fd, path); err != nil {
		return fmt.Errorf("copy program to memory: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal program: %w", err)
	}
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), os.Args, env)
	return fmt.Errorf("run sealed program: %w", err)
}

// fill copies a program.
func fill(fd int, path string) error {
	exe, err := os.Open(path)
	if err != nil {
		return err
	}
	defer exe.Close()
	st, err := exe.Stat()
	if err != nil {
		return err
	}
	for left := st.Size(); left > 0; {
		n, err := unix.Sendfile(fd, int(exe.Fd()), nil, int(left))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n == 0 && err == nil {
			return fmt.Errorf("program is %d bytes shorter than it was", left)
		}
		left -= int64(max(n, 0))
	}
	return nil
}
