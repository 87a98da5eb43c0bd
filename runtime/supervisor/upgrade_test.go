package supervisor_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/skep-io/skep/runtime/client"
)

// secondProgram is the supervisor's program at another path.
func secondProgram(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(programs, "skep-runtime"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "next")
	if err := os.WriteFile(path, append(text, "next"...), 0o755); err != nil { // another file, for who compares
		t.Fatal(err)
	}
	return path
}

// size is that of the program which a process runs, or 0 while execve replaces it.
func size(t *testing.T, pid int) int64 {
	t.Helper()
	st, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func TestUpgrade_ContainersGoOn(t *testing.T) { // I4
	n := prepare(t)
	p := spawn(n)
	running := n.begin(n.request("runs", "wait"))
	n.awaitLine("runs", "waiting")
	if _, err := n.Create(t.Context(), n.request("waits", "exit", "5")); err != nil {
		t.Fatal(err)
	}
	if got, _ := n.complete(n.request("ended", "exit", "33")); got.ExitCode != 33 {
		t.Fatalf("exit %+v", got)
	}
	before := size(t, p.cmd.Process.Pid)
	if err := n.Upgrade(t.Context(), secondProgram(t)); err != nil {
		t.Fatal(err)
	}
	n.until("the next program runs", func() bool { return size(t, p.cmd.Process.Pid) == before+4 })
	states, err := n.List(t.Context())
	if err != nil || len(states) != 3 {
		t.Fatalf("after the upgrade: %+v, %v", states, err)
	}
	if exe, err := os.Readlink("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/exe"); err != nil || !strings.HasPrefix(exe, "/memfd:") {
		t.Errorf("it runs from %s, %v", exe, err)
	}
	n.Client.Close()
	n.connect()
	if got, err := n.State(t.Context(), "runs"); err != nil || got.Status != client.Running || got.Pid != running.Pid {
		t.Errorf("running container: %+v, %v", got, err)
	}
	if err := n.Start(t.Context(), "waits"); err != nil {
		t.Errorf("start what waited: %v", err)
	}
	if got := n.await("waits", client.EventExited); got.ExitCode != 5 || got.Error != "" {
		t.Errorf("what waited: %+v, want code 5", got)
	}
	if err := n.Kill(t.Context(), "runs", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// On any kernel, since they are still children.
	if got := n.await("runs", client.EventExited); got.ExitCode != 7 || got.Error != "" {
		t.Errorf("what ran: %+v, want code 7", got)
	}
	if got, err := n.State(t.Context(), "ended"); err != nil || got.ExitCode != 33 {
		t.Errorf("what had ended: %+v, %v", got, err)
	}
	for i := range 3 { // and again
		if err := n.Upgrade(t.Context(), filepath.Join(programs, "skep-runtime")); err != nil {
			t.Fatalf("upgrade %d: %v", i+2, err)
		}
	}
	if got, err := n.List(t.Context()); err != nil || len(got) != 3 {
		t.Errorf("after more upgrades: %+v, %v", got, err)
	}
}

func TestUpgrade_AnExitMeanwhileIsNotLost(t *testing.T) {
	n := prepare(t)
	p := spawn(n)
	n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	// Stopped, it can see no end; what it is asked meanwhile it does when it goes on.
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pids := groupPids(t, n, "c")
	if err := exec.Command("kill", append([]string{"-TERM"}, pids...)...).Run(); err != nil {
		t.Fatal(err)
	}
	upgraded := make(chan error, 1)
	go func() { upgraded <- n.Upgrade(t.Context(), secondProgram(t)) }()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-upgraded; err != nil {
		t.Fatal(err)
	}
	n.Client.Close()
	n.connect()
	if got := n.await("c", client.EventExited); got.ExitCode != 7 {
		t.Errorf("exit %+v, want code 7", got)
	}
}

func TestUpgrade_OnlyToAProgramThatRuns(t *testing.T) {
	n := prepare(t)
	p := spawn(n)
	n.begin(n.request("c", "wait"))
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "skep-runtime", "/nonexistent", text, "/bin/true"} {
		if err := n.Upgrade(t.Context(), path); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("to %q: %v, want ErrInvalid", path, err)
		}
	}
	if got, err := n.State(t.Context(), "c"); err != nil || got.Status != client.Running {
		t.Errorf("the container: %+v, %v", got, err)
	}
	p.stop(syscall.SIGTERM)
	if _, err := os.Stat(n.cfg.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	spawn(n) // for the cleanup
}
