package agent_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skep-io/skep/runtime/client"
)

// cutOff has the next run of the agent know no manager that answers.
func (n *node) cutOff() {
	n.t.Helper()
	n.managers, n.patience = []string{"127.0.0.1:1"}, 300*time.Millisecond
	if err := os.RemoveAll(filepath.Join(n.dir, "agent", "managers.json")); err != nil {
		n.t.Fatal(err)
	}
}

// reboot ends the agent and all containers, as a restart of the machine does.
func (n *node) reboot(ids ...string) {
	n.t.Helper()
	n.end()
	for _, id := range ids {
		if err := n.client.KillAll(n.t.Context(), id); err != nil {
			n.t.Fatal(err)
		}
		n.awaitExit(id)
		if err := n.client.Delete(n.t.Context(), id); err != nil {
			n.t.Fatal(err)
		}
	}
}

// awaitExit waits until the process of a container has ended.
func (n *node) awaitExit(id string) {
	n.t.Helper()
	n.awaitState(id, func(s client.State, err error) bool { return err == nil && s.Status == client.Exited })
}

// awaitRunning waits until a container runs, and returns its first process.
func (n *node) awaitRunning(id string) int {
	n.t.Helper()
	return n.awaitState(id, func(s client.State, err error) bool { return err == nil && s.Status == client.Running }).Pid
}

func (n *node) awaitState(id string, holds func(client.State, error) bool) client.State {
	n.t.Helper()
	var s client.State
	await(n.t, "container "+id+" is not as it should be", func() bool {
		var err error
		s, err = n.client.State(n.t.Context(), id)
		return holds(s, err)
	})
	return s
}

// await waits until a condition holds, or fails with what is wrong while it does not.
func await(t testing.TB, otherwise string, holds func() bool) {
	t.Helper()
	late := time.After(patience)
	for !holds() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-late:
			t.Fatal(otherwise)
		}
	}
}

// A node whose machine was restarted starts what ran there again when no manager tells in time what to do, and with a manager back it is
// still the same task.
func TestAgent_StartsTasksAgainWithNoManagerInReach(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	m.assign(update(n.task("t1", "serve")))
	m.awaitStatus(t, "t1", "RUNNING")

	n.reboot("t1")
	n.cutOff()
	n.begin()
	pid := n.awaitRunning("t1")

	n.end()
	m.forget()
	n.managers = []string{m.address}
	n.begin()
	m.awaitStatus(t, "t1", "RUNNING")
	if again := n.awaitRunning("t1"); again != pid {
		t.Errorf("process %d is now %d", pid, again)
	}
	if err := n.agent.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := n.leftovers(t, "t1"); len(left) > 0 {
		t.Errorf("I15: left behind: %q", left)
	}
}
