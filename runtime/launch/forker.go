package launch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Forker is a process that forks for this one. It has little memory, so that little has to be copied for each child, and none of this
// one's pages must be copied when they are next written; of what this process knows of other containers, the child gets nothing.
//
//	this process                        forker                          child
//	    table, in a region
//	    request, descriptors ───────────> copy of the region
//	                                      clone3, CLONE_PARENT ───────────> walks the table
//	    pid, pidfd <─────────────────────
//
// The children are this process's, not the forker's. A forker that ended is replaced by a new one; what it is not there for is forked
// by this process itself.
type Forker struct {
	command []string
	logger  *slog.Logger
	memory  *os.File // of all regions
	base    unsafe.Pointer

	mu     sync.Mutex // held while the forker works
	cmd    *exec.Cmd
	socket int // or -1: there is no forker

	free regionStack
}

// regionStack has the regions that nobody uses. What was used last is taken first: what is never used takes no memory.
type regionStack struct {
	mu      sync.Mutex
	regions []*region
}

// region is memory for one table. The forker has a copy at the same addresses.
type region struct {
	base   unsafe.Pointer
	index  int
	forker *Forker
}

const (
	// regions is how many tables are written at once; whoever finds none free does without.
	regions   = 8
	codeWords = maxSteps * maxStepWords
	codeSize  = codeWords * unsafe.Sizeof(uint64(0))
	// regionSize is beyond what execve(2) takes of arguments and environment. Of what is not used there is no memory.
	regionSize = 4 << 20
	// forkerTries is how many forkers may find the addresses of the regions in use for something else, which are chosen at random.
	forkerTries = 5
	// forkTimeout in seconds is how long a forker may take. It is the kernel that takes it.
	forkTimeout = 30
)

// errForker is returned when the forker is of no use.
var errForker = errors.New("the forker did not answer")

// forkRequest asks for a child. Its descriptors, the v2 control group and the pidfd to begin with, where there are any, are sent with it.
type forkRequest struct {
	region, words uint32 // and how many words its code has
	used          uint64 // bytes of the region
	flags         uint64 // of clone3(2)
	control       uint32
	descriptors   uint32
	group, within bool
	_             [6]byte
}

// forkAnswer comes with a pidfd if errno is zero.
type forkAnswer struct {
	pid, errno int32
	joined     bool // the pid namespace, so that it was the fork that failed
	_          [3]byte
}

// The forker's descriptors. Those of a request get the numbers from forkerFirst on, above all that Go's runtime has open.
const (
	forkerSocket = 3
	forkerMemory = 4
	forkerFirst  = 64
)

// NewForker starts the command, which calls ServeForks, as a forker. Without one everything works as well, but slower: errors are for the log.
func NewForker(command []string, logger *slog.Logger) (*Forker, error) {
	f := &Forker{command: command, logger: logger, socket: -1}
	fd, err := unix.MemfdCreate("tables", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory for tables: %w", err)
	}
	f.memory = os.NewFile(uintptr(fd), "tables")
	err = f.memory.Truncate(regions * regionSize)
	if err == nil {
		f.base, err = unix.MmapPtr(fd, 0, nil, regions*regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		f.memory.Close()
		return nil, fmt.Errorf("memory for tables: %w", err)
	}
	for i := range regions {
		f.free.put(&region{base: unsafe.Add(f.base, i*regionSize), index: i, forker: f})
	}
	f.mu.Lock()
	err = f.startLocked()
	f.mu.Unlock()
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// startLocked starts a forker.
func (f *Forker) startLocked() error {
	var err error
	for range forkerTries {
		if err = f.tryLocked(); !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return err
}

func (f *Forker) tryLocked() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("forker: %w", err)
	}
	other := os.NewFile(uintptr(pair[1]), "forker")
	defer other.Close()
	cmd := exec.Command(f.command[0], append(f.command[1:len(f.command):len(f.command)], fmt.Sprint(uintptr(f.base)))...)
	cmd.ExtraFiles = []*os.File{other, f.memory}
	cmd.Env = []string{"GOMAXPROCS=1"} // it has but one thing to do
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a signal from a terminal is for us to deal with
	timeout := &unix.Timeval{Sec: forkTimeout}
	err = unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, timeout)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		unix.Close(pair[0])
		return fmt.Errorf("start forker: %w", err)
	}
	f.cmd, f.socket = cmd, pair[0]
	answer, _, err := receiveAnswer(f.socket)
	if err == nil && answer.errno != 0 {
		err = unix.Errno(answer.errno)
	}
	if err != nil {
		f.stopLocked()
		return fmt.Errorf("start forker: %w", err)
	}
	return nil
}

// stopLocked ends the forker, if there is one.
func (f *Forker) stopLocked() {
	if f.socket < 0 {
		return
	}
	unix.Close(f.socket)
	f.socket = -1
	_ = f.cmd.Process.Kill() // there is nothing that it would have to finish
	_ = f.cmd.Wait()
}

// Close ends the forker, once nobody creates containers any more. Children stay.
func (f *Forker) Close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopLocked()
	f.memory.Close()
	_ = unix.MunmapPtr(f.base, regions*regionSize)
}

// take gives a region, or nil if none is free or there is no forker.
func (f *Forker) take() *region {
	if f == nil {
		return nil
	}
	return f.free.take()
}

func (s *regionStack) take() *region {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.regions) == 0 {
		return nil
	}
	r := s.regions[len(s.regions)-1]
	s.regions = s.regions[:len(s.regions)-1]
	return r
}

func (s *regionStack) put(r *region) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.regions = append(s.regions, r)
}

// code is the region's memory for steps.
func (r *region) code() []uint64 { return unsafe.Slice((*uint64)(r.base), codeWords)[:0] }

// giveBack lets another table use the region.
func (r *region) giveBack() { r.forker.free.put(r) }

// forkerNumbers are those that descriptors have when a child of the forker begins.
func forkerNumbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = forkerFirst + i
	}
	return out
}

// fork has a child walk t, with the descriptors passed, control socket included. It gives what fork gives, and errForker if there is no
// child but could be one by other means.
func (f *Forker) fork(t *table, ctl int, child offspring, passed []int) (pid, pidfd int, err error) {
	request := forkRequest{
		region: uint32(t.region.index), words: uint32(len(t.code)), used: uint64(t.used), flags: child.flags,
		control: uint32(ctl), descriptors: uint32(len(passed)), group: child.group >= 0, within: child.within >= 0,
	}
	passed = passed[:len(passed):len(passed)]
	if request.group {
		passed = append(passed, child.group)
	}
	if request.within {
		passed = append(passed, child.within)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.socket < 0 {
		return 0, -1, errForker
	}
	text := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	err = unix.Sendmsg(f.socket, text, unix.UnixRights(passed...), nil, unix.MSG_NOSIGNAL)
	var answer forkAnswer
	if err == nil {
		answer, pidfd, err = receiveAnswer(f.socket)
	}
	if err != nil {
		f.logger.Error("the process that forks containers is replaced", "error", err)
		f.stopLocked()
		if err := f.startLocked(); err != nil {
			f.logger.Error("the supervisor forks containers itself, which is slower", "error", err)
		}
		return 0, -1, errForker
	}
	switch errno := unix.Errno(answer.errno); {
	case errno != 0 && request.within && !answer.joined:
		return 0, -1, joinError(errno)
	case errno != 0:
		return 0, -1, cloneError(errno)
	}
	return int(answer.pid), pidfd, nil
}

// receiveAnswer waits for the forker.
func receiveAnswer(socket int) (answer forkAnswer, pidfd int, err error) {
	text := unsafe.Slice((*byte)(unsafe.Pointer(&answer)), unsafe.Sizeof(answer))
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn := 0, 0
	for {
		n, oobn, _, _, err = unix.Recvmsg(socket, text, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return answer, -1, err
	}
	if n != len(text) {
		return answer, -1, errForker
	}
	if oobn == 0 {
		return answer, -1, nil
	}
	if pidfd, err = oneRight(oob[:oobn]); err != nil {
		return answer, -1, err
	}
	return answer, pidfd, unix.SetNonblock(pidfd, true)
}
