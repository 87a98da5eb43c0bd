package supervisor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/logfile"
)

// terminalRequest is a container with a terminal that says what that is, again for each line that is typed.
func (n *node) terminalRequest(id string) client.Request {
	n.Helper()
	r := n.request(id, "terminal")
	r.Spec.Process.Terminal = true
	return r
}

// what the container says of its terminal, by the size of the window.
func theTerminal(size string) string {
	return "/dev/pts/0 -rw--w---- " + size + " controlling true"
}

// attach attaches to a container.
func (n *node) attach(id string) *client.Attachment {
	n.Helper()
	a, err := n.Attach(n.Context(), id)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		if err := a.Close(); err != nil {
			n.Error(err)
		}
	})
	return a
}

// typed types a line and waits until the container has answered.
func typed(n *node, a *client.Attachment, text, want string) {
	n.Helper()
	if _, err := io.WriteString(a.Terminal, text+"\n"); err != nil {
		n.Fatal(err)
	}
	shown := bufio.NewScanner(a.Stdout)
	for shown.Scan() {
		if strings.TrimSpace(shown.Text()) == want {
			return
		}
	}
	n.Fatalf("the terminal never showed %q: %v", want, shown.Err())
}

func TestTerminal_IsTheContainersOwn(t *testing.T) {
	n := newNode(t)
	n.begin(n.terminalRequest("c"))
	n.awaitLine("c", theTerminal("0x0"))
	a := n.attach("c")
	if a.Stderr != nil || a.Terminal == nil {
		t.Fatalf("attached to %+v", a)
	}
	typed(n, a, "some words", theTerminal("0x0"))
	if err := a.Resize(client.Size{Rows: 40, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	b := n.attach("c") // both see what is typed by one
	typed(n, a, "", theTerminal("40x100"))
	typed(n, b, "", theTerminal("40x100"))
	n.awaitLine("c", theTerminal("40x100"))
	if out := n.output("c", logfile.Stdout); !strings.Contains(out, "some words\r\n") {
		t.Errorf("the log is without the echo: %q", out)
	}
	if _, err := a.Terminal.Write([]byte{4}); err != nil { // the end of input
		t.Fatal(err)
	}
	if got := n.await("c", client.EventExited); got.ExitCode != 0 || got.Error != "" {
		t.Errorf("exit %+v", got)
	}
	for _, each := range []*client.Attachment{a, b} {
		if _, err := io.Copy(io.Discard, each.Stdout); err != nil {
			t.Errorf("the end of what it shows: %v", err)
		}
		if code, err := each.Wait(t.Context()); err != nil || code != 0 {
			t.Errorf("its end: %d, %v", code, err)
		}
	}
	if _, err := n.Attach(t.Context(), "c"); !errors.Is(err, client.ErrState) {
		t.Errorf("attach after the end: %v, want ErrState", err)
	}
}

func TestTerminal_OutlivesTheSupervisor(t *testing.T) {
	n := prepareKept(t)
	n.supervise()
	n.begin(n.terminalRequest("c"))
	n.awaitLine("c", theTerminal("0x0"))
	for i := range 3 {
		n.stop(syscall.SIGKILL)
		n.supervise()
		a := n.attach("c")
		if err := a.Resize(client.Size{Rows: 20, Cols: uint16(i + 1)}); err != nil {
			t.Fatal(err)
		}
		want := theTerminal(fmt.Sprintf("20x%d", i+1))
		typed(n.node, a, "", want)
		n.awaitLine("c", want)
	}
	if got, err := n.State(t.Context(), "c"); err != nil || got.Status != client.Running {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestTerminal_OutlivesAnUpgrade also without a keeper: it is handed over in the same process.
func TestTerminal_OutlivesAnUpgrade(t *testing.T) {
	n := prepare(t)
	p := spawn(n)
	n.begin(n.terminalRequest("c"))
	n.awaitLine("c", theTerminal("0x0"))
	before := size(t, p.cmd.Process.Pid)
	if err := n.Upgrade(t.Context(), secondProgram(t)); err != nil {
		t.Fatal(err)
	}
	n.until("the next program runs", func() bool { return size(t, p.cmd.Process.Pid) == before+4 })
	a := n.attach("c")
	if err := a.Resize(client.Size{Rows: 7, Cols: 8}); err != nil {
		t.Fatal(err)
	}
	typed(n, a, "", theTerminal("7x8"))
	n.awaitLine("c", theTerminal("7x8"))
}

func TestAttach_WithoutATerminal(t *testing.T) {
	n := newNode(t)
	n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	a := n.attach("c")
	if a.Terminal != nil || a.Stderr == nil {
		t.Fatalf("attached to %+v", a)
	}
	if err := a.Resize(client.Size{Rows: 1, Cols: 1}); err != nil {
		t.Errorf("resize what is no terminal: %v", err)
	}
	gone, err := n.Attach(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil { // which ends nothing
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
		if err := a.Signal(sig); err != nil {
			t.Fatal(err)
		}
		n.awaitLine("c", "got "+sig.String())
	}
	if code, err := a.Wait(t.Context()); err != nil || code != 7 {
		t.Errorf("its end: %d, %v; want 7", code, err)
	}
	out, err := io.ReadAll(a.Stdout)
	if want := "got user defined signal 1\ngot terminated\n"; err != nil || string(out) != want {
		t.Errorf("it showed %q, %v; want what was printed since: %q", out, err, want)
	}
	if out, err := io.ReadAll(a.Stderr); err != nil || len(out) != 0 {
		t.Errorf("its errors: %q, %v", out, err)
	}
}

// TestAttach_NobodyHoldsTheContainerUp who looks on and does not read.
func TestAttach_NobodyHoldsTheContainerUp(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "spam", "40000", "40")
	if _, err := n.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	a := n.attach("c")
	if err := n.Start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if got := n.await("c", client.EventExited); got.ExitCode != 0 {
		t.Errorf("exit %+v", got)
	}
	shown, err := io.Copy(io.Discard, a.Stdout)
	if logged := len(n.output("c", logfile.Stdout)); err != nil || shown == 0 || int(shown) >= logged {
		t.Errorf("it was shown %d bytes, %v, of %d; want a beginning", shown, err, logged)
	}
}

func TestAttach_Bounds(t *testing.T) {
	n := newNode(t)
	n.begin(n.request("c", "wait"))
	n.awaitLine("c", "waiting")
	var last *client.Attachment
	for range 16 {
		last = n.attach("c")
	}
	if _, err := n.Attach(t.Context(), "c"); !errors.Is(err, client.ErrState) {
		t.Errorf("one more: %v, want ErrState", err)
	}
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
	n.until("room for another", func() bool {
		a, err := n.Attach(t.Context(), "c")
		if err == nil {
			err = a.Close()
		}
		return err == nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Attach(ctx, "c"); err == nil {
		t.Error("attached though the context had ended")
	}
	if _, err := n.Attach(t.Context(), "nobody"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("to a container that isn't there: %v, want ErrNotFound", err)
	}
}
