package launch

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reg is a register: a place for a result that later steps use as an argument. Register 0 is none.
type reg uint8

// registers is how many there are; a power of two, so that the child can mask instead of checking bounds.
const registers = 1 << regBits

// maxSteps are more than the mounts that fit one message need.
const maxSteps = 8192

// step is one system call of the child.
type step struct {
	nr   uintptr
	arg  [6]uintptr
	from [6]reg // where an argument comes from, if not 0
	args uint8  // how many there are
	out  reg    // where the result goes, if not 0
	// A call that gives zero where must is set ends the child: end of file on the control socket (I5).
	must bool
	// Errors that don't matter; to is the step to go on with after one, or 0 for the next.
	tolerated [4]uint8
	to        uint32
}

// lookups is how often a path is looked up again (openat2) when something anywhere on the machine was renamed meanwhile: then
// the kernel can't be sure that a ".." stayed within the root (openat2(2), EAGAIN).
const lookups = 1000

// Pseudo system calls, beyond those that there are.
const (
	// callLoad stores the 32-bit integer at its argument in out: a received descriptor.
	callLoad = callMask - iota
	// callJump goes on at to.
	callJump
	// callStore stores its second argument at its first: a descriptor to send.
	callStore
)

// The child reads steps as words of 64 bits: few pages with a new meaning, since to have one of its own is what costs most there. The
// first word has, from its lowest bit on, the number of the call, how many words with arguments follow it, whether must is set, whether there is
// one more word after them, the register for the result, those of the six arguments, and the number of the step. That one more word has the
// tolerated errors, and in its upper half the word to go on with.
const (
	callMask     = 1<<10 - 1
	argsShift    = 10
	argsMask     = 1<<3 - 1
	mustBit      = 1 << 13
	moreShift    = 14
	outShift     = 15
	fromShift    = 19
	regBits      = 4
	numberShift  = fromShift + 6*regBits
	toShift      = 32
	maxStepWords = 1 + 6 + 1
)

// words is how many the step takes.
func (s *step) words() uint32 { return 1 + uint32(s.args) + uint32(s.more()) }

// more is 1 if there is something to say about errors.
func (s *step) more() uint8 {
	if s.to != 0 || s.tolerated != [4]uint8{} {
		return 1
	}
	return 0
}

// encode appends the step with a number to code. at has where each step is.
func (s *step) encode(code []uint64, number int, at []uint32) []uint64 {
	head := uint64(s.nr) | uint64(s.args)<<argsShift | uint64(s.more())<<moreShift | uint64(s.out)<<outShift | uint64(number)<<numberShift
	if s.must {
		head |= mustBit
	}
	for i, r := range s.from {
		head |= uint64(r) << (fromShift + regBits*i)
	}
	code = append(code, head)
	for _, a := range s.arg[:s.args] {
		code = append(code, uint64(a))
	}
	if s.more() != 0 {
		to := uint64(0)
		if s.to != 0 {
			to = uint64(at[s.to])
		}
		code = append(code, uint64(binary.LittleEndian.Uint32(s.tolerated[:]))|to<<toShift)
	}
	return code
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
	s := step{nr: nr, args: uint8(len(args))}
	for i, a := range args {
		s.arg[i], s.from[i] = a.value, a.from
	}
	if len(t.steps) == maxSteps {
		t.fail(fmt.Errorf("a table of more than %d steps", maxSteps))
		t.steps, t.names = t.steps[:maxSteps-1], t.names[:maxSteps-1] // what goes on building finds the steps that it has made
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
	t.call("load", callLoad, address(p)).out = r
	return r
}

// store adds the storing of a register in the 32-bit integer at p.
func (t *table) store(r reg, p *int32) { t.call("store", callStore, address(p), r.arg()) }

// address gives the address of what was placed in the table's memory.
func address(p *int32) arg { return arg{value: uintptr(unsafe.Pointer(p))} }

// close adds the closing of the descriptor in r and returns the register.
func (t *table) close(r reg) {
	t.call("close", unix.SYS_CLOSE, r.arg())
	t.give(r)
}

// tolerate lets the child go on after these errors, at the next step or where land says. At most four.
func (s *step) tolerate(errs ...unix.Errno) {
	for i, e := range errs {
		s.tolerated[i] = uint8(e)
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

// sealed checks the finished table and writes its code.
func (t *table) sealed() error {
	if t.err != nil {
		return t.err
	}
	bad := slices.IndexFunc(t.steps, func(s step) bool { return int(s.to) > len(t.steps) || s.nr > callMask })
	if bad >= 0 || len(t.steps) == 0 {
		return fmt.Errorf("table of %d steps jumps out at step %d", len(t.steps), bad)
	}
	at := make([]uint32, 1, len(t.steps)+1)
	for i := range t.steps {
		at = append(at, at[i]+t.steps[i].words())
	}
	if t.region != nil {
		t.code = t.region.code()
	} else {
		t.code = make([]uint64, 0, at[len(t.steps)])
	}
	for i := range t.steps {
		t.code = t.steps[i].encode(t.code, i, at)
	}
	return nil
}
