package supervisor_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/keeper"
	"github.com/skep-io/skep/runtime/logfile"
)

// kept is a node whose supervisors are started by a keeper.
type kept struct {
	*node
	cmd    *exec.Cmd
	keeper *keeper.Client
	log    *os.File
	pid    int // of the supervisor, or 0
}

// prepareKept starts a keeper. All ends with the test.
func prepareKept(t *testing.T) *kept {
	t.Helper()
	n := &kept{node: prepare(t)}
	if err := os.MkdirAll(n.cfg.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.log, err = os.OpenFile(filepath.Join(filepath.Dir(n.cfg.Root), "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if text, err := os.ReadFile(n.log.Name()); err == nil && t.Failed() {
			t.Logf("supervisors and keeper say:\n%s", text)
		}
		n.log.Close()
	})
	n.startKeeper()
	return n
}

func (n *kept) startKeeper() {
	n.Helper()
	cmd := exec.Command(filepath.Join(programs, "skep-runtime"), "keep", "--root", n.cfg.Root)
	cmd.Stderr = n.log
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	n.cmd = cmd
	n.Cleanup(func() {
		if n.pid == 0 && n.Client != nil && n.cmd == cmd { // somebody must end the containers
			n.supervise()
		}
		if n.pid != 0 {
			n.stop(syscall.SIGTERM)
		}
		n.keeper.Close()
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != -1 { // it ends when there is nothing left
			n.Errorf("keeper: %v", err)
		}
	})
	n.until("keeper answers", func() (ok bool) {
		var err error
		n.keeper, err = keeper.Dial(context.Background(), keeper.Socket(n.cfg.Root))
		return err == nil
	})
}

// supervise has the keeper start a supervisor, and connects to it.
func (n *kept) supervise() {
	n.Helper()
	var err error
	n.pid, err = n.keeper.Start(nil, n.log, "skep-runtime", "supervise", "--root", n.cfg.Root, "--socket", n.cfg.Socket,
		"--cgroup-parent", n.cfg.CgroupParent, "--runtime", n.cfg.Runtime)
	if err != nil {
		n.Fatal(err)
	}
	n.until("supervisor answers", func() bool {
		c, err := client.Dial(context.Background(), n.cfg.Socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if n.Context().Err() == nil { // else for the cleanup
		n.connect()
	}
}

// stop ends the supervisor and waits for its end.
func (n *kept) stop(sig syscall.Signal) {
	n.Helper()
	if sig == syscall.SIGTERM {
		n.deleteAll()
	}
	n.Client.Close()
	if err := syscall.Kill(n.pid, sig); err != nil {
		n.Error(err)
	}
	n.awaitGone(n.pid)
	n.pid = 0
}

func (n *kept) awaitGone(pid int) {
	n.Helper()
	n.until(fmt.Sprintf("end of %d", pid), func() bool { return syscall.Kill(pid, 0) != nil })
}

// terminate ends a container while no supervisor runs.
func (n *kept) terminate(pid int) {
	n.Helper()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		n.Fatal(err)
	}
	n.awaitGone(pid)
}

func TestKeeper_AnEndThatNoSupervisorSaw(t *testing.T) { // I10
	n := prepareKept(t)
	n.supervise()
	a := n.begin(n.request("a", "wait"))
	n.awaitLine("a", "waiting")
	b := n.begin(n.request("b", "wait"))
	n.awaitLine("b", "waiting")
	n.stop(syscall.SIGKILL)
	n.terminate(a.Pid)

	n.supervise()
	got, err := n.State(t.Context(), "a")
	if err != nil || got.Status != client.Exited || got.ExitCode != 7 || got.Unknown || got.Error != "" {
		t.Errorf("ended meanwhile: %+v, %v; want code 7", got, err)
	}
	if out := n.output("a", logfile.Stdout); out != "waiting\ngot terminated\n" {
		t.Errorf("its output: %q", out)
	}
	// On any kernel: the keeper is its parent now.
	if err := n.Kill(t.Context(), "b", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := n.await("b", client.EventExited); got.ExitCode != 7 || got.Error != "" || got.Pid != 0 {
		t.Errorf("ended later: %+v (process %d), want code 7", got, b.Pid)
	}
	n.untilDropped("a")
	n.untilDropped("b")
}

func TestKeeper_SeveralSupervisorsDie(t *testing.T) {
	n := prepareKept(t)
	n.supervise()
	state := n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	for range 3 {
		n.stop(syscall.SIGKILL)
		n.supervise()
	}
	n.stop(syscall.SIGKILL)
	n.terminate(state.Pid)
	n.supervise()
	if got, err := n.State(t.Context(), "c"); err != nil || got.ExitCode != 7 {
		t.Errorf("%+v, %v; want code 7", got, err)
	}
}

// TestKeeper_OfASupervisorThatUpgradedItself: the next program in the same process is as much the keeper's child.
func TestKeeper_OfASupervisorThatUpgradedItself(t *testing.T) {
	n := prepareKept(t)
	n.supervise()
	state := n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	before := size(t, n.pid)
	if err := n.Upgrade(t.Context(), secondProgram(t)); err != nil {
		t.Fatal(err)
	}
	n.until("the next program runs", func() bool { return size(t, n.pid) == before+4 })
	if _, err := n.List(t.Context()); err != nil { // it has begun
		t.Fatal(err)
	}
	n.stop(syscall.SIGKILL)
	n.terminate(state.Pid)
	n.supervise()
	if got, err := n.State(t.Context(), "c"); err != nil || got.ExitCode != 7 {
		t.Errorf("%+v, %v; want code 7", got, err)
	}
}

// TestKeeper_ItsOwnDeathEndsNothing: the supervisor goes on, and finds the next keeper.
func TestKeeper_ItsOwnDeathEndsNothing(t *testing.T) {
	n := prepareKept(t)
	n.supervise()
	running := n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	if err := n.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-n.keeper.Gone()
	if exit, _ := n.complete(n.request("without", "exit", "33")); exit.ExitCode != 33 {
		t.Errorf("without a keeper: %+v", exit)
	}
	n.startKeeper()
	n.until("the next keeper holds the container", func() bool {
		held, err := n.keeper.Ask("c")
		for _, fd := range held.Files {
			syscall.Close(fd)
		}
		return err == nil && held.Known && len(held.Files) == 2
	})
	n.stop(syscall.SIGKILL)
	n.terminate(running.Pid)
	n.supervise()
	// How it ended, nobody can know who is not its parent.
	if got, err := n.State(t.Context(), "c"); err != nil || got.ExitCode != 255 || !got.Unknown {
		t.Errorf("%+v, %v; want that it is not known", got, err)
	}
	if out := n.output("c", logfile.Stdout); out != "waiting\ngot terminated\n" {
		t.Errorf("its output: %q", out)
	}
}

// TestKeeper_KeepsNothingOfAContainerThatIsNoMore: the supervisor was killed before it could say so.
func TestKeeper_KeepsNothingOfAContainerThatIsNoMore(t *testing.T) {
	n := prepareKept(t)
	if err := n.keeper.Hold("old", os.Getpid(), 0, 1); err != nil {
		t.Fatal(err)
	}
	n.supervise()
	n.untilDropped("old")
}

// untilDropped waits until the keeper keeps nothing of a container: what the supervisor tells it and what the test asks come by different sockets.
func (n *kept) untilDropped(id string) {
	n.Helper()
	n.until("the keeper has dropped "+id, func() bool {
		held, err := n.keeper.Ask(id)
		for _, fd := range held.Files {
			syscall.Close(fd)
		}
		return err == nil && !held.Known
	})
}

// TestKeeper_LeavesNoZombies: also of processes that are not a container's first one.
func TestKeeper_LeavesNoZombies(t *testing.T) {
	n := prepareKept(t)
	n.supervise()
	n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	e, err := n.Exec(t.Context(), "c", client.ExecRequest{Args: []string{"/inside", "wait"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	n.stop(syscall.SIGKILL)
	if err := syscall.Kill(e.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.awaitGone(e.Pid)
	n.supervise()
}

func TestKeeper_OneForADirectory(t *testing.T) {
	n := prepareKept(t)
	out, err := exec.Command(filepath.Join(programs, "skep-runtime"), "keep", "--root", n.cfg.Root).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another keeper is running") {
		t.Errorf("a second keeper: %q, %v", out, err)
	}
	if _, err := n.keeper.Ask("x"); err != nil {
		t.Errorf("the first: %v", err)
	}
}

// TestKeeper_APartOfALine: the log takes whole lines, and the supervisor that had read a part of one is killed, again and again.
func TestKeeper_APartOfALine(t *testing.T) {
	n := prepareKept(t)
	n.supervise()
	r := n.request("c", "cat")
	r.Spec.Process.Terminal = true
	n.begin(r)
	a := n.attach("c")
	for _, part := range []string{"one ", "two ", "three"} {
		if _, err := a.Terminal.WriteString(part); err != nil { // which is echoed, and not read as a line
			t.Fatal(err)
		}
		shown := make([]byte, len(part))
		if _, err := io.ReadFull(a.Stdout, shown); err != nil || string(shown) != part {
			t.Fatalf("shown %q, %v", shown, err)
		}
		n.until("it is kept", func() bool {
			text, err := os.ReadFile(filepath.Join(n.cfg.Run, "c", "stdout.rest"))
			return err == nil && strings.Contains(string(text), part)
		})
		n.stop(syscall.SIGKILL)
		n.supervise()
		a = n.attach("c")
	}
	if _, err := a.Terminal.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	n.awaitLine("c", "one two three")
	n.until("nothing of it is kept", func() bool { // one that is killed before that repeats it
		text, err := os.ReadFile(filepath.Join(n.cfg.Run, "c", "stdout.rest"))
		return err == nil && len(text) >= 4 && binary.LittleEndian.Uint32(text) == 0
	})
	n.stop(syscall.SIGKILL)
	n.supervise()
	if _, err := n.attach("c").Terminal.WriteString("\x04"); err != nil {
		t.Fatal(err)
	}
	n.await("c", client.EventExited)
	// The echo, and twice what cat prints.
	if out := n.output("c", logfile.Stdout); out != strings.Repeat("one two three\r\n", 3) {
		t.Errorf("the log: %q", out)
	}
}
