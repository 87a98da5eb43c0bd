package seccomp

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// FuzzCompile holds that no profile panics the compiler, that what compiles is a program which ends for any call,
// gives one of the actions that the profile names, and is the same when compiled again.
func FuzzCompile(f *testing.F) {
	seed, err := json.Marshal(defaultProfile(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, uint32(0), uint64(0))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",`+
		`"args":[{"index":1,"value":5,"op":"SCMP_CMP_LT"}]}]}`), uint32(0), uint64(4))
	f.Fuzz(func(t *testing.T, data []byte, nr uint32, arg uint64) {
		if len(data) > 1<<18 {
			return
		}
		p := &specs.LinuxSeccomp{}
		if json.Unmarshal(data, p) != nil {
			return
		}
		first, err := Compile(p, "amd64")
		if err != nil {
			return
		}
		again, err := Compile(p, "amd64")
		if err != nil || !bytes.Equal(bytesOf(first), bytesOf(again)) {
			t.Fatalf("compiled twice: other bytes, error %v", err)
		}
		got := run(t, first, uint32(arch.X86_64.ID), call{nr: nr, args: [6]uint64{arg, arg, arg, arg, arg, arg}})
		if nr >= x32Bit && got != retKillProcess {
			t.Fatalf("x32 call gives %#x", got)
		}
		if !expected(p, got) {
			t.Fatalf("the filter says %#x, which the profile does not name", got)
		}
	})
}

func expected(p *specs.LinuxSeccomp, got uint32) bool {
	if got == retKillProcess || got == retErrno|uint32(unix.ENOSYS) {
		return true
	}
	if act, err := actionOf(p.DefaultAction, p.DefaultErrnoRet); err == nil && act == got {
		return true
	}
	for _, s := range p.Syscalls {
		if act, err := actionOf(s.Action, s.ErrnoRet); err == nil && act == got {
			return true
		}
	}
	return false
}
