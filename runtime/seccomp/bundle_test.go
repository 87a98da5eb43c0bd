package seccomp

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestSettle_TheFirstRuleWithoutArgumentsCounts(t *testing.T) {
	arg := []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}
	enosys, eperm := uint(38), uint(1)
	rule := func(act specs.LinuxSeccompAction, errno *uint, args []specs.LinuxSeccompArg, names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: names, Action: act, ErrnoRet: errno, Args: args}
	}
	profile := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &enosys,
		Syscalls: []specs.LinuxSyscall{
			rule(specs.ActErrno, &enosys, nil, "read", "setns"), // as the default
			rule(specs.ActKill, nil, arg, "setns", "write"),
			rule(specs.ActAllow, nil, nil, "read", "setns"),
			rule(specs.ActErrno, &eperm, nil, "setns", "bpf"),
		},
	}
	want := []specs.LinuxSyscall{
		rule(specs.ActKill, nil, arg, "write"),
		rule(specs.ActAllow, nil, nil, "read", "setns"),
		rule(specs.ActErrno, &eperm, nil, "bpf"),
	}
	if _, err := Compile(profile, "amd64"); !errors.Is(err, ErrProfile) {
		t.Errorf("the profile contradicts itself and compiles: %v", err)
	}
	settled := Settle(profile)
	if diff := cmp.Diff(want, settled.Syscalls); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if _, err := Compile(settled, "amd64"); err != nil {
		t.Error(err)
	}
	if len(profile.Syscalls[3].Names) != 2 {
		t.Error("the given profile was modified")
	}
}
