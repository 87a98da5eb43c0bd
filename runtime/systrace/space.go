package systrace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// space is a pid namespace that is followed.
type space struct {
	inode uint64
	// file keeps the namespace, so that its number stays its own (S3).
	file *os.File
	// first is the pidfd of its first process.
	first int
}

// openSpace opens the pid namespace of a process.
func openSpace(pid int) (*space, error) {
	first, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("find the process %d: %w", pid, err)
	}
	s := &space{first: first}
	if s.file, err = os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil {
		s.close()
		return nil, fmt.Errorf("open the pid namespace of the process %d: %w", pid, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(int(s.file.Fd()), &st)
	if err == nil && s.ended() { // its number may have been another one's
		err = os.ErrProcessDone
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.inode = st.Ino
	return s, nil
}

func (s *space) close() {
	unix.Close(s.first)
	if s.file != nil {
		s.file.Close()
	}
}

// ended reports whether the first process has ended, and so all others.
func (s *space) ended() bool {
	fds := []unix.PollFd{{Fd: int32(s.first), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// key is a thread's in the map of those that are inside a call.
func (s *space) key(thread uint32) uint64 { return s.inode<<32 | uint64(thread) }

// underWayCall is a call that a thread is inside of. The thread's number is that in its namespace.
type underWayCall struct {
	thread uint32
	call   Call
}

// underWay finds the calls that the threads of the namespace are inside of.
func (s *space) underWay() ([]underWayCall, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	own := fmt.Sprintf("pid:[%d]", s.inode)
	var out []underWayCall
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		dir := filepath.Join("/proc", p.Name())
		if name, err := os.Readlink(filepath.Join(dir, "ns/pid")); err != nil || name != own {
			continue
		}
		compat := is32Bit(filepath.Join(dir, "exe"))
		threads, _ := filepath.Glob(filepath.Join(dir, "task/[0-9]*")) // none, if it has ended
		for _, t := range threads {
			if number, inner, ok := currentCall(t); ok {
				out = append(out, underWayCall{thread: inner, call: Call{Number: number, Compat: compat}})
			}
		}
	}
	return out, nil
}

// currentCall reads which call a thread is inside of, and the thread's number in its namespace.
func currentCall(dir string) (number, thread uint32, ok bool) {
	if name, err := os.ReadFile(filepath.Join(dir, "comm")); err != nil || string(bytes.TrimSpace(name)) == LauncherName {
		return 0, 0, false
	}
	text, err := os.ReadFile(filepath.Join(dir, "syscall")) // "running", or the number and its arguments
	if err != nil {
		return 0, 0, false
	}
	first, _, _ := strings.Cut(string(text), " ")
	n, err := strconv.ParseUint(first, 10, 32)
	if err != nil || n >= maxNumber {
		return 0, 0, false
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0, 0, false
	}
	_, ids, _ := strings.Cut(string(status), "\nNSpid:")
	ids, _, _ = strings.Cut(ids, "\n")
	fields := strings.Fields(ids) // from the outermost namespace to its own
	if len(fields) == 0 {
		return 0, 0, false
	}
	inner, err := strconv.ParseUint(fields[len(fields)-1], 10, 32)
	return uint32(n), uint32(inner), err == nil
}

// is32Bit reports whether a program is a 32-bit one.
func is32Bit(path string) bool {
	const elfClass, class32 = 4, 1
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, elfClass+1)
	_, err = io.ReadFull(f, head)
	return err == nil && string(head[:4]) == "\x7fELF" && head[elfClass] == class32
}
