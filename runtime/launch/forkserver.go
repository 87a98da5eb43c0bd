package launch

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ServeForks is all that a forker's process does: it forks for its parent until that goes away. args are what the parent appended to
// the command.
//
// It makes no garbage, so that its memory stays as it is: small, and without pages that a fork makes the kernel copy.
func ServeForks(args []string) error {
	if len(args) != 1 {
		return errors.New("this command is for skep-runtime itself")
	}
	base, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return fmt.Errorf("address of the tables: %w", err)
	}
	debug.SetGCPercent(-1)
	runtime.LockOSThread() // whose children begin in other pid namespaces
	s := &forkServer{}
	if s.own, err = unix.Open("/proc/self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	s.base, err = unix.MmapPtr(-1, 0, unsafe.Add(nil, base), regions*regionSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE)
	if err != nil {
		if !errors.As(err, &s.errno) {
			return err
		}
	} else if uintptr(s.base) != uintptr(base) { // a kernel before 4.17
		s.errno = unix.EEXIST
	}
	s.prepare()
	for pid, pidfd := 0, -1; s.answer(pid, pidfd) && s.errno != unix.EEXIST; pid, pidfd = s.fork() {
		if !s.forget() || !s.receive() { // the parent waits for none of this
			break
		}
	}
	return nil
}

// forkServer has all the memory that serving takes.
type forkServer struct {
	base   unsafe.Pointer
	own    int           // the pid namespace
	errno  syscall.Errno // of what was asked last
	joined bool
	count  int            // of descriptors that were received
	table  unsafe.Pointer // that was copied, or nil

	request    forkRequest
	requestIov unix.Iovec
	requestMsg unix.Msghdr
	received   struct {
		header unix.Cmsghdr
		fds    [8]int32
	}

	result    forkAnswer
	resultIov unix.Iovec
	resultMsg unix.Msghdr
	sent      rights

	args      cloneArgs
	registers [registers]uintptr
	failure   report
}

// prepare makes the messages point to their contents.
func (s *forkServer) prepare() {
	s.requestIov.Base = (*byte)(unsafe.Pointer(&s.request))
	s.requestIov.SetLen(int(unsafe.Sizeof(s.request)))
	s.requestMsg.Iov, s.requestMsg.Iovlen = &s.requestIov, 1
	s.requestMsg.Control = (*byte)(unsafe.Pointer(&s.received))
	s.resultIov.Base = (*byte)(unsafe.Pointer(&s.result))
	s.resultIov.SetLen(int(unsafe.Sizeof(s.result)))
	s.resultMsg.Iov, s.resultMsg.Iovlen = &s.resultIov, 1
	s.sent.header = unix.Cmsghdr{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS}
	s.sent.header.SetLen(unix.CmsgLen(4))
}

// answer sends what became of a request, and reports whether somebody is there to read it.
func (s *forkServer) answer(pid, pidfd int) bool {
	s.result = forkAnswer{pid: int32(pid), errno: int32(s.errno), joined: s.joined}
	s.resultMsg.Control, s.resultMsg.Controllen = nil, 0
	if pidfd >= 0 {
		s.sent.fd = int32(pidfd)
		s.resultMsg.Control = (*byte)(unsafe.Pointer(&s.sent))
		s.resultMsg.SetControllen(unix.CmsgSpace(4))
	}
	_, errno := s.message(unix.SYS_SENDMSG, &s.resultMsg, unix.MSG_NOSIGNAL)
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
	return errno == 0
}

// receive waits for a request, and reports whether there is one.
func (s *forkServer) receive() bool {
	s.requestMsg.SetControllen(int(unsafe.Sizeof(s.received)))
	s.received.header = unix.Cmsghdr{}
	n, errno := s.message(unix.SYS_RECVMSG, &s.requestMsg, unix.MSG_CMSG_CLOEXEC)
	return errno == 0 && n == unsafe.Sizeof(s.request)
}

func (s *forkServer) message(nr uintptr, m *unix.Msghdr, flags uintptr) (uintptr, syscall.Errno) {
	for {
		n, _, errno := unix.Syscall(nr, forkerSocket, uintptr(unsafe.Pointer(m)), flags)
		if errno != unix.EINTR {
			return n, errno
		}
	}
}

// fork makes the child that was asked for. It leaves errno behind.
func (s *forkServer) fork() (pid, pidfd int) {
	s.count = max(0, (int(s.received.header.Len)-unix.CmsgLen(0))/4)
	if pid, s.errno = s.forkWith(s.count); s.errno != 0 {
		return pid, -1
	}
	return pid, int(s.args.result)
}

// forget goes back to what was before fork, and reports whether it could.
func (s *forkServer) forget() bool {
	for i, fd := range s.received.fds[:s.count] {
		unix.Close(int(fd))
		unix.Close(forkerFirst + i)
	}
	s.count = 0
	if s.table != nil { // it is the child's alone now: nothing of it is copied to the next one, or has to be when the next table is read
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(s.table), regionSize, unix.MADV_DONTNEED); errno != 0 {
			return false
		}
		s.table = nil
	}
	if s.joined {
		if _, _, errno := unix.Syscall(unix.SYS_SETNS, uintptr(s.own), unix.CLONE_NEWPID, 0); errno != 0 {
			return false
		}
		s.joined = false
	}
	return true
}

func (s *forkServer) forkWith(count int) (int, syscall.Errno) {
	r := &s.request
	want := int(r.descriptors)
	s.args = cloneArgs{flags: r.flags | unix.CLONE_PIDFD | unix.CLONE_PARENT}
	if r.group {
		s.args.flags |= unix.CLONE_INTO_CGROUP
		s.args.cgroup = uint64(forkerFirst + want)
		want++
	}
	if r.within {
		want++
	}
	if count != want || r.region >= regions || r.words == 0 || r.words > codeWords || r.used < uint64(codeSize) || r.used > regionSize {
		return 0, unix.EBADMSG
	}
	for i, fd := range s.received.fds[:count] { // to the numbers that the table names
		if err := unix.Dup3(int(fd), forkerFirst+i, unix.O_CLOEXEC); err != nil {
			return 0, unix.EBADF
		}
	}
	at, offset := unsafe.Add(s.base, uintptr(r.region)*regionSize), int64(r.region)*regionSize
	s.table = at
	if errno := s.read(at, uintptr(r.words)*unsafe.Sizeof(uint64(0)), offset); errno != 0 {
		return 0, errno
	}
	if errno := s.read(unsafe.Add(at, codeSize), uintptr(r.used)-codeSize, offset+int64(codeSize)); errno != 0 {
		return 0, errno
	}
	if r.within {
		if _, _, errno := unix.Syscall(unix.SYS_SETNS, uintptr(forkerFirst+count-1), unix.CLONE_NEWPID, 0); errno != 0 {
			return 0, errno
		}
		s.joined = true
	}
	s.registers, s.failure = [registers]uintptr{}, report{}
	child, errno := clone(&s.args, (*uint64)(at), uintptr(r.words), &s.registers, &s.failure, uintptr(r.control))
	return int(child), errno
}

// read copies a part of the parent's tables to the same place here.
func (s *forkServer) read(at unsafe.Pointer, n uintptr, offset int64) syscall.Errno {
	got, _, errno := unix.Syscall6(unix.SYS_PREAD64, forkerMemory, uintptr(at), n, uintptr(offset), 0, 0)
	if errno == 0 && got != n {
		return unix.EBADMSG
	}
	return errno
}
