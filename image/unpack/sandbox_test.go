package unpack

import (
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// TestDenied_ExistsEverywhere finds names that loading the filter would stumble
// over on the other processor.
func TestDenied_ExistsEverywhere(t *testing.T) {
	for _, info := range []*arch.Info{arch.X86_64, arch.AARCH64} {
		for _, name := range denied() {
			if _, ok := info.SyscallNames[name]; !ok {
				t.Errorf("%s has no system call %s", info.Name, name)
			}
		}
	}
	if names := denied(); len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Error("a name is there twice")
	}
}
