package daemon

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"

	"github.com/skep-io/skep/agent/executor"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/security"
	"github.com/skep-io/skep/runtime/seccomp"
)

// filterOf compiles a profile for a container with capabilities, as a node does.
func filterOf(t *testing.T, profile []byte, caps ...string) *bpf.VM {
	t.Helper()
	loaded, err := moby.LoadProfile(string(profile), &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
	if err != nil {
		t.Fatal(err)
	}
	filter, err := seccomp.Compile(loaded, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	var program []bpf.Instruction
	for _, i := range filter.Program {
		program = append(program, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// verdict is what a filter says to a call. The virtual machine reads words in network order.
func verdict(t *testing.T, vm *bpf.VM, info *arch.Info, number int, args [6]uint64) int {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], uint32(number))
	binary.BigEndian.PutUint32(data[4:], uint32(info.ID))
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(arg>>32))
	}
	out, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const verdictAllow = 0x7fff0000

// A learned profile says about the calls that were used what the service's profile says, whatever the arguments are, and refuses all
// others: it never allows more. Packages manager and runtime meet here only.
func TestNarrow_AllowsWhatWasUsedAndNothingElse(t *testing.T) {
	custom, err := json.Marshal(&moby.Seccomp{
		LinuxSeccomp: specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86}},
		Syscalls: []*moby.Syscall{
			{LinuxSyscall: specs.LinuxSyscall{Names: []string{"read", "write", "execve", "exit_group"}, Action: specs.ActAllow}},
			{Name: "openat", LinuxSyscall: specs.LinuxSyscall{Action: specs.ActLog}},
			{LinuxSyscall: specs.LinuxSyscall{Names: []string{"mount", "socket"}, Action: specs.ActKillProcess}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	denying := []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount","ptrace"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
		{"names":["kcmp"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":3,"op":"SCMP_CMP_EQ"}]}]}`)
	standard, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	always := []string{"execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn"}
	for _, tc := range []struct {
		name    string
		options *api.SeccompOptions
		base    []byte // or nil for everything
		caps    []string
	}{
		{"the default", nil, standard, nil},
		{"the default, for more", nil, standard, []string{"CAP_SYS_ADMIN", "CAP_BPF"}},
		{"a custom one", &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_CUSTOM, Profile: custom}, custom, nil},
		{"a list of what is denied", &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_CUSTOM, Profile: denying}, denying, nil},
		{"none", &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_UNCONFINED}, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(4) {
				random := rand.New(rand.NewPCG(seed, 0))
				used := []string{"clone", "socket", "personality", "mount", "openat"}
				for name := range arch.X86_64.SyscallNames {
					if random.IntN(3) == 0 && name != "kcmp" {
						used = append(used, name)
					}
				}
				compat := seed%2 == 0
				profile, err := security.Narrow(&api.Privileges{Seccomp: tc.options}, used, compat)
				if err != nil {
					t.Fatal(err)
				}
				if err := security.CheckProfile(profile); err != nil {
					t.Fatal(err)
				}
				if err := executor.CompileProfile(profile); err != nil {
					t.Fatal(err)
				}
				narrowed := filterOf(t, profile, tc.caps...)
				var base *bpf.VM
				if tc.base != nil {
					base = filterOf(t, tc.base, tc.caps...)
				}
				for _, info := range []*arch.Info{arch.X86_64, arch.I386} {
					for number, name := range info.SyscallNumbers {
						for range 8 {
							args := randomArgs(random)
							got, before := verdict(t, narrowed, info, number, args), verdictAllow
							if base != nil {
								before = verdict(t, base, info, number, args)
							}
							kept := slices.Contains(used, name) || slices.Contains(always, name)
							switch {
							case info == arch.I386 && !compat:
								if got == verdictAllow {
									t.Fatalf("seed %d: %s is allowed by the 32-bit ABI, which was not used", seed, name)
								}
							case got == verdictAllow && before != verdictAllow:
								t.Fatalf("seed %d: %s %x is allowed, and was not before", seed, name, args)
							case got == verdictAllow && !kept && name != "sigreturn":
								t.Fatalf("seed %d: %s is allowed, and was not used", seed, name)
							case info == arch.X86_64 && kept && got != before:
								t.Fatalf("seed %d: %s %x: %#x, and %#x before", seed, name, args, got, before)
							}
						}
					}
				}
			}
		})
	}
}

// randomArgs are arguments around those that profiles look at.
func randomArgs(random *rand.Rand) (args [6]uint64) {
	values := []uint64{0, 1, 2, 8, 38, 40, 0x20000, 0x20008, 0xffffffff, 2114060288, 0x10000000, 1 << 40, 13}
	for i := range args {
		args[i] = values[random.IntN(len(values))]
	}
	return args
}

func TestNarrow_KeepsWhatTheRuntimeNeeds(t *testing.T) {
	profile, err := security.Narrow(&api.Privileges{NewPrivileges: true}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	vm := filterOf(t, profile)
	for _, name := range []string{"capset", "prctl", "setresuid", "close_range", "execve"} {
		if got := verdict(t, vm, arch.X86_64, arch.X86_64.SyscallNames[name], [6]uint64{}); got != verdictAllow {
			t.Errorf("%s: %#x, though privileges are dropped by it", name, got)
		}
	}
	// A condition that can't be turned around.
	denying := &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_CUSTOM, Profile: []byte(
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["kcmp"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":3,"op":"SCMP_CMP_EQ"}]}]}`)}
	if p, err := security.Narrow(&api.Privileges{Seccomp: denying}, []string{"kcmp"}, false); err == nil {
		t.Errorf("a condition was lost: %s", p)
	}
}
