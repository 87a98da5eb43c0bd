package launch

import (
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reg is a register: a place for a result that later steps use as an argument. Register 0 is none.
type reg uint8

// registers is how many there are; a power of two, so that the child can mask instead of checking bounds.
const registers = 16

// step is one system call of the child.
type step struct {
	nr   uintptr
	arg  [6]uintptr
	from [6]reg // where an argument comes from, if not 0
	out  reg    // where the result goes, if not 0
	word *int32 // of callLoad and callStore
	// A call that gives zero where must is set ends the child: end of file on the control socket (I5).
	must bool
	// Errors that don't matter; to is the step to go on with after one, or 0 for the next.
	tolerated [4]uintptr
	to        uintptr
	// again is how often EAGAIN makes the child try once more.
	again uintptr
}

// lookups is how often a path is looked up again when something anywhere on the machine was renamed meanwhile: then
// the kernel can't be sure that a ".." stayed within the root (openat2(2), EAGAIN).
const lookups = 1000

// Pseudo system calls.
const (
	// callLoad stores the integer at word in out: a received descriptor.
	callLoad = ^uintptr(0)
	// callJump goes on at to.
	callJump = ^uintptr(0) - 1
	// callStore stores from[0] at word: a descriptor to send.
	callStore = ^uintptr(0) - 2
)

// table is the program of one child, and what keeps its memory alive until the fork.
type table struct {
	steps []step
	names []string // of each step, for errors
	keep  []any    // memory that arguments point to
	free  []reg
	err   error // the first mistake in building
}

// usualSteps is about what the default configuration takes.
const usualSteps = 640

// stepBuffers are for the steps of tables: 80 KB of garbage for each launch would be half of it all.
var stepBuffers = sync.Pool{New: func() any { return new(make([]step, 0, usualSteps)) }}

func newTable() *table {
	t := &table{steps: (*stepBuffers.Get().(*[]step))[:0], names: make([]string, 0, usualSteps)}
	for r := reg(registers - 1); r > 0; r-- {
		t.free = append(t.free, r)
	}
	return t
}

// release gives up the steps, which the child has a copy of.
func (t *table) release() {
	steps := t.steps
	clear(steps) // no address of what is garbage now
	stepBuffers.Put(&steps)
	t.steps = nil
}

// arg is one argument: a constant or a register.
type arg struct {
	value uintptr
	from  reg
}

func num[N ~int | ~uint | ~uint32 | ~uint64 | ~uintptr](n N) arg { return arg{value: uintptr(n)} }

// cwd is AT_FDCWD, -100.
func cwd() arg { return arg{value: ^uintptr(99)} }

func (r reg) arg() arg { return arg{from: r} }

// str gives the address of s as a C string.
func (t *table) str(s string) arg {
	b, err := unix.BytePtrFromString(s)
	if err != nil && t.err == nil {
		t.err = fmt.Errorf("%.64q contains a NUL byte", s)
	}
	return t.ptr(unsafe.Pointer(b))
}

// strs gives the address of a C array of strings, ended by a null.
func (t *table) strs(list []string) arg {
	array := make([]*byte, len(list)+1)
	for i, s := range list {
		b, err := unix.BytePtrFromString(s)
		if err != nil && t.err == nil {
			t.err = fmt.Errorf("%.64q contains a NUL byte", s)
		}
		array[i] = b
	}
	return t.ptr(unsafe.Pointer(&array[0]))
}

// ptr gives an address and keeps what is there alive.
func (t *table) ptr(p unsafe.Pointer) arg {
	t.keep = append(t.keep, p)
	return arg{value: uintptr(p)}
}

// take gives a free register.
func (t *table) take() reg {
	if len(t.free) == 0 {
		if t.err == nil {
			t.err = fmt.Errorf("more than %d values in use at once", registers-1)
		}
		return 1
	}
	r := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	return r
}

// give returns a register.
func (t *table) give(r reg) { t.free = append(t.free, r) }

// call adds a system call. name says in an error what was being done.
func (t *table) call(name string, nr uintptr, args ...arg) *step {
	s := step{nr: nr}
	if nr == unix.SYS_OPENAT2 {
		s.again = lookups
	}
	for i, a := range args {
		s.arg[i], s.from[i] = a.value, a.from
	}
	t.steps, t.names = append(t.steps, s), append(t.names, name)
	return &t.steps[len(t.steps)-1]
}

// result adds a system call and gives the register with its result.
func (t *table) result(name string, nr uintptr, args ...arg) reg {
	r := t.take()
	t.call(name, nr, args...).out = r
	return r
}

// load adds the loading of the 32-bit integer at p.
func (t *table) load(p *int32) reg {
	r := t.take()
	s := t.call("load", callLoad)
	s.word, s.out = p, r
	return r
}

// store adds the storing of a register in the 32-bit integer at p.
func (t *table) store(r reg, p *int32) {
	s := t.call("store", callStore, r.arg())
	s.word = p
}

// close adds the closing of the descriptor in r and returns the register.
func (t *table) close(r reg) {
	t.call("close", unix.SYS_CLOSE, r.arg())
	t.give(r)
}

// tolerate lets the child go on after these errors, at the next step or where land says. At most four.
func (s *step) tolerate(errs ...unix.Errno) {
	for i, e := range errs {
		s.tolerated[i] = uintptr(e)
	}
}

// here is the index of the step that was added last.
func (t *table) here() int { return len(t.steps) - 1 }

// land makes tolerated errors of step at, or the jump there, go on with the step that will be added next.
func (t *table) land(at int) { t.steps[at].to = uintptr(len(t.steps)) }

// resolve gives the address of an openat2 request.
func (t *table) resolve(flags, mode, how uint64) (arg, arg) {
	h := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: how}
	return t.ptr(unsafe.Pointer(h)), num(unsafe.Sizeof(*h))
}

// sealed checks the finished table.
func (t *table) sealed() error {
	if t.err != nil {
		return t.err
	}
	bad := slices.IndexFunc(t.steps, func(s step) bool { return s.to > uintptr(len(t.steps)) })
	if bad >= 0 || len(t.steps) == 0 {
		return fmt.Errorf("table of %d steps jumps out at step %d", len(t.steps), bad)
	}
	return nil
}
