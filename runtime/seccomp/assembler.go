package seccomp

import "golang.org/x/sys/unix"

// Instruction codes, named as in linux/bpf_common.h.
const (
	opLoad  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opJump  = unix.BPF_JMP | unix.BPF_JA
	opJumpE = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opJumpG = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opJumpA = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K // above or equal
	opRet   = unix.BPF_RET | unix.BPF_K
)

// farthest is the longest distance that a conditional jump bridges without a trampoline. The field has 8 bits; the
// slack leaves room for the two trampolines that one jump may need.
const farthest = 250

// label names an instruction by how many instructions there are from it to the end of the program.
type label int

// assembler builds a program from its end to its start, so that every jump knows its distance when it is emitted: BPF
// only jumps forward.
type assembler struct {
	reversed []unix.SockFilter
	returns  map[uint32]label // the nearest return of each value
}

func newAssembler() *assembler { return &assembler{returns: make(map[uint32]label)} }

func (a *assembler) emit(code uint16, jt, jf uint8, k uint32) label {
	a.reversed = append(a.reversed, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
	return label(len(a.reversed))
}

// distance is how many instructions lie between the next one to be emitted and l.
func (a *assembler) distance(l label) int { return len(a.reversed) - int(l) }

// ret gives a return of v that is near enough for any jump, and emits one if there is none.
func (a *assembler) ret(v uint32) label {
	if l, ok := a.returns[v]; ok && a.distance(l) < farthest {
		return l
	}
	l := a.emit(opRet, 0, 0, v)
	a.returns[v] = l
	return l
}

// load reads the 32-bit word at offset of struct seccomp_data and goes on to the instruction emitted before it.
func (a *assembler) load(offset uint32) label { return a.emit(opLoad, 0, 0, offset) }

// goTo goes on at l, whatever was emitted since.
func (a *assembler) goTo(l label) label {
	if a.distance(l) == 0 {
		return l
	}
	return a.emit(opJump, 0, 0, uint32(a.distance(l)))
}

// branch compares the loaded word with k and goes on at yes or no.
func (a *assembler) branch(code uint16, k uint32, yes, no label) label {
	if a.distance(yes) > farthest {
		yes = a.emit(opJump, 0, 0, uint32(a.distance(yes)))
	}
	if a.distance(no) > farthest {
		no = a.emit(opJump, 0, 0, uint32(a.distance(no)))
	}
	return a.emit(code, uint8(a.distance(yes)), uint8(a.distance(no)), k)
}

// program is what was emitted, in running order.
func (a *assembler) program() []unix.SockFilter {
	out := make([]unix.SockFilter, 0, len(a.reversed))
	for i := len(a.reversed) - 1; i >= 0; i-- {
		out = append(out, a.reversed[i])
	}
	return out
}
