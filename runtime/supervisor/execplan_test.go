package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/spec"
)

func TestExecPlan_RoundTrip(t *testing.T) {
	s, err := spec.Default()
	if err != nil {
		t.Fatal(err)
	}
	s.Process.Args = []string{"/bin/true"}
	want, err := spec.Compile(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := saveExecPlan(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := loadExecPlan(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Seccomp, got.Seccomp); diff != "" || want.Seccomp == nil {
		t.Errorf("filter (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.Process, got.Process); diff != "" {
		t.Errorf("process (-want +got):\n%s", diff)
	}
}

func TestExecPlan_DamagedOrMissingIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := loadExecPlan(dir); !errors.Is(err, protocol.ErrState) {
		t.Errorf("missing: %v", err)
	}
	for _, text := range []string{"", "{}", `{"Version":2}`, `{"Version":1,"Seccomp":"AAAA"}`, `{"Version":1,"Evil":1}`} {
		if err := os.WriteFile(filepath.Join(dir, execPlanName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadExecPlan(dir); !errors.Is(err, errRecord) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
