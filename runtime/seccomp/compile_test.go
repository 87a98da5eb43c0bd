package seccomp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/google/go-cmp/cmp"
	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is one entry into the kernel, as a filter sees it.
type call struct {
	arch *arch.Info
	nr   uint32
	args [6]uint64
}

func nr(t *testing.T, a *arch.Info, name string) uint32 {
	t.Helper()
	n, ok := a.SyscallNames[name]
	if !ok {
		t.Fatalf("no number of %s on %s", name, a.Name)
	}
	return uint32(n)
}

// run interprets f with the independent virtual machine of x/net. That one reads words in network order, so the
// record is laid out accordingly.
func run(t testing.TB, f *Filter, audit uint32, c call) uint32 {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(f.Program))
	for i, p := range f.Program {
		raw[i] = bpf.RawInstruction{Op: p.Code, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	ins, all := bpf.Disassemble(raw)
	if !all {
		t.Fatal("a program that does not disassemble")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatalf("program refused: %v", err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offsetNumber:], c.nr)
	binary.BigEndian.PutUint32(data[offsetArch:], audit)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(data[offsetArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offsetArgs+8*i+4:], uint32(a>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return uint32(got)
}

func defaultProfile(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	p, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{
		Bounding: []string{"CAP_CHOWN", "CAP_SYS_CHROOT"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const eperm = retErrno | uint32(unix.EPERM)

func TestCompile_DefaultProfile(t *testing.T) {
	p := defaultProfile(t)
	p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32} // wherever the test runs
	f, err := Compile(p, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	x, i := arch.X86_64, arch.I386
	for _, tc := range []struct {
		name string
		call call
		want uint32
	}{
		{"read", call{x, nr(t, x, "read"), [6]uint64{}}, retAllow},
		{"execve", call{x, nr(t, x, "execve"), [6]uint64{}}, retAllow},
		{"chroot is allowed by the capability", call{x, nr(t, x, "chroot"), [6]uint64{}}, retAllow},
		{"mount", call{x, nr(t, x, "mount"), [6]uint64{}}, eperm},
		{"unshare", call{x, nr(t, x, "unshare"), [6]uint64{}}, eperm},
		{"bpf", call{x, nr(t, x, "bpf"), [6]uint64{}}, eperm},
		{"clone of a thread", call{x, nr(t, x, "clone"), [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD}}, retAllow},
		{"clone of a user namespace", call{x, nr(t, x, "clone"), [6]uint64{unix.CLONE_NEWUSER}}, eperm},
		{"clone3", call{x, nr(t, x, "clone3"), [6]uint64{}}, retErrno | uint32(unix.ENOSYS)},
		{"personality linux", call{x, nr(t, x, "personality"), [6]uint64{0}}, retAllow},
		{"personality other", call{x, nr(t, x, "personality"), [6]uint64{0x0400000}}, eperm},
		{"personality, high half set", call{x, nr(t, x, "personality"), [6]uint64{1 << 32}}, eperm},
		{"inet socket", call{x, nr(t, x, "socket"), [6]uint64{unix.AF_INET}}, retAllow},
		{"vsock socket", call{x, nr(t, x, "socket"), [6]uint64{unix.AF_VSOCK}}, eperm},
		{"newest known", call{x, table(x, 0).newest, [6]uint64{}}, eperm},
		{"newer than known", call{x, table(x, 0).newest + 1, [6]uint64{}}, retErrno | uint32(unix.ENOSYS)},
		{"just below x32", call{x, x32Bit - 1, [6]uint64{}}, retErrno | uint32(unix.ENOSYS)},
		{"x32 read", call{x, x32Bit, [6]uint64{}}, retKillProcess},
		{"x32 execve", call{x, x32Bit + 520, [6]uint64{}}, retKillProcess},
		{"highest number", call{x, ^uint32(0), [6]uint64{}}, retKillProcess},
		{"i386 read", call{i, nr(t, i, "read"), [6]uint64{}}, retAllow},
		{"i386 mount", call{i, nr(t, i, "mount"), [6]uint64{}}, eperm},
		{"i386 new", call{i, table(i, 0).newest + 1, [6]uint64{}}, retErrno | uint32(unix.ENOSYS)},
		{"foreign abi", call{arch.AARCH64, 63, [6]uint64{}}, retKillProcess},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := run(t, f, uint32(tc.call.arch.ID), tc.call); got != tc.want {
				t.Errorf("filter says %#x, want %#x", got, tc.want)
			}
		})
	}
}

// TestCompile_EveryProgramCanRun holds that the default profile lets through what every C library and language runtime
// needs, by number as in the kernel's headers: a table with a wrong name would stop all programs of that machine.
func TestCompile_EveryProgramCanRun(t *testing.T) {
	numbers := map[string]map[*arch.Info][]uint32{
		"amd64": {
			// read write close stat fstat mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
			arch.X86_64: {
				0, 1, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15,
				// sched_yield clone execve exit futex epoll_wait getdents64 exit_group openat newfstatat pipe2 prlimit64
				24, 56, 59, 60, 202, 232, 217, 231, 257, 262, 293, 302,
				// getrandom statx rseq close_range openat2 faccessat2 epoll_pwait2
				318, 332, 334, 436, 437, 439, 441,
			},
			// exit fork read write open close execve brk ... stat64 mmap2 getdents64 futex exit_group openat fstatat64
			arch.I386: {1, 2, 3, 4, 5, 6, 11, 45, 192, 195, 220, 240, 252, 295, 300, 383, 403, 422},
		},
		"arm64": {
			// epoll_pwait dup3 fcntl faccessat openat close getdents64 lseek read write readlinkat newfstatat fstat exit
			arch.AARCH64: {
				22, 24, 25, 48, 56, 57, 61, 62, 63, 64, 78, 79, 80, 93,
				// exit_group futex nanosleep clock_gettime rt_sigaction rt_sigreturn brk munmap clone execve mmap mprotect
				94, 98, 101, 113, 134, 139, 214, 215, 220, 221, 222, 226,
				// prlimit64 getrandom statx rseq close_range openat2 faccessat2
				261, 278, 291, 293, 436, 437, 439,
			},
			// exit fork read write open close execve brk mmap2 stat64 futex exit_group openat fstatat64
			arch.ARM: {1, 2, 3, 4, 5, 6, 11, 45, 192, 195, 240, 248, 322, 327, 384, 403, 422},
		},
	}
	for goarch, abis := range numbers {
		p := defaultProfile(t)
		p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchAARCH64, specs.ArchARM}
		f, err := Compile(p, goarch)
		if err != nil {
			t.Fatal(err)
		}
		for info, list := range abis {
			for _, n := range list {
				if got := run(t, f, uint32(info.ID), call{nr: n}); got != retAllow {
					t.Errorf("%s: call %d (%s) gives %#x, want it allowed", info.Name, n, info.SyscallNumbers[int(n)], got)
				}
			}
		}
	}
}

// TestCompile_EveryNumber compares the filter with a plain reading of the profile, for every number of every ABI.
func TestCompile_EveryNumber(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		p := defaultProfile(t)
		p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchAARCH64, specs.ArchARM}
		f, err := Compile(p, goarch)
		if err != nil {
			t.Fatal(err)
		}
		abis, err := abisOf(p, goarch)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range abis {
			for _, known := range b.known() {
				for n := known[0]; n <= known[1]; n++ {
					c := call{nr: n, args: [6]uint64{uint64(n), 3}}
					if got, want := run(t, f, b.audit, c), naive(t, p, b, c); got != want {
						t.Errorf("%s abi %#x number %d: filter says %#x, want %#x", goarch, b.audit, n, got, want)
					}
				}
			}
		}
	}
}

// naive evaluates p as its text says: the first rule whose conditions hold.
func naive(t testing.TB, p *specs.LinuxSeccomp, b abi, c call) uint32 {
	t.Helper()
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if n, ok := b.numbers[name]; !ok || uint32(n) != c.nr || !holds(s.Args, c) {
				continue
			}
			act, err := actionOf(s.Action, s.ErrnoRet)
			if err != nil {
				t.Fatal(err)
			}
			return act
		}
	}
	act, err := actionOf(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		t.Fatal(err)
	}
	return act
}

func holds(args []specs.LinuxSeccompArg, c call) bool {
	for _, a := range args {
		v := c.args[a.Index]
		ok := map[specs.LinuxSeccompOperator]bool{
			specs.OpEqualTo: v == a.Value, specs.OpNotEqual: v != a.Value,
			specs.OpGreaterThan: v > a.Value, specs.OpGreaterEqual: v >= a.Value,
			specs.OpLessThan: v < a.Value, specs.OpLessEqual: v <= a.Value,
			specs.OpMaskedEqual: v&a.Value == a.ValueTwo,
		}[a.Op]
		if !ok {
			return false
		}
	}
	return true
}

func TestCompile_Comparisons(t *testing.T) {
	values := []uint64{0, 1, 2, 3, 1<<32 - 1, 1 << 32, 1<<32 + 2, 5<<32 + 7, 5<<32 + 8, 6 << 32, ^uint64(0)}
	ops := []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessThan,
		specs.OpLessEqual, specs.OpMaskedEqual,
	}
	for _, op := range ops {
		for _, v := range values {
			arg := specs.LinuxSeccompArg{Index: 5, Value: v, ValueTwo: v & 0xff00000002, Op: op}
			p := &specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno,
				Syscalls:      []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg}}},
			}
			f, err := Compile(p, "amd64")
			if err != nil {
				t.Fatal(err)
			}
			for _, have := range values {
				c := call{nr: 0, args: [6]uint64{5: have}}
				want := eperm
				if holds([]specs.LinuxSeccompArg{arg}, c) {
					want = retAllow
				}
				if got := run(t, f, uint32(arch.X86_64.ID), c); got != want {
					t.Errorf("%#x %s %#x: filter says %#x, want %#x", have, op, v, got, want)
				}
			}
		}
	}
}

func TestCompile_SameBytesEveryTime(t *testing.T) { // I1
	first, err := Compile(defaultProfile(t), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := Compile(defaultProfile(t), "amd64")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatalf("another program (-first +again):\n%s", diff)
		}
	}
}

func TestCompile_RepeatedArgumentIsAnAlternative(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
		Names: []string{"read"}, Action: specs.ActAllow,
		Args: []specs.LinuxSeccompArg{{Value: 1, Op: specs.OpEqualTo}, {Value: 2, Op: specs.OpEqualTo}},
	}}}
	f, err := Compile(p, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for v, want := range map[uint64]uint32{1: retAllow, 2: retAllow, 3: eperm} {
		if got := run(t, f, uint32(arch.X86_64.ID), call{args: [6]uint64{v}}); got != want {
			t.Errorf("argument %d: filter says %#x, want %#x", v, got, want)
		}
	}
}

func TestCompile_PermissiveDefaultAllowsNewCalls(t *testing.T) { // I3
	f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, f, uint32(arch.X86_64.ID), call{nr: 5000}); got != retAllow {
		t.Errorf("filter says %#x, want allow", got)
	}
	if got := run(t, f, uint32(arch.X86_64.ID), call{nr: x32Bit}); got != retKillProcess {
		t.Errorf("x32: filter says %#x, want kill", got)
	}
}

func TestCompile_Refuses(t *testing.T) {
	big := uint(5000)
	rule := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{s}}
	}
	for _, tc := range []struct {
		name    string
		profile *specs.LinuxSeccomp
		goarch  string
		want    error
	}{
		{"nothing", nil, "amd64", ErrProfile},
		{"machine", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "mips", ErrMachine},
		{"architecture", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"vax"}}, "amd64", ErrProfile},
		{"no default", &specs.LinuxSeccomp{}, "amd64", ErrProfile},
		{"notify", rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActNotify}), "amd64", ErrProfile},
		{"errno", rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: &big}), "amd64", ErrProfile},
		{"index", rule(specs.LinuxSyscall{Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}), "amd64", ErrProfile},
		{"operator", rule(specs.LinuxSyscall{Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "like"}}}), "amd64", ErrProfile},
		{"flag", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}}, "amd64", ErrProfile},
		{"listener", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x"}, "amd64", ErrProfile},
		{"ambiguous", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read"}, Action: specs.ActKill},
			{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo}}},
		}}, "amd64", ErrProfile},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := Compile(tc.profile, tc.goarch)
			if !errors.Is(err, tc.want) || f != nil {
				t.Errorf("got %v, %v; want %v", f, err, tc.want)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	p := defaultProfile(b)
	for b.Loop() {
		if _, err := Compile(p, "amd64"); err != nil {
			b.Fatal(err)
		}
	}
}

func bytesOf(f *Filter) []byte {
	var out bytes.Buffer
	for _, p := range f.Program {
		out.Write([]byte{byte(p.Code), byte(p.Code >> 8), p.Jt, p.Jf})
		out.Write(binary.LittleEndian.AppendUint32(nil, p.K))
	}
	return out.Bytes()
}

// The program is a function of the profile and of the machine that it is for, not of the one that compiles, nor of the process. When the
// tables of calls or the compiler change, these change, and nothing else changes them.
func TestCompile_SameBytesEverywhere(t *testing.T) { // I1
	text, err := os.ReadFile("testdata/profile.json")
	if err != nil {
		t.Fatal(err)
	}
	for goarch, want := range map[string]string{
		"amd64": "2297f1f3ecea74bf48982accf855f3367601c2050995c4d447efc2bb2ccd31ba",
		"arm64": "d173da9193230901828f8ce7e10ac44ddac05256f09f7ed0b63a22fda0183c0e",
	} {
		for range 50 {
			p := &specs.LinuxSeccomp{}
			if err := json.Unmarshal(text, p); err != nil {
				t.Fatal(err)
			}
			f, err := Compile(p, goarch)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(bytesOf(f))); got != want {
				t.Fatalf("for %s: a program of %d instructions with the sum %s, want %s", goarch, len(f.Program), got, want)
			}
		}
	}
}
