package launch

import (
	"fmt"
	"slices"
	"strings"
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

// table is the program of one child, and what keeps its memory alive until the fork.
type table struct {
	steps  []step
	names  []string // of each step, for errors
	blocks []*block // memory that arguments point to; only the last has room
	used   uintptr  // of the last block
	keep   []any    // further such memory
	free   []reg
	err    error // the first mistake in building
}

// block is memory for strings, and for structures without pointers. Few pages, always the same, are worth much here: a page is copied when
// it is written for the first time after a fork.
type block [2048]uint64

const blockSize = unsafe.Sizeof(block{})

var blocks = sync.Pool{New: func() any { return new(block) }}

// usualSteps is about what the default configuration takes.
const usualSteps = 640

// stepBuffers are for the steps of tables: 80 KB of garbage for each launch would be half of it all.
var stepBuffers = sync.Pool{New: func() any { return new(make([]step, 0, usualSteps)) }}

func newTable() *table {
	t := &table{steps: (*stepBuffers.Get().(*[]step))[:0], names: make([]string, 0, usualSteps), used: blockSize}
	for r := reg(registers - 1); r > 0; r-- {
		t.free = append(t.free, r)
	}
	return t
}

// release gives up the steps and what they point to, which the child has a copy of.
func (t *table) release() {
	steps := t.steps
	clear(steps) // no address of what is garbage now
	stepBuffers.Put(&steps)
	for _, b := range t.blocks {
		clear(b[:]) // no argument of one container reaches the child of another
		blocks.Put(b)
	}
	t.steps, t.blocks, t.used = nil, nil, blockSize
}

// room gives n bytes, all zero, aligned for any structure.
func (t *table) room(n uintptr) unsafe.Pointer {
	n = (n + 7) &^ 7
	if n > blockSize {
		large := make([]uint64, n/8)
		t.keep = append(t.keep, large)
		return unsafe.Pointer(&large[0])
	}
	if t.used+n > blockSize {
		t.blocks, t.used = append(t.blocks, blocks.Get().(*block)), 0
	}
	at := unsafe.Add(unsafe.Pointer(t.blocks[len(t.blocks)-1]), t.used)
	t.used += n
	return at
}

// place copies v to where the child will have it, and gives its address there. If v has pointers, they point to what was placed.
func place[T any](t *table, v T) (*T, arg) {
	at := (*T)(t.room(unsafe.Sizeof(v)))
	*at = v
	return at, arg{value: uintptr(unsafe.Pointer(at))}
}

// placeAll does the same with a list that is not empty, and has no pointers.
func placeAll[T any](t *table, list []T) arg {
	at := t.room(unsafe.Sizeof(list[0]) * uintptr(len(list)))
	copy(unsafe.Slice((*T)(at), len(list)), list)
	return arg{value: uintptr(at)}
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
	if t.err == nil && strings.IndexByte(s, 0) >= 0 {
		t.err = fmt.Errorf("%.64q contains a NUL byte", s)
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
		s.tolerated[i] = uint16(e)
	}
}

// here is the index of the step that was added last.
func (t *table) here() int { return len(t.steps) - 1 }

// land makes tolerated errors of step at, or the jump there, go on with the step that will be added next.
func (t *table) land(at int) { t.steps[at].to = uint32(len(t.steps)) }

// resolve gives the address of an openat2 request.
func (t *table) resolve(flags, mode, how uint64) (arg, arg) {
	h, at := place(t, unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: how})
	return at, num(unsafe.Sizeof(*h))
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
