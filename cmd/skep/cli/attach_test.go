package cli_test

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/skep-io/skep/api"
)

// typed writes keys, and waits until they came through.
func (w *window) typed(stream api.Tasks_ConnectTaskServer, keys, want string) {
	w.Helper()
	if _, err := w.master.WriteString(keys); err != nil {
		w.Fatal(err)
	}
	got := ""
	for len(got) < len(want) {
		r, err := stream.Recv()
		if err != nil || r.GetData() == nil {
			w.Fatalf("got %v, %v after %q", r, err, got)
		}
		got += string(r.GetData())
	}
	if got != want {
		w.Errorf("typed %q, want %q", got, want)
	}
}

// shown is what the terminal showed when its command has ended.
func (w *window) shown() string {
	w.Helper()
	w.slave.Close()
	text, err := io.ReadAll(w.master)
	if err != nil && !errors.Is(err, syscall.EIO) { // as the end of a terminal looks
		w.Fatal(err)
	}
	return string(text)
}

func TestAttach_ATerminalAndTheKeysToLeave(t *testing.T) {
	for _, tt := range []struct {
		flags []string
		// keys are typed, one after the other, and the task gets what came. Then leave is typed.
		keys, came []string
		leave      string
	}{
		{nil, []string{"ls\r", "\x03\x1a", "\x10", "\x10a", "\x11"}, []string{"ls\r", "\x03\x1a", "", "\x10\x10a", "\x11"}, "\x10\x11"},
		{nil, []string{"a\x10"}, []string{"a"}, "\x11"},
		{nil, []string{"a\x10"}, []string{"a"}, "\x10\x11b"}, // the one before came through
		{[]string{"--detach-keys", "ctrl-a,x"}, []string{"\x10\x11", "\x01", "\x01y"}, []string{"\x10\x11", "", "\x01\x01y"}, "\x01x"},
		{[]string{"--detach-keys", "Ctrl-["}, []string{"q"}, []string{"q"}, "\x1b"},
	} {
		w := openWindow(t, append(append([]string{"attach"}, tt.flags...), "web.1")...)
		stream := <-w.stream
		first, err := stream.Recv()
		if a := first.GetAttach(); err != nil || !a.GetStdin() || a.GetTerminal().GetRows() != 24 || a.GetTerminal().GetColumns() != 80 {
			t.Fatalf("asked for %v, %v", first, err)
		}
		if w.raw() {
			t.Error("the terminal was made raw before the task was known to have one")
		}
		if err := stream.Send(onTerminal()); err != nil {
			t.Fatal(err)
		}
		w.until("raw mode", w.raw)
		for i, keys := range tt.keys {
			w.typed(stream, keys, tt.came[i])
		}
		if _, err := w.master.WriteString(tt.leave); err != nil {
			t.Fatal(err)
		}
		<-stream.Context().Done()
		w.end <- nil
		w.closed(0)
		if text := w.shown(); !strings.Contains(text, "read escape sequence\r\n") {
			t.Errorf("shown %q", text)
		}
	}
}

func TestAttach_WithoutATerminal(t *testing.T) {
	// Signals of keys go to the task, input does not, and the exit code is the task's.
	w := openWindow(t, "attach", "web.1")
	stream := <-w.stream
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Send(connected()), stream.Send(stdout([]byte("hello\n")))); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	if n, err := w.master.Read(line); err != nil || string(line[:n]) != "hello\r\n" {
		t.Fatalf("shown %q, %v", line[:n], err)
	}
	if _, err := w.master.WriteString("typed\n\x03"); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetSignal() != int32(syscall.SIGINT) {
		t.Errorf("got %v, %v; want the signal of ^C", r, err)
	}
	if w.raw() {
		t.Error("the terminal was made raw")
	}
	if err := stream.Send(disconnected(130)); err != nil {
		t.Fatal(err)
	}
	w.end <- nil
	w.closed(130)

	w = openWindow(t, "attach", "--sig-proxy=false", "web.1")
	stream = <-w.stream
	if err := errors.Join(stream.Send(connected()), stream.Send(stdout([]byte("hello\n")))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.master.Read(line); err != nil {
		t.Fatal(err)
	}
	if _, err := w.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	<-stream.Context().Done()
	w.end <- nil
	w.closed(130)
}

func TestAttach_WithoutInput(t *testing.T) {
	f, opts := start(t)
	f.withTasks(func(stream api.Tasks_ConnectTaskServer) error {
		first, err := stream.Recv()
		if err != nil || first.GetAttach() == nil || first.GetAttach().GetTerminal() != nil {
			t.Errorf("asked for %v, %v", first, err)
		}
		err = errors.Join(stream.Send(onTerminal()), stream.Send(stdout([]byte("out"))), stream.Send(disconnected(3)))
		if first.GetAttach().GetStdin() {
			<-stream.Context().Done()
		}
		return err
	})
	if code, out, errs := run(t, opts, strings.NewReader("typed"), "attach", "--no-stdin", "web.1"); code != 3 || out != "out" || errs != "" {
		t.Errorf("code %d, %q %q", code, out, errs)
	}
	if code, _, errs := run(t, opts, strings.NewReader("typed"), "attach", "web.1"); code != 5 || !strings.Contains(errs, "add --no-stdin") {
		t.Errorf("without a terminal here: code %d, %q", code, errs)
	}
	for _, keys := range []string{"ctrl-", "ctrl-1", "ab", "a,,b", "ctrl-ab", "é", ","} {
		if code, _, errs := run(t, opts, nil, "attach", "--detach-keys", keys, "web.1"); code != 5 || !strings.Contains(errs, "invalid key") {
			t.Errorf("%q: code %d, %q", keys, code, errs)
		}
	}
}
