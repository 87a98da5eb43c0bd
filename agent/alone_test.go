package agent_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/runtime/boot"
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
		n.exit(id)
		if err := n.client.Delete(n.t.Context(), id); err != nil {
			n.t.Fatal(err)
		}
	}
}

// exit ends a container, and the supervisor sees how.
func (n *node) exit(id string) {
	n.t.Helper()
	if err := n.client.KillAll(n.t.Context(), id); err != nil {
		n.t.Fatal(err)
	}
	n.awaitState(id, func(s client.State, err error) bool { return err == nil && s.Status == client.Exited })
}

// shutDown ends a container as a machine does that is shut down in order: the supervisor sees how. The next boot is another one.
func (n *node) shutDown(id string) {
	n.t.Helper()
	n.exit(id)
	path := filepath.Join(n.dir, "containers", id, "container.json")
	record, err := os.ReadFile(path)
	now, bootErr := boot.ID()
	if err := errors.Join(err, bootErr); err != nil || !bytes.Contains(record, []byte(now)) {
		n.t.Fatalf("the record is %s, %v", record, err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(record, []byte(now), []byte("the one before")), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// awaitRunning waits until a container runs, and returns its first process.
func (n *node) awaitRunning(id string) int {
	n.t.Helper()
	return n.awaitState(id, func(s client.State, err error) bool { return err == nil && s.Status == client.Running }).Pid
}

// awaitRevived waits until the agent, too, knows that a container runs which it started again, and returns its first process: an agent that
// ends before that takes the start back, and a manager hears that the task is gone.
func (n *node) awaitRevived(id string) int {
	n.t.Helper()
	pid := n.awaitRunning(id)
	await(n.t, "the agent does not know that it has started "+id+" again", func() bool {
		return !slices.ContainsFunc(n.agent.Waiting(), func(what string) bool { return strings.Contains(what, "task "+id+":") })
	})
	return pid
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
	m.assign(update(n.task("t1", "serve")), update(n.task("t2", "serve")), update(n.task("t3", "serve")))
	for _, id := range []string{"t1", "t2", "t3"} {
		m.awaitStatus(t, id, "RUNNING")
	}

	n.reboot("t1")
	n.shutDown("t2")
	n.exit("t3") // by itself, while the daemon did not run
	n.cutOff()
	n.begin()
	pid := n.awaitRevived("t1")
	n.awaitRevived("t2")

	n.end()
	m.forget()
	n.managers = []string{m.address}
	n.begin()
	m.awaitStatus(t, "t1", "RUNNING")
	m.awaitStatus(t, "t2", "RUNNING")
	m.awaitStatus(t, "t3", "FAILED task: non-zero exit (137) exit=137")
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
