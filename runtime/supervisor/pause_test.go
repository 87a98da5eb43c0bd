package supervisor_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/skep-io/skep/runtime/client"
)

func TestPause_HaltsUntilResumed(t *testing.T) {
	n := newNode(t)
	pid := n.waiter("c").Pid
	if err := n.Resume(t.Context(), "c"); !errors.Is(err, client.ErrState) {
		t.Errorf("resume what runs: %v", err)
	}
	if err := n.Pause(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if err := n.Pause(t.Context(), "c"); !errors.Is(err, client.ErrState) {
		t.Errorf("pause what is paused: %v", err)
	}
	if err := n.Kill(t.Context(), "c", syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	_, err := n.Exec(t.Context(), "c", client.ExecRequest{Args: []string{"/inside", "exit", "0"}})
	if !errors.Is(err, client.ErrState) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("exec in what is paused: %v", err)
	}
	// The process would have taken the signal long ago.
	if status := n.file("/proc/%d/status", pid); !strings.Contains(status, "ShdPnd:\t0000000000000200") {
		t.Errorf("the signal is not waiting:\n%s", status)
	}
	n.end()
	n.run() // a new supervisor knows
	if err := n.Resume(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	n.awaitLine("c", "got user defined signal 1")
	if code, _, _ := n.ended(n.exec("c", client.ExecRequest{}, "exit", "3")); code != 3 {
		t.Errorf("exec after it: code %d", code)
	}
}

func TestPause_KillingEndsIt(t *testing.T) {
	n := newNode(t)
	for id, kill := range map[string]func(id string) error{
		"first": func(id string) error { return n.Kill(t.Context(), id, syscall.SIGKILL) },
		"all":   func(id string) error { return n.KillAll(t.Context(), id) },
	} {
		n.waiter(id)
		if err := n.Pause(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if err := kill(id); err != nil {
			t.Fatal(err)
		}
		if s := n.await(id, client.EventExited); s.ExitCode != 137 {
			t.Errorf("%s: %+v", id, s)
		}
		if err := n.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestTop_ListsAllProcesses(t *testing.T) {
	n := newNode(t)
	first := n.waiter("c").Pid
	e := n.exec("c", client.ExecRequest{User: nil}, "wait")
	got, err := n.Processes(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[int]string{}
	for _, p := range got {
		commands[p.Pid] = p.Command
		// The other has only begun, and the kernel counts memory by the way (proc_pid_stat(5)): few pages may count as none.
		if p.UID != 0 || p.Inner == 0 || len(p.State) != 1 || p.Pid == first && (p.Inner != 1 || p.Resident == 0) {
			t.Errorf("process %+v", p)
		}
	}
	if len(got) != 2 || commands[first] != "/inside wait" || commands[e.Pid] != "/inside wait" {
		t.Errorf("processes %+v", got)
	}
	if _, err := n.Processes(t.Context(), "nobody"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}
