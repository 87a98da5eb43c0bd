package seccomp

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Errors of this package.
var (
	// ErrProfile is returned when a profile is malformed or asks for what this package does not offer.
	ErrProfile = errors.New("seccomp profile not usable")
	// ErrMachine is returned when there is no system call table for the machine.
	ErrMachine = errors.New("no system call table for this machine")
)

// Return values of a filter, from linux/seccomp.h.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
	retDataMask    = 0x0000ffff
)

// maxErrno is the kernel's MAX_ERRNO: SECCOMP_RET_ERRNO caps its data there.
const maxErrno = 4095

// x32Bit marks the numbers of the x32 ABI, which shares x86_64's audit value.
const x32Bit = 0x40000000

// Arm keeps a few calls of its own far above the common numbers (asm/unistd.h, __ARM_NR_BASE).
const (
	armPrivate    = 0x0f0000
	armPrivateEnd = 0x0f0006 // get_tls
)

// abi is one way into the kernel: an audit value and a table of numbers.
type abi struct {
	audit   uint32
	numbers map[string]int // never modified
	newest  uint32         // the highest number of the common range
	cut     uint32         // or 0: numbers from here on kill
	// private and privateEnd bound a second range above newest, or are 0.
	private, privateEnd uint32
}

// known gives the ranges of numbers that the table covers, first and last, ascending.
func (b abi) known() [][2]uint32 {
	common := [2]uint32{0, b.newest}
	if b.private == 0 {
		return [][2]uint32{common}
	}
	return [][2]uint32{common, {b.private, b.privateEnd}}
}

// abisOf gives the ABIs to filter: the machine's own first.
func abisOf(profile *specs.LinuxSeccomp, goarch string) ([]abi, error) {
	for _, name := range profile.Architectures {
		if !slices.Contains(knownArchitectures(), name) {
			return nil, fmt.Errorf("%w: unknown architecture %q", ErrProfile, name)
		}
	}
	switch goarch {
	case "amd64":
		native := table(arch.X86_64, 0)
		native.cut = x32Bit
		if !slices.Contains(profile.Architectures, specs.ArchX86) {
			return []abi{native}, nil
		}
		return []abi{native, table(arch.I386, 0)}, nil
	case "arm64":
		native := table(arch.AARCH64, 0)
		if !slices.Contains(profile.Architectures, specs.ArchARM) {
			return []abi{native}, nil
		}
		return []abi{native, table(arch.ARM, armPrivate)}, nil
	default:
		return nil, fmt.Errorf("%w: %s", ErrMachine, goarch)
	}
}

// CallName gives the name that profiles use for the number of a call, of the ABI of a GOARCH or of that machine's 32-bit ABI. It is false
// for a number that the tables don't have, and a machine that they don't know.
func CallName(goarch string, compat bool, number uint32) (string, bool) {
	abis, err := abisOf(&specs.LinuxSeccomp{Architectures: []specs.Arch{specs.ArchX86, specs.ArchARM}}, goarch)
	if err != nil {
		return "", false
	}
	b := abis[0]
	if compat {
		b = abis[1]
	}
	for name, n := range b.numbers {
		if uint32(n) == number {
			return name, true
		}
	}
	return "", false
}

// names gives the calls of an imported table by the names that profiles use. The table of arm64 has one that is in no
// kernel header and no profile: number 79 is newfstatat, the stat of that machine. It also has a marker that is no call.
func names(info *arch.Info) map[string]int {
	if info != arch.AARCH64 {
		return info.SyscallNames
	}
	mended := maps.Clone(info.SyscallNames)
	if number, ok := mended["fstatat"]; ok {
		mended["newfstatat"] = number
	}
	delete(mended, "fstatat")
	delete(mended, "arch_specific_syscall")
	return mended
}

// table reads one of the imported tables. Numbers from private on do not count as the newest.
func table(info *arch.Info, private uint32) abi {
	b := abi{audit: uint32(info.ID), numbers: names(info), private: private}
	if private != 0 {
		b.privateEnd = armPrivateEnd
	}
	for number := range info.SyscallNumbers {
		if n := uint32(number); n > b.newest && (private == 0 || n < private) {
			b.newest = n
		}
	}
	return b
}

// rulesOf gathers the branches of each number of one ABI, those with conditions first, in the profile's order.
func rulesOf(profile *specs.LinuxSeccomp, b abi) (map[uint32][]branch, error) {
	rules := make(map[uint32][]branch)
	count := 0
	for i, call := range profile.Syscalls {
		act, err := actionOf(call.Action, call.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		if err := checkConditions(call.Args); err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		for _, name := range call.Names {
			if count++; count > maxRules {
				return nil, fmt.Errorf("%w: more than %d names", ErrProfile, maxRules)
			}
			number, ok := b.numbers[name]
			if !ok {
				continue // not on this machine, I4
			}
			merged, err := merge(rules[uint32(number)], alternatives(call.Args, act))
			if err != nil {
				return nil, fmt.Errorf("syscalls[%d] %s: %w", i, name, err)
			}
			rules[uint32(number)] = merged
		}
	}
	return rules, nil
}

// alternatives splits a rule that tests one argument more than once: such tests are alternatives by convention,
// while tests of different arguments must all hold.
func alternatives(args []specs.LinuxSeccompArg, act uint32) []branch {
	seen := make(map[uint]bool, len(args))
	repeated := false
	for _, a := range args {
		repeated = repeated || seen[a.Index]
		seen[a.Index] = true
	}
	if !repeated {
		return []branch{{when: args, act: act}}
	}
	out := make([]branch, 0, len(args))
	for i := range args {
		out = append(out, branch{when: args[i : i+1], act: act})
	}
	return out
}

// merge joins two rule sets of one call. A rule without conditions covers those with the same action; next to one
// with another action it would be ambiguous which of them wins, so that is refused (I4).
func merge(have, more []branch) ([]branch, error) {
	all := append(slices.Clone(have), more...)
	general := slices.IndexFunc(all, func(r branch) bool { return len(r.when) == 0 })
	if general < 0 {
		return all, nil
	}
	for _, r := range all {
		if r.act != all[general].act {
			return nil, fmt.Errorf("%w: one rule without arguments and one with another action", ErrProfile)
		}
	}
	return all[general : general+1], nil
}

func checkConditions(args []specs.LinuxSeccompArg) error {
	for _, a := range args {
		if a.Index > 5 {
			return fmt.Errorf("%w: argument %d, a call has 6", ErrProfile, a.Index)
		}
		switch a.Op {
		case specs.OpEqualTo, specs.OpNotEqual, specs.OpMaskedEqual, specs.OpGreaterEqual, specs.OpGreaterThan,
			specs.OpLessThan, specs.OpLessEqual:
		default:
			return fmt.Errorf("%w: unknown comparison %q", ErrProfile, a.Op)
		}
	}
	return nil
}

// actionOf gives the filter's return value for an action; errno is nil for the default, EPERM.
func actionOf(action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		if *errno > maxErrno {
			return 0, fmt.Errorf("%w: errnoRet %d above %d", ErrProfile, *errno, maxErrno)
		}
		data = uint32(*errno)
	}
	switch action {
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActErrno:
		return retErrno | data, nil
	case specs.ActTrace:
		return retTrace | data, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	default:
		return 0, fmt.Errorf("%w: action %q", ErrProfile, action)
	}
}

// permissive reports whether a default action lets calls through.
func permissive(act uint32) bool {
	kind := act &^ retDataMask
	return kind == retAllow || kind == retLog || kind == retTrace
}

func flagsOf(profile *specs.LinuxSeccomp) (uint, error) {
	if profile.ListenerPath != "" || profile.ListenerMetadata != "" {
		return 0, fmt.Errorf("%w: a listener is not supported", ErrProfile)
	}
	flags := uint(0)
	for _, f := range profile.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC": // the launched process has one thread, so there is nothing to do
		default:
			return 0, fmt.Errorf("%w: flag %q", ErrProfile, f)
		}
	}
	return flags, nil
}

// knownArchitectures are the names that a profile may list; those of other machines never match here.
func knownArchitectures() []specs.Arch {
	return []specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS,
		specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC,
		specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
	}
}
