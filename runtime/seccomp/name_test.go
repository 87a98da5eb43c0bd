package seccomp

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCallName_IsTheOneOfProfiles(t *testing.T) {
	for _, tc := range []struct {
		goarch string
		compat bool
		number uint32
		want   string
	}{
		{"amd64", false, 59, "execve"},
		{"amd64", true, 11, "execve"},
		{"arm64", false, 79, "newfstatat"},
		{"arm64", true, 11, "execve"},
		{"amd64", false, 511, ""},
		{"riscv64", false, 59, ""},
	} {
		got, ok := CallName(tc.goarch, tc.compat, tc.number)
		if got != tc.want || ok != (tc.want != "") {
			t.Errorf("%s, 32-bit %v, %d: %q, %v; want %q", tc.goarch, tc.compat, tc.number, got, ok, tc.want)
		}
	}
}

// If two names had one number, the name of a call would be another one each time.
func TestCallName_IsTheOnlyOne(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		abis, err := abisOf(&specs.LinuxSeccomp{Architectures: []specs.Arch{specs.ArchX86, specs.ArchARM}}, goarch)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range abis {
			names := map[int]string{}
			for name, number := range b.numbers {
				if other, ok := names[number]; ok {
					t.Errorf("%s, ABI %d: %s and %s are both %d", goarch, i, name, other, number)
				}
				names[number] = name
			}
		}
	}
}
