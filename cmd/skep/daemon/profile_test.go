package daemon

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/manager/security"
	"github.com/skep-io/skep/runtime/seccomp"
)

// FuzzProfile holds that a seccomp profile which a manager accepts, a node compiles: managers and nodes never meet but here. What only the
// whole of a profile shows, on one machine, may still be refused there.
func FuzzProfile(f *testing.F) {
	whole, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	for _, rule := range []string{
		`{"names":["read"],"action":"SCMP_ACT_LOG"}`, `{"name":"read","action":"SCMP_ACT_TRACE","errnoRet":4095,"args":null,"includes":null}`,
		`{"names":["clone"],"action":"SCMP_ACT_KILL_THREAD","args":[{"index":5,"value":18446744073709551615,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}`,
		`{"names":["read","read"],"action":"SCMP_ACT_TRAP","excludes":{"arches":["arm64"],"caps":["CAP_X"],"minKernel":"4.8"}}`,
	} {
		f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_LOG"],"archMap":null,"syscalls":[` + rule + `]}`))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if security.CheckProfile(data) != nil {
			return
		}
		loaded, err := moby.LoadProfile(string(data), &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
		if err != nil {
			t.Fatalf("a manager accepts what no node can read: %v", err)
		}
		_, err = seccomp.Compile(loaded, "amd64")
		if err == nil {
			return
		}
		for _, whole := range []string{"one rule without arguments and one with another action", "instructions, the kernel takes", "more than 16384 names"} {
			if errors.Is(err, seccomp.ErrProfile) && strings.Contains(err.Error(), whole) {
				return
			}
		}
		t.Fatalf("a manager accepts what no node compiles: %v", err)
	})
}
