package cli_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli"
)

// patience bounds every wait: far more than anything takes, so that only a hang reaches it.
const patience = time.Minute

// window is a pseudo-terminal with a command on it.
type window struct {
	*testing.T
	master, slave *os.File
	before        *unix.Termios
	command       *exec.Cmd
	stream        chan api.Tasks_ConnectTaskServer
	end           chan error // what the stream is to end with
}

// openWindow starts a command line on a terminal of its own, in a session of its own, as a shell would.
func openWindow(t *testing.T, args ...string) *window {
	t.Helper()
	w := &window{T: t, stream: make(chan api.Tasks_ConnectTaskServer), end: make(chan error)}
	f := newFake()
	f.becomeActive()
	f.withTasks(func(stream api.Tasks_ConnectTaskServer) error {
		w.stream <- stream
		return <-w.end
	})
	socket := filepath.Join(t.TempDir(), "skep.sock")
	f.serve(t, socket, t.Cleanup)
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	w.master = os.NewFile(uintptr(fd), "terminal")
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	if w.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.slave.Close(); w.master.Close() })
	w.resize(24, 80)
	w.before = w.mode()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.command = exec.Command(self, args...)
	w.command.Env = append(os.Environ(), commandVariable+"=yes", "SKEP_HOST=unix://"+socket)
	w.command.Stdin, w.command.Stdout, w.command.Stderr = w.slave, w.slave, w.slave
	w.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := w.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.command.Process.Kill() })
	return w
}

func (w *window) resize(rows, columns uint16) {
	w.Helper()
	if err := unix.IoctlSetWinsize(w.fd(), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		w.Fatal(err)
	}
}

// fd is the master's number. It stays non-blocking, which File.Fd would change.
func (w *window) fd() int {
	w.Helper()
	conn, err := w.master.SyscallConn()
	if err != nil {
		w.Fatal(err)
	}
	number := -1
	if err := conn.Control(func(fd uintptr) { number = int(fd) }); err != nil {
		w.Fatal(err)
	}
	return number
}

func (w *window) mode() *unix.Termios {
	w.Helper()
	mode, err := unix.IoctlGetTermios(w.fd(), unix.TCGETS)
	if err != nil {
		w.Fatal(err)
	}
	return mode
}

func (w *window) raw() bool {
	return w.mode().Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) == 0 && w.mode().Iflag&(unix.IXON|unix.ICRNL) == 0
}

// until waits for something that gives no notice.
func (w *window) until(what string, ok func() bool) {
	w.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			w.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// closed waits for the command's end, and checks that the terminal is as it was.
func (w *window) closed(code int) {
	w.Helper()
	_ = w.command.Wait() // the code says it
	if got := w.command.ProcessState.ExitCode(); got != code {
		w.Errorf("exit code %d, want %d", got, code)
	}
	if now := w.mode(); *now != *w.before {
		w.Errorf("the terminal was left as %+v, it was %+v", now, w.before)
	}
}

func TestExec_OnATerminal(t *testing.T) {
	w := openWindow(t, "exec", "-it", "web.1", "sh")
	stream := <-w.stream
	first, err := stream.Recv()
	if size := first.GetExec().GetTerminal(); err != nil || size.GetRows() != 24 || size.GetColumns() != 80 || !first.GetExec().GetStdin() {
		t.Fatalf("asked for %v, %v", first, err)
	}
	if w.raw() {
		t.Error("the terminal was made raw before the program runs")
	}
	if err := stream.Send(connected()); err != nil {
		t.Fatal(err)
	}
	w.until("raw mode", w.raw)
	// Keys that a terminal would act upon go to the program, those that leave Docker's exec too.
	const keys = "a\x03\x1a\x1c\x04\x10\x11\r"
	if _, err := w.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
	typed := ""
	for len(typed) < len(keys) {
		r, err := stream.Recv()
		if err != nil || r.GetData() == nil {
			t.Fatalf("got %v, %v after %q", r, err, typed)
		}
		typed += string(r.GetData())
	}
	if typed != keys {
		t.Errorf("typed %q, want %q", typed, keys)
	}
	w.resize(50, 132)
	r, err := stream.Recv()
	if size := r.GetResize(); err != nil || size.GetRows() != 50 || size.GetColumns() != 132 {
		t.Errorf("after a change of the window: %v, %v", r, err)
	}
	if err := errors.Join(stream.Send(stdout([]byte("out\r\n"))), stream.Send(disconnected(7))); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(w.master).ReadString('\n'); line != "out\r\n" || err != nil {
		t.Errorf("shown %q, %v", line, err)
	}
	w.end <- nil
	w.closed(7)
}

func TestExec_GivesTheTerminalBackWhenTheConnectionBreaks(t *testing.T) {
	w := openWindow(t, "exec", "-it", "web.1", "sh")
	stream := <-w.stream
	if err := stream.Send(connected()); err != nil {
		t.Fatal(err)
	}
	w.until("raw mode", w.raw)
	w.end <- errors.New("the node went away")
	w.closed(1)
}

func TestExec_EndsWithItsTerminal(t *testing.T) {
	w := openWindow(t, "exec", "-it", "web.1", "sh")
	stream := <-w.stream
	if err := stream.Send(connected()); err != nil {
		t.Fatal(err)
	}
	w.until("raw mode", w.raw)
	w.slave.Close()
	w.master.Close() // the window is closed: SIGHUP
	<-stream.Context().Done()
	w.end <- nil
	_ = w.command.Wait()
}

func TestExec_OutputInputAndSignals(t *testing.T) {
	f, opts := start(t)
	f.withTasks(func(stream api.Tasks_ConnectTaskServer) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		if got := slices.Sorted(slices.Values(first.GetExec().GetEnv())); !slices.Equal(got, []string{"A=b", "FILE=c"}) || first.GetExec().GetTerminal() != nil {
			t.Errorf("asked for %v", first)
		}
		if err := stream.Send(connected()); err != nil {
			return err
		}
		text, err := input(stream)
		return errors.Join(err, stream.Send(stdout(text)), stream.Send(stderr("problem")), stream.Send(disconnected(0)))
	})
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("FILE=c\nA=of the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := cli.Main(t.Context(), []string{"exec", "-i", "-e", "A=b", "-e", "UNSET_HERE", "--env-file", file, "web.1", "cat"}, strings.NewReader("typed"), &out, &errs, opts)
	if code != 0 || out.String() != "typed" || errs.String() != "problem" {
		t.Errorf("code %d, %q, %q", code, &out, &errs)
	}
	if code := cli.Main(t.Context(), []string{"exec", "-it", "web.1", "sh"}, strings.NewReader(""), &out, &errs, opts); code != 5 ||
		!strings.Contains(errs.String(), "the input device is not a TTY") {
		t.Errorf("-it without a terminal: code %d, %s", code, &errs)
	}
	if code := cli.Main(t.Context(), []string{"exec", "-w", "srv", "web.1", "sh"}, strings.NewReader(""), &out, &errs, opts); code != 5 ||
		!strings.Contains(errs.String(), `the working directory "srv" is invalid, it needs to be an absolute path`) {
		t.Errorf("-w with a relative path: code %d, %s", code, &errs)
	}
}

func TestExec_PassesInterruptsOnAndTheThirdGivesUp(t *testing.T) {
	w := openWindow(t, "exec", "web.1", "sleep")
	stream := <-w.stream
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Send(connected()), stream.Send(stdout([]byte("hello\n")))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.master.Read(make([]byte, 64)); err != nil { // from here on it takes signals
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.master.WriteString("\x03"); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || r.GetSignal() != int32(syscall.SIGINT) {
			t.Fatalf("got %v, %v", r, err)
		}
	}
	if _, err := w.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	<-stream.Context().Done()
	w.end <- nil
	w.closed(130)
}
