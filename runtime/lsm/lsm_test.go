package lsm

import (
	"bytes"
	"os"
	"slices"
	"strings"
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

// Each container has categories of its own, for as long as it is there; what label= says takes the place of the policy's.
func TestSELinuxLabels_AreOfOneContainer(t *testing.T) {
	if !SELinux() {
		t.Skip("needs SELinux, and a policy with labels for containers; make e2e-vm has one")
	}
	seen := map[string]bool{}
	for range 200 {
		labels, err := NewLabels(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ReleaseLabel(labels.Process)
		process, mount := strings.SplitN(labels.Process, ":", 4), strings.SplitN(labels.Mount, ":", 4)
		if process[2] != "container_t" || mount[2] != "container_file_t" || process[3] != mount[3] || seen[process[3]] {
			t.Fatalf("labels %+v, after %d others", labels, len(seen))
		}
		seen[process[3]] = true
	}
	labels, err := NewLabels([]string{"type:web_t", "level:s0:c1,c2"})
	if err != nil || labels.Process != "system_u:system_r:web_t:s0:c1,c2" || labels.Mount != "system_u:object_r:container_file_t:s0:c1,c2" {
		t.Errorf("with options: %+v, %v", labels, err)
	}
	if labels, err := NewLabels([]string{"disable"}); err != nil || labels.Process != "" || labels.Mount == "" {
		t.Errorf("disabled: %+v, %v", labels, err)
	}
	if _, err := NewLabels([]string{"type:nobody_t"}); err == nil || !strings.Contains(err.Error(), "nobody_t") {
		t.Errorf("a type of no policy: %v", err)
	}
}

func TestSameCategories(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"u:r:t:s0:c1,c2", "u:r:other:s0:c1,c2", true}, {"u:r:t:s0:c1,c2", "u:r:t:s0:c1,c3", false}, {"", "", false}, {"u:r:t:s0:c1,c2", "", false},
	} {
		if SameCategories(tt.a, tt.b) != tt.want {
			t.Errorf("%q and %q: want %v", tt.a, tt.b, tt.want)
		}
	}
}
