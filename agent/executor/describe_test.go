package executor

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCopySpec_SharesNothingThatCompileChanges(t *testing.T) {
	limit, other := int64(64<<20), int64(32<<20)
	in := &specs.Spec{
		Process: &specs.Process{}, Root: &specs.Root{},
		Linux:  &specs.Linux{Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}},
		Mounts: []specs.Mount{{Destination: "/proc"}},
	}
	out := copySpec(in)
	out.Process.Cwd = "/work"
	out.Root.Readonly = true
	out.Linux.CgroupsPath = "/elsewhere"
	out.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &other}
	out.Mounts[0].Destination = "/elsewhere"
	switch {
	case in.Process.Cwd != "", in.Root.Readonly, in.Linux.CgroupsPath != "", in.Mounts[0].Destination != "/proc":
		t.Errorf("a change of the copy changed the original: %+v", in)
	case *in.Linux.Resources.Memory.Limit != limit:
		t.Errorf("the limit of one container became that of the next: %d", *in.Linux.Resources.Memory.Limit)
	}
}
