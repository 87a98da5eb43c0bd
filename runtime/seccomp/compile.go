package seccomp

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Limits of what is compiled.
const (
	// maxProgram is the kernel's own limit (BPF_MAXINSNS): a longer program is refused at load time anyway.
	maxProgram = 4096
	// maxRules bounds the work on a hostile profile: the default profile has some 450 names in 40 rules.
	maxRules = 16384
)

// Filter is a compiled profile. The zero value is not a usable filter. A Filter must not be modified.
type Filter struct {
	// Program is the BPF program, in the kernel's layout.
	Program []unix.SockFilter
	// Flags are for seccomp(2), SECCOMP_SET_MODE_FILTER.
	Flags uint
}

// Offsets in struct seccomp_data. Words are 32 bits wide; the low half of an argument comes first, since every
// machine that this package knows is little endian.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// Compile translates profile for a machine of the given GOARCH ("amd64" or "arm64"). The machine's own ABI is always
// filtered, its 32-bit ABI only if the profile lists it. A nil profile is an error: callers decide on "no filter".
func Compile(profile *specs.LinuxSeccomp, goarch string) (*Filter, error) {
	if profile == nil {
		return nil, fmt.Errorf("%w: no profile", ErrProfile)
	}
	abis, err := abisOf(profile, goarch)
	if err != nil {
		return nil, err
	}
	flags, err := flagsOf(profile)
	if err != nil {
		return nil, err
	}
	fallback, err := actionOf(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("default action: %w", err)
	}
	a := newAssembler()
	next := a.ret(retKillProcess) // I2
	for i := len(abis) - 1; i >= 0; i-- {
		spans, err := spansOf(profile, abis[i], fallback)
		if err != nil {
			return nil, err
		}
		a.goTo(a.search(spans, fallback))
		start := a.load(offsetNumber)
		next = a.branch(opJumpE, abis[i].audit, start, next)
	}
	a.goTo(next)
	a.load(offsetArch)
	if len(a.reversed) > maxProgram {
		return nil, fmt.Errorf("%w: %d instructions, the kernel takes %d", ErrProfile, len(a.reversed), maxProgram)
	}
	return &Filter{Program: a.program(), Flags: flags}, nil
}

// branch is one rule of one system call: its action applies if all conditions hold.
type branch struct {
	when []specs.LinuxSeccompArg
	act  uint32
}

// span is a range of system call numbers, up to the next span, that share their branches. No branches means the
// profile's default.
type span struct {
	from     uint32
	branches []branch
}

// spansOf lays the rules of one ABI out as contiguous spans from number 0 to the end.
func spansOf(profile *specs.LinuxSeccomp, b abi, fallback uint32) ([]span, error) {
	rules, err := rulesOf(profile, b)
	if err != nil {
		return nil, err
	}
	var out []span
	add := func(from uint32, branches []branch) {
		if len(out) == 0 || !sameAction(out[len(out)-1].branches, branches) {
			out = append(out, span{from: from, branches: branches})
		}
	}
	var unknown []branch // the default
	if !permissive(fallback) {
		unknown = []branch{{act: retErrno | uint32(unix.ENOSYS)}} // I3
	}
	for _, known := range b.known() {
		for n := known[0]; n <= known[1]; n++ {
			add(n, rules[n])
		}
		add(known[1]+1, unknown)
	}
	if b.cut != 0 {
		add(b.cut, []branch{{act: retKillProcess}}) // I2
	}
	return out, nil
}

// sameAction reports whether two neighbours can be one span.
func sameAction(x, y []branch) bool {
	if len(x) == 0 || len(y) == 0 {
		return len(x) == len(y)
	}
	return len(x) == 1 && len(y) == 1 && len(x[0].when) == 0 && len(y[0].when) == 0 && x[0].act == y[0].act
}

// search emits a balanced binary search over spans and gives its first instruction.
func (a *assembler) search(spans []span, fallback uint32) label {
	if len(spans) == 1 {
		return a.decide(spans[0].branches, fallback)
	}
	middle := len(spans) / 2
	above := a.search(spans[middle:], fallback)
	below := a.search(spans[:middle], fallback)
	return a.branch(opJumpA, spans[middle].from, above, below)
}

// decide emits the branches of one span.
func (a *assembler) decide(branches []branch, fallback uint32) label {
	if len(branches) == 1 && len(branches[0].when) == 0 {
		return a.ret(branches[0].act)
	}
	miss := a.ret(fallback)
	for i := len(branches) - 1; i >= 0; i-- {
		miss = a.match(branches[i].when, a.ret(branches[i].act), miss)
	}
	return miss
}

// match emits the test of all conditions and gives its first instruction.
func (a *assembler) match(when []specs.LinuxSeccompArg, hit, miss label) label {
	for i := len(when) - 1; i >= 0; i-- {
		hit = a.compare(when[i], hit, miss)
	}
	return hit
}

// compare emits the test of one 64-bit argument, high half first.
func (a *assembler) compare(c specs.LinuxSeccompArg, hit, miss label) label {
	switch c.Op {
	case specs.OpEqualTo:
		return a.equal(c.Index, ^uint64(0), c.Value, hit, miss)
	case specs.OpNotEqual:
		return a.equal(c.Index, ^uint64(0), c.Value, miss, hit)
	case specs.OpMaskedEqual:
		return a.equal(c.Index, c.Value, c.ValueTwo, hit, miss)
	case specs.OpGreaterEqual:
		return a.order(opJumpA, c, hit, miss)
	case specs.OpGreaterThan:
		return a.order(opJumpG, c, hit, miss)
	case specs.OpLessThan:
		return a.order(opJumpA, c, miss, hit)
	default: // specs.OpLessEqual: checkConditions refused everything else
		return a.order(opJumpG, c, miss, hit)
	}
}

func (a *assembler) equal(index uint, mask, value uint64, hit, miss label) label {
	low := a.half(offsetArgs+8*uint32(index), uint32(mask), uint32(value), hit, miss)
	return a.half(offsetArgs+8*uint32(index)+4, uint32(mask>>32), uint32(value>>32), low, miss)
}

func (a *assembler) half(offset, mask, value uint32, hit, miss label) label {
	a.branch(opJumpE, value, hit, miss)
	if mask != ^uint32(0) {
		a.emit(opAnd, 0, 0, mask)
	}
	return a.load(offset)
}

func (a *assembler) order(code uint16, c specs.LinuxSeccompArg, hit, miss label) label {
	offset := offsetArgs + 8*uint32(c.Index)
	a.branch(code, uint32(c.Value), hit, miss)
	low := a.load(offset)
	differ := a.branch(opJumpE, uint32(c.Value>>32), low, miss)
	a.branch(opJumpG, uint32(c.Value>>32), hit, differ)
	return a.load(offset + 4)
}
