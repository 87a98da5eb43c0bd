package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Settle gives a profile without the contradictions that Compile refuses, decided as libseccomp decides them, and so runc
// and crun: of several rules for one call, the first without arguments counts and no other; rules that say what the
// default says count for nothing. Podman's own profile needs that: it first allows setns and then, without
// CAP_SYS_ADMIN, forbids it. The profile given is not modified.
func Settle(profile *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	out := *profile
	out.Syscalls = nil
	decisive := make(map[string]int) // rules without arguments, by call
	for i, rule := range profile.Syscalls {
		for _, name := range rule.Names {
			if _, ok := decisive[name]; !ok && len(rule.Args) == 0 && !isDefault(profile, rule) {
				decisive[name] = i
			}
		}
	}
	for i, rule := range profile.Syscalls {
		if isDefault(profile, rule) {
			continue
		}
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool {
			at, ok := decisive[name]
			return ok && at != i
		})
		if len(rule.Names) > 0 {
			out.Syscalls = append(out.Syscalls, rule)
		}
	}
	return &out
}

func isDefault(profile *specs.LinuxSeccomp, rule specs.LinuxSyscall) bool {
	a, err := actionOf(rule.Action, rule.ErrnoRet)
	b, defaultErr := actionOf(profile.DefaultAction, profile.DefaultErrnoRet)
	return err == nil && defaultErr == nil && a == b
}
