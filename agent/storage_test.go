package agent_test

import (
	"strings"
	"testing"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/quota"
)

// A task is held to its storage size, or never started where that can't be.
func TestContainer_WritesNoMoreThanItsStorageSize(t *testing.T) {
	m := adopted(t)
	bounded, free := newTask("t1", "write", "8"), newTask("t2", "write", "8")
	bounded.Spec.Container.StorageSizeBytes = 4 << 20
	if _, out := m.run(t, free); !strings.Contains(out, "written: <nil>") {
		t.Errorf("without a storage size: %s", out)
	}
	if quota.Check(m.dir) != nil {
		err := m.exec.Prepare(t.Context(), bounded)
		if fault.KindOf(err) != fault.Precondition || !strings.Contains(err.Error(), "has no project quotas in force: it takes ext4 or xfs") {
			t.Errorf("got %v", err)
		}
		return
	}
	for range 2 { // the number of the quota is used again
		if _, out := m.run(t, bounded); !strings.Contains(out, "written: write /written: disk quota exceeded") {
			t.Errorf("with a storage size: %s", out)
		}
		if err := m.exec.Remove(t.Context(), "t1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.exec.Remove(t.Context(), "t2"); err != nil {
		t.Fatal(err)
	}
	// A container that gets the same ids has no limit by them.
	if _, out := m.run(t, newTask("t3", "write", "8")); !strings.Contains(out, "written: <nil>") {
		t.Errorf("after a task with a storage size: %s", out)
	}
}
