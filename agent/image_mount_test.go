package agent_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image"
)

// An image that a task mounts stays on the node for as long as the task has it, also when the daemon is started anew meanwhile.
func TestContainer_KeepsTheImagesThatItMounts(t *testing.T) {
	m := adopted(t)
	tk := newTask("t1", "serve")
	tk.Spec.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_IMAGE, Source: probeImage, Target: "/probe", ReadOnly: true}}
	m.start(t, tk)
	d, err := m.images.Resolve(t.Context(), probeImage)
	if err != nil {
		t.Fatal(err)
	}
	inUse := func(when string, containers string) {
		t.Helper()
		if err := m.images.Remove(t.Context(), d.String()); !errors.Is(err, image.ErrInUse) || !strings.Contains(err.Error(), containers) {
			t.Errorf("%s: got %v, want it in use by %s", when, err, containers)
		}
	}
	inUse("running", "by 2 container(s)") // as its root, and as a mount
	m.restart(t)
	if _, _, err := m.exec.Adopt(t.Context(), []string{"t1"}); err != nil {
		t.Fatal(err)
	}
	inUse("adopted", "by 4 container(s)") // the store lives on here, with what the executor of before held
	if err := m.exec.Kill(t.Context(), "t1"); err != nil {
		t.Fatal(err)
	}
	m.finish(t, "t1")
	if err := m.exec.Remove(t.Context(), "t1"); err != nil {
		t.Fatal(err)
	}
}
