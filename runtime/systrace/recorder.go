package systrace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Errors of this package.
var (
	// ErrKernel is returned by Open when this kernel, or this process, can't record; its text says why and what to do.
	ErrKernel = errors.New("system calls can't be recorded here")
	// ErrFull is returned by Follow when too many namespaces are followed.
	ErrFull = errors.New("too many containers are followed at once")
	// ErrShared is returned by Follow for a process that has this process's own pid namespace: everything else there would count.
	ErrShared = errors.New("the process shares the pid namespace of its node")
)

// Call is a system call.
type Call struct {
	// Number is that of the ABI.
	Number uint32
	// Compat says that it came by the machine's 32-bit ABI.
	Compat bool
}

// Calls is what a Recorder has seen, ascending.
type Calls struct {
	Used, Refused []Call
	// OtherUsed and OtherRefused say whether there were calls with numbers that no ABI here has.
	OtherUsed, OtherRefused bool
}

// Recorder records the calls of the containers that it follows. Make one with Open.
type Recorder struct {
	// constant after Open
	maps  *maps
	links []link.Link
	own   unix.Stat_t // this process's pid namespace

	mu sync.Mutex
	// The fields below are guarded by mu.
	followed []*space
	pending  map[Call]bool // those that were under way when a namespace began to be followed
}

// Open attaches the programs. It takes some milliseconds, and needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN.
func Open() (*Recorder, error) {
	r := &Recorder{pending: map[Call]bool{}}
	if err := unix.Stat("/proc/self/ns/pid", &r.own); err != nil {
		return nil, fmt.Errorf("find the pid namespace: %w", err)
	}
	var err error
	if r.maps, err = newMaps(); err != nil {
		return nil, explain(err)
	}
	for _, one := range []struct {
		point   string
		program asm.Instructions
	}{{"sys_enter", enterProgram(r.maps, r.own)}, {"sys_exit", exitProgram(r.maps, r.own)}} {
		attached, err := attach(one.point, one.program)
		if err != nil {
			return nil, errors.Join(explain(err), r.Close())
		}
		r.links = append(r.links, attached)
	}
	return r, nil
}

func attach(point string, instructions asm.Instructions) (link.Link, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "skep_" + point, Type: ebpf.RawTracepoint, Instructions: instructions, License: license,
	})
	if err != nil {
		return nil, err
	}
	defer program.Close() // the link keeps it
	return link.AttachRawTracepoint(link.RawTracepointOptions{Name: point, Program: program})
}

// explain says what an error of Open means.
func explain(err error) error {
	var why string
	switch {
	case errors.Is(err, unix.ENOSYS):
		why = "the kernel has no bpf(2): run one with CONFIG_BPF_SYSCALL"
	case errors.Is(err, unix.EPERM) && !confidential():
		why = "bpf(2) is not permitted: the daemon needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON, and a seccomp filter of its own must allow bpf"
	case errors.Is(err, unix.ENOENT):
		why = "the kernel has no tracepoints of system calls: run one with CONFIG_FTRACE_SYSCALLS"
	case confidential():
		why = "the kernel is in lockdown mode confidentiality, in which no program reads its memory: boot with lockdown=integrity"
	default:
		return fmt.Errorf("record system calls: %w", err)
	}
	return fmt.Errorf("%w: %s: %w", ErrKernel, why, err)
}

// confidential reports whether the kernel's memory is closed to programs, kernel_lockdown(7).
func confidential() bool {
	mode, err := os.ReadFile("/sys/kernel/security/lockdown")
	return err == nil && bytes.Contains(mode, []byte("[confidentiality]"))
}

// Close detaches the programs and frees everything.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, attached := range r.links {
		errs = append(errs, attached.Close())
	}
	r.links = nil
	for _, s := range r.followed {
		s.close()
	}
	r.followed = nil
	r.maps.close()
	return errors.Join(errs...)
}

// Follow has the calls of all processes in the pid namespace of a process count from now on. The process is the namespace's first one:
// when it has ended, the namespace is forgotten. Following one again changes nothing. The error is ErrFull, ErrShared, or
// os.ErrProcessDone.
func (r *Recorder) Follow(pid int) error {
	s, err := openSpace(pid)
	if err != nil {
		return err
	}
	if s.inode == r.own.Ino {
		s.close()
		return ErrShared
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget()
	if slices.ContainsFunc(r.followed, func(have *space) bool { return have.inode == s.inode }) {
		s.close()
		return nil
	}
	if len(r.followed) == maxNamespaces {
		s.close()
		return ErrFull
	}
	under, err := s.underWay()
	if err == nil {
		for _, t := range under {
			_ = r.maps.inside.Update(s.key(t.thread), t.call.Number, ebpf.UpdateNoExist) // else it may seem refused, which is all
			r.pending[t.call] = true
		}
		r.followed = append(r.followed, s)
		err = r.write()
	}
	if err != nil {
		s.close()
		return fmt.Errorf("follow the process %d: %w", pid, err)
	}
	return nil
}

// forget drops the namespaces that have ended. The caller holds mu.
func (r *Recorder) forget() {
	before := len(r.followed)
	r.followed = slices.DeleteFunc(r.followed, func(s *space) bool {
		if !s.ended() {
			return false
		}
		s.close()
		return true
	})
	if len(r.followed) != before {
		_ = r.write() // else the programs compare with numbers that nobody has
	}
}

// write tells the programs what is followed. The caller holds mu.
func (r *Recorder) write() error {
	value := make([]uint64, maxNamespaces)
	for i, s := range r.followed {
		value[i] = s.inode
	}
	return r.maps.namespaces.Update(uint32(0), value, ebpf.UpdateAny)
}

// Read returns what was seen since Open.
func (r *Recorder) Read() (Calls, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget()
	seen := make([]byte, seenSize)
	if err := r.maps.seen.Lookup(uint32(0), &seen); err != nil {
		return Calls{}, fmt.Errorf("read the calls that were seen: %w", err)
	}
	for call := range r.pending {
		seen[seenUsed+indexOf(call)] = 1
	}
	return Calls{
		Used: callsOf(seen[seenUsed:seenRefused]), Refused: callsOf(seen[seenRefused:seenOther]),
		OtherUsed: seen[seenOther] != 0, OtherRefused: seen[seenOther+1] != 0,
	}, nil
}

func indexOf(c Call) int {
	if c.Compat {
		return maxNumber + int(c.Number)
	}
	return int(c.Number)
}

func callsOf(seen []byte) (calls []Call) {
	for i, b := range seen {
		if b != 0 {
			calls = append(calls, Call{Number: uint32(i % maxNumber), Compat: i >= maxNumber})
		}
	}
	return calls
}
