package exec_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/protocol"
)

func look(start *api.AttachStart) *api.ConnectTaskRequest {
	return &api.ConnectTaskRequest{Task: "t1", Input: &api.ConnectTaskRequest_Attach{Attach: start}}
}

func TestAttach_ShowsOutputAndPassesSignals(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(look(&api.AttachStart{Stdin: true}))
	defer cancel()
	p := <-n.calls
	if p.Op != protocol.OpAttach || p.ID != "t1" {
		t.Errorf("asked for %s of %s", p.Op, p.ID)
	}
	put(t, s, data("for nobody")) // without a terminal
	put(t, s, &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Signal{Signal: 15}})
	var call protocol.Call
	if _, err := protocol.Read(p.conn, &call); err != nil || call.Signal != 15 {
		t.Errorf("the supervisor got %+v, %v", call, err)
	}
	fmt.Fprint(p.stdout, "out")
	fmt.Fprint(p.stderr, "err")
	n.refuses(protocol.ErrState) // who looks again is told that it has ended
	p.end(t, 7)
	check(t, s, "out|err|connected t1 false disconnected 7")
}

func TestAttach_ATerminal(t *testing.T) {
	for _, stdin := range []bool{true, false} {
		n := newNode(t)
		n.shows(output{terminal: true})
		s, cancel := n.connect(look(&api.AttachStart{Stdin: stdin, Terminal: &api.TerminalSize{Rows: 50, Columns: 132}}))
		defer cancel()
		p := <-n.calls
		put(t, s, data("typed\n"))
		put(t, s, &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Signal{Signal: 10}}) // comes after it
		if _, err := protocol.Read(p.conn, &protocol.Call{}); err != nil {
			t.Fatal(err)
		}
		if size, err := unix.IoctlGetWinsize(int(p.stdin.Fd()), unix.TIOCGWINSZ); err != nil || size.Row != 50 || size.Col != 132 {
			t.Errorf("window %+v, %v", size, err)
		}
		if stdin {
			line := make([]byte, 64)
			if count, err := p.stdin.Read(line); err != nil || string(line[:count]) != "typed\n" {
				t.Errorf("read %q, %v", line[:count], err)
			}
		} else if waiting, err := unix.IoctlGetInt(int(p.stdin.Fd()), unix.TIOCINQ); err != nil || waiting != 0 {
			t.Errorf("%d bytes were typed by who said that nothing would be, %v", waiting, err)
		}
		fmt.Fprint(p.stdout, "shown")
		n.refuses(protocol.ErrState)
		p.end(t, 0)
		p.master.Close()
		check(t, s, "shown||connected t1 true disconnected 0")
	}
}

func TestAttach_EndsAloneWithItsStream(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(look(&api.AttachStart{}))
	p := <-n.calls
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	p.gone(t) // without a signal

	s, cancel = n.connect(look(&api.AttachStart{}))
	p = <-n.calls
	p.stdout.Close() // cut off
	again := <-n.calls
	for lost := false; !lost; {
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		lost = strings.Contains(string(r.GetOutput().GetStderr()), "missing")
	}
	cancel()
	p.gone(t)
	again.gone(t)
}

func TestAttach_TellsOfLostOutput(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(look(&api.AttachStart{}))
	defer cancel()
	first := <-n.calls
	fmt.Fprint(first.stdout, "one ")
	first.stdout.Close() // cut off, as who is a mebibyte behind
	for _, text := range []string{"two ", "three"} {
		again := <-n.calls
		fmt.Fprint(again.stdout, text)
		if _, err := io.WriteString(again.stderr, "x"); err == nil { // or it would fill; the first's is still read
			if _, err := again.stderr.Write(make([]byte, 1<<20)); err == nil {
				t.Error("the other output of a new attachment is held open")
			}
		}
		if text == "three" {
			fmt.Fprint(first.stderr, "problem")
			n.refuses(protocol.ErrState)
			again.end(t, 1)
			break
		}
		again.stdout.Close()
		defer again.close()
		defer again.conn.Close()
	}
	first.end(t, 7)
	got, err := all(s)
	if err != nil || strings.Count(got, "output is missing here") != 2 || !strings.Contains(got, "problem") ||
		!strings.HasPrefix(got, "one two three|") || !strings.HasSuffix(got, "|connected t1 false disconnected 7") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAttach_OutputThatTheContainerClosed(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(look(&api.AttachStart{}))
	defer cancel()
	first := <-n.calls
	n.shows(output{silent: true})
	first.stdout.Close()
	again := <-n.calls // nothing will come: the first's other output and the end still do
	again.gone(t)
	fmt.Fprint(first.stderr, "problem")
	n.refuses(protocol.ErrState)
	first.end(t, 7)
	check(t, s, "|problem|connected t1 false disconnected 7")
}

func TestAttach_SaysWhatCantBe(t *testing.T) {
	n := newNode(t)
	n.refuses(protocol.ErrState)
	s, cancel := n.connect(look(&api.AttachStart{}))
	defer cancel()
	if got, err := all(s); fault.KindOf(fault.FromStatus(err)) != fault.Precondition {
		t.Errorf("%q, %v", got, err)
	}
}
