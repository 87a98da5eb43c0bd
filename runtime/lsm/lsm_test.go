package lsm

import (
	"bytes"
	"os"
	"slices"
	"testing"
)

// The compiled profile is of the name that is used, and in the kernel's format.
func TestCompiled_IsTheDefaultProfile(t *testing.T) {
	if !bytes.Contains(compiled, []byte(DefaultProfile+"\x00")) || !bytes.HasPrefix(compiled, []byte("\x04\x08\x00version\x00")) {
		t.Errorf("default.bin is no compiled profile of the name %s: run go generate", DefaultProfile)
	}
}

func TestLoadProfile(t *testing.T) {
	if os.Geteuid() != 0 || !AppArmor() {
		t.Skip("needs root and a kernel with AppArmor on")
	}
	for range 2 { // the second one replaces the first
		if err := LoadProfile(); err != nil {
			t.Fatal(err)
		}
	}
	if !ProfileLoaded() || !slices.Contains(Isolation(), AppArmorName) {
		t.Errorf("the profile is loaded, but %v isolates", Isolation())
	}
}

func TestIsolation_NamesWhatTheKernelHas(t *testing.T) {
	got := Isolation()
	if slices.Contains(got, LandlockName) != (Landlock() >= LeastLandlock) || slices.Contains(got, AppArmorName) && !AppArmor() {
		t.Errorf("%v with Landlock %d and AppArmor %v", got, Landlock(), AppArmor())
	}
	if !slices.Contains(got, Seccomp) {
		t.Errorf("%v has no seccomp, without which nothing runs here", got)
	}
}
