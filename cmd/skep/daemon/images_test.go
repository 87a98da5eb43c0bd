package daemon

import (
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// Before the agent has found the containers that run, any image may be one of theirs.
func TestRemoveImage_WaitsForTheContainers(t *testing.T) {
	d := newTestDaemon(t)
	d.current = &node{daemon: d}
	_, err := d.RemoveImage(t.Context(), &api.RemoveImageRequest{Image: "example/app:1"})
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("while the node starts: %v, want that it is tried again", err)
	}
	d.current, d.locked = nil, true
	if _, err := d.RemoveImage(t.Context(), &api.RemoveImageRequest{Image: "example/app:1"}); fault.KindOf(err) != fault.KindOf(errLocked) {
		t.Errorf("while the node is locked: %v, want the kind of %v", err, errLocked)
	}
}
