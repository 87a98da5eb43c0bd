package security

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
)

// ErrAllowsByDefault is returned for a profile that lists what is refused rather than what is allowed, where that can't be turned around.
var ErrAllowsByDefault = errors.New("the profile allows what it does not name, and names a call under a condition")

// needs are the calls that every profile must allow: to run the program, to end, and to come back from a signal.
func needs() []string {
	return []string{"execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn"}
}

// launcherNeeds are the calls by which a container's privileges are dropped after the filter is loaded, where no-new-privileges is off.
func launcherNeeds() []string {
	return []string{"capset", "close_range", "prctl", "setgroups", "setresgid", "setresuid"}
}

// Narrow returns the seccomp profile of a container with privileges p, in Docker's JSON, less everything that it allows and that is not
// in used: no call is allowed that was not, nor under another condition. Calls by the 32-bit ABI of a machine kill unless compat. With no
// filter so far, the used calls are allowed and all others refused with EPERM. It returns ErrAllowsByDefault.
func Narrow(p *api.Privileges, used []string, compat bool) ([]byte, error) {
	kept := map[string]bool{}
	for _, name := range slices.Concat(used, needs()) {
		kept[name] = true
	}
	if p.GetNewPrivileges() {
		for _, name := range launcherNeeds() {
			kept[name] = true
		}
	}
	if compat {
		kept["sigreturn"] = true
	}
	base, err := profileOf(p.GetSeccomp(), kept)
	if err != nil {
		return nil, err
	}
	out := *base
	if permissive(base.DefaultAction) {
		if out, err = reverse(base, kept); err != nil {
			return nil, err
		}
	}
	var rules []*moby.Syscall
	for _, rule := range out.Syscalls {
		if narrowed := narrow(rule, kept); len(narrowed.Names) > 0 {
			rules = append(rules, narrowed)
		}
	}
	out.Syscalls = rules
	if !compat {
		onlyNative(&out)
	}
	return json.MarshalIndent(&out, "", "\t")
}

// profileOf returns the profile that a container has now; without a filter, one that allows the calls of kept.
func profileOf(s *api.SeccompOptions, kept map[string]bool) (*moby.Seccomp, error) {
	switch s.GetMode() {
	case api.SeccompMode_SECCOMP_MODE_CUSTOM:
		p := &moby.Seccomp{}
		if err := json.Unmarshal(s.GetProfile(), p); err != nil {
			return nil, fmt.Errorf("read the present profile: %w", err)
		}
		return p, nil
	case api.SeccompMode_SECCOMP_MODE_UNCONFINED:
		p := moby.DefaultProfile()
		p.Syscalls = []*moby.Syscall{{LinuxSyscall: specs.LinuxSyscall{Names: slices.Sorted(maps.Keys(kept)), Action: specs.ActAllow}}}
		return p, nil
	default:
		return moby.DefaultProfile(), nil
	}
}

// narrow returns a rule with those of its names that it does not allow, or that are kept.
func narrow(rule *moby.Syscall, kept map[string]bool) *moby.Syscall {
	out := *rule
	out.Names = namesOf(rule)
	//lint:ignore SA1019 it is in Names now
	out.Name = ""
	if permissive(rule.Action) {
		out.Names = slices.DeleteFunc(out.Names, func(name string) bool { return !kept[name] })
	}
	slices.Sort(out.Names)
	return &out
}

// reverse turns a profile around that allows what it does not name.
func reverse(base *moby.Seccomp, kept map[string]bool) (moby.Seccomp, error) {
	named := map[string]bool{}
	for _, rule := range base.Syscalls {
		conditional := len(rule.Args) > 0 || rule.Includes != nil || rule.Excludes != nil
		for _, name := range namesOf(rule) {
			named[name] = true
			if kept[name] && conditional && !permissive(rule.Action) {
				return moby.Seccomp{}, fmt.Errorf("%w: %s: write a profile with a defaultAction that refuses, or learn from the default one",
					ErrAllowsByDefault, clip(name))
			}
		}
	}
	rest := map[string]bool{}
	for name := range kept {
		if !named[name] {
			rest[name] = true
		}
	}
	out := *base
	out.Syscalls = append(slices.Clone(base.Syscalls), &moby.Syscall{
		LinuxSyscall: specs.LinuxSyscall{Names: slices.Sorted(maps.Keys(rest)), Action: base.DefaultAction, ErrnoRet: base.DefaultErrnoRet},
	})
	out.DefaultAction, out.DefaultErrnoRet = specs.ActErrno, nil
	return out, nil
}

// onlyNative drops the second ABIs of machines.
func onlyNative(p *moby.Seccomp) {
	p.ArchMap = slices.Clone(p.ArchMap)
	for i := range p.ArchMap {
		p.ArchMap[i].SubArches = nil
	}
	p.Architectures = slices.DeleteFunc(slices.Clone(p.Architectures), func(a specs.Arch) bool {
		return slices.Contains([]specs.Arch{specs.ArchX86, specs.ArchX32, specs.ArchARM}, a)
	})
}

func namesOf(rule *moby.Syscall) []string {
	//lint:ignore SA1019 old profiles have it, and Docker's reader takes it
	if old := rule.Name; old != "" {
		return []string{old}
	}
	return slices.Clone(rule.Names)
}

// IsCallName reports whether a text can be the name of a system call.
func IsCallName(s string) bool { return checkName(s) == "" && !strings.HasPrefix(s, "syscall_") }
