package launch

import (
	"fmt"
	"slices"
	"strings"
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
	tolerated [4]uint16
	to        uint32
	// again is how often EAGAIN makes the child try once more.
	again uint32
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
	if strings.IndexByte(s, 0) >= 0 {
		t.fail(fmt.Errorf("%.64q contains a NUL byte", s))
	}
	at := t.room(uintptr(len(s)) + 1)
	copy(unsafe.Slice((*byte)(at), len(s)), s)
	return arg{value: uintptr(at)}
}

// strs gives the address of a C array of strings, ended by a null.
func (t *table) strs(list []string) arg {
	array := make([]uintptr, len(list)+1)
	for i, s := range list {
		array[i] = t.str(s).value
	}
	return placeAll(t, array)
}

// take gives a free register.
func (t *table) take() reg {
	if len(t.free) == 0 {
		t.fail(fmt.Errorf("more than %d values in use at once", registers-1))
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
	if t.region != nil && len(t.steps) == cap(t.steps) { // append would leave the region
		t.fail(fmt.Errorf("a table of more than %d steps", cap(t.steps)))
		t.steps, t.names = t.steps[:0], t.names[:0]
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
		s.tolerated[i] = uint16(e)
	}
}

// here is the index of the step that was added last.
func (t *table) here() int { return len(t.steps) - 1 }

// land makes tolerated errors of step at, or the jump there, go on with the step that will be added next.
func (t *table) land(at int) { t.steps[at].to = uint32(len(t.steps)) }

// resolve gives the address of an openat2 request.
func (t *table) resolve(flags, mode, how uint64) (arg, arg) {
	_, at := place(t, unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: how})
	return at, num(unsafe.Sizeof(unix.OpenHow{}))
}

// sealed checks the finished table.
func (t *table) sealed() error {
	if t.err != nil {
		return t.err
	}
	bad := slices.IndexFunc(t.steps, func(s step) bool { return int(s.to) > len(t.steps) })
	if bad >= 0 || len(t.steps) == 0 {
		return fmt.Errorf("table of %d steps jumps out at step %d", len(t.steps), bad)
	}
	return nil
}
