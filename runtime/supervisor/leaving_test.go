package supervisor

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/protocol"
)

// TestRelease_NothingComesAfterIt: who found the container running, and then waited for the end of its group, leaves none behind.
func TestRelease_NothingComesAfterIt(t *testing.T) {
	tree, err := cgroup.Open(fmt.Sprintf("skep-leaving-test-%d", os.Getpid()))
	if err != nil {
		t.Skipf("needs control groups: %v", err)
	}
	t.Cleanup(func() {
		if err := tree.Remove(); err != nil {
			t.Error(err)
		}
	})
	group, err := tree.Create("leaving", cgroup.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	c := &container{id: "leaving", group: group, process: &launch.Process{}, machine: machine{phase: phaseRunning}}
	if err := c.admits(); err != nil {
		t.Errorf("before: %v", err)
	}
	if err := c.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.admits(); !errors.Is(err, protocol.ErrState) {
		t.Errorf("a command: %v", err)
	}
	if err := new(Supervisor).pause(t.Context(), c); !errors.Is(err, protocol.ErrState) {
		t.Errorf("a pause: %v", err)
	}
	if group.Exists() || group.Frozen() {
		t.Error("the group is there again")
	}
}
