package exec_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/agent/exec"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// supervisor is a container supervisor at its socket, whose processes are played by the test.
type supervisor struct {
	*testing.T
	calls chan *process

	mu     sync.Mutex // guards all below
	refuse error      // what every call is answered with, or nil
	output output
}

// output is what containers have for those who attach.
type output struct {
	terminal bool
	silent   bool // it is closed
}

// shows has containers be so from now on.
func (s *supervisor) shows(o output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.output = o
}

// refuses has every call answered so from now on, or carried out for nil.
func (s *supervisor) refuses(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

// answers says what containers show, and what calls are answered with.
func (s *supervisor) answers() (shown output, refuse error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output, s.refuse
}

// process is one that the supervisor started: the call, and its ends of what the client has.
type process struct {
	protocol.Call
	stdin, stdout, stderr *os.File
	master                *os.File // the terminal's, as the client has it
	conn                  *net.UnixConn
}

// node is the service under test, and a supervisor behind it.
type node struct {
	*supervisor
	managers api.NodeTasksClient
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{supervisor: &supervisor{T: t, calls: make(chan *process, 1)}}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			serving.Go(func() { n.serve(conn) })
		}
	})
	runtime, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		runtime.Close()
		l.Close()
		serving.Wait()
	})
	s := &exec.Server{
		Runtime: runtime,
		User: func(id, name string) (specs.User, string, error) {
			if name != "nobody" {
				return specs.User{}, "", fault.New(fault.Invalid, "task %s has no user %s", id, name)
			}
			return specs.User{UID: 65534, GID: 65533}, "/nonexistent", nil
		},
		Answer: func(_ string, err error) error { return fault.Status(err) },
	}
	doors := grpctest.Listen()
	server := grpc.NewServer()
	api.RegisterNodeTasksServer(server, s)
	grpctest.Serve(t, server, doors)
	n.managers = api.NewNodeTasksClient(grpctest.Dial(t, doors))
	return n
}

// serve answers the calls of a connection, and hands the first process that is started over to the test.
func (s *supervisor) serve(conn *net.UnixConn) {
	for {
		var call protocol.Call
		if _, err := protocol.Read(conn, &call); err != nil {
			conn.Close()
			return
		}
		shown, refuse := s.answers()
		if call.Op != protocol.OpExec && call.Op != protocol.OpCopy && call.Op != protocol.OpAttach {
			if err := protocol.Write(conn, protocol.Reply{Error: protocol.NewFailure(refuse)}); err != nil {
				s.Error(err)
			}
			continue
		}
		if refuse != nil {
			if err := protocol.Write(conn, protocol.Reply{Error: protocol.NewFailure(refuse)}); err != nil {
				s.Error(err)
			}
			conn.Close()
			return
		}
		p := &process{Call: call, conn: conn}
		if err := s.start(p, shown); err != nil {
			s.Error(err)
		}
		s.calls <- p
		return
	}
}

func (s *supervisor) start(p *process, shows output) error {
	var files []*os.File
	switch {
	case p.Exec != nil && p.Exec.Detach:
	case p.Exec != nil && p.Exec.Terminal != nil || p.Op == protocol.OpAttach && shows.terminal:
		fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		p.master = os.NewFile(uintptr(fd), "terminal")
		number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err == nil {
			err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
		}
		if err == nil {
			p.stdin, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
		}
		if err != nil {
			return err
		}
		p.stdout, files = p.stdin, []*os.File{p.master}
		if p.Op == protocol.OpAttach { // which shows what the supervisor reads from the terminal
			shown, w, err := os.Pipe()
			if err != nil {
				return err
			}
			defer shown.Close()
			p.stdout, files = w, []*os.File{shown, p.master}
		}
	default:
		out, stdout, err1 := os.Pipe()
		errs, stderr, err2 := os.Pipe()
		stdin, in, err3 := os.Pipe()
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		p.stdin, p.stdout, p.stderr, files = stdin, stdout, stderr, []*os.File{out, errs}
		if p.Copy != nil && !p.Copy.From || p.Exec != nil && p.Exec.Stdin {
			files = append(files, in)
		} else {
			in.Close()
		}
		defer func() {
			for _, f := range files {
				f.Close()
			}
		}()
	}
	if shows.silent {
		p.stdout.Close()
	}
	started := &protocol.Started{Pid: 7, Files: len(files), Terminal: p.Op == protocol.OpAttach && shows.terminal}
	return errors.Join(protocol.Write(p.conn, protocol.Reply{Started: started}), protocol.SendFiles(p.conn, files))
}

// end ends the process as the kernel would: what it had open is closed before anybody is told.
func (p *process) end(t *testing.T, code int) {
	t.Helper()
	p.close()
	if err := protocol.Write(p.conn, protocol.Reply{Ended: &protocol.Ended{ExitCode: code}}); err != nil {
		t.Error(err)
	}
	p.conn.Close()
}

func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// gone waits until the client has let go of the process: then the supervisor kills it.
func (p *process) gone(t *testing.T) {
	t.Helper()
	var call protocol.Call
	if _, err := protocol.Read(p.conn, &call); err == nil {
		t.Errorf("the client says %v", call)
	}
	p.close()
	p.conn.Close()
}

type stream = api.NodeTasks_ConnectNodeTaskClient

// connect begins a stream with a first request.
func (n *node) connect(first *api.ConnectTaskRequest) (stream, context.CancelFunc) {
	n.Helper()
	ctx, cancel := context.WithCancel(n.Context())
	s, err := n.managers.ConnectNodeTask(ctx)
	if err != nil {
		n.Fatal(err)
	}
	put(n.T, s, first)
	return s, cancel
}

func put(t *testing.T, s stream, r *api.ConnectTaskRequest) {
	t.Helper()
	if err := s.Send(&api.ConnectNodeTaskRequest{Input: r}); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func data(text string) *api.ConnectTaskRequest {
	return &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Data{Data: []byte(text)}}
}

func run(start *api.ExecStart) *api.ConnectTaskRequest {
	start.Args = []string{"x"}
	return &api.ConnectTaskRequest{Task: "t1", Input: &api.ConnectTaskRequest_Exec{Exec: start}}
}

// all gives what comes to the end of a stream, a line for each kind, and the error that ends it.
func all(s stream) (string, error) {
	var stdout, stderr, rest strings.Builder
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			err = nil
		}
		out := r.GetOutput()
		stdout.Write(out.GetStdout())
		stderr.Write(out.GetStderr())
		if c := out.GetConnected(); c != nil {
			fmt.Fprintf(&rest, " connected %s %v", c.GetTaskId(), c.GetTerminal())
		}
		if d := out.GetDisconnected(); d != nil {
			fmt.Fprintf(&rest, " disconnected %d %s", d.GetExitCode(), d.GetError())
		}
		if err != nil || r == nil {
			return fmt.Sprintf("%s|%s|%s", stdout.String(), stderr.String(), strings.TrimSpace(rest.String())), err
		}
	}
}

func check(t *testing.T, s stream, want string) {
	t.Helper()
	got, err := all(s)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func TestExec_InputOutputAndEnd(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(run(&api.ExecStart{Stdin: true, Env: []string{"A=b"}, Dir: "/d", User: "nobody"}))
	defer cancel()
	p := <-n.calls
	want := &protocol.Exec{Args: []string{"x"}, Env: []string{"HOME=/nonexistent", "A=b"}, Cwd: "/d", Stdin: true, User: &specs.User{UID: 65534, GID: 65533}}
	if diff := cmp.Diff(want, p.Exec); diff != "" || p.ID != "t1" {
		t.Errorf("asked of %s (-want +got):\n%s", p.ID, diff)
	}
	put(t, s, data("in"))
	put(t, s, data("put"))
	put(t, s, &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_End{End: &api.EndOfInput{}}})
	put(t, s, data("after the end"))
	text, err := io.ReadAll(p.stdin)
	if string(text) != "input" || err != nil {
		t.Errorf("the process read %q, %v", text, err)
	}
	put(t, s, &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Signal{Signal: 15}})
	var call protocol.Call
	if _, err := protocol.Read(p.conn, &call); err != nil || call.Op != protocol.OpKill || call.Signal != 15 {
		t.Errorf("the supervisor got %+v, %v", call, err)
	}
	fmt.Fprint(p.stdout, strings.Repeat("o", 10_000)) // X2: all that is in the pipe when it ends
	fmt.Fprint(p.stderr, "problem")
	p.end(t, 143)
	check(t, s, strings.Repeat("o", 10_000)+"|problem|connected t1 false disconnected 143")
}

func TestExec_Terminal(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(run(&api.ExecStart{Stdin: true, Terminal: &api.TerminalSize{Rows: 24, Columns: 1 << 20}}))
	defer cancel()
	p := <-n.calls
	if diff := cmp.Diff(&protocol.Size{Rows: 24, Cols: 65535}, p.Exec.Terminal); diff != "" {
		t.Errorf("size (-want +got):\n%s", diff)
	}
	put(t, s, &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Resize{Resize: &api.TerminalSize{Rows: 50, Columns: 132}}})
	put(t, s, data("typed\n"))
	line := make([]byte, 64)
	count, err := p.stdin.Read(line) // after the change of size, which came before
	size, err2 := unix.IoctlGetWinsize(int(p.stdin.Fd()), unix.TIOCGWINSZ)
	if err := errors.Join(err, err2); err != nil || string(line[:count]) != "typed\n" || size.Row != 50 || size.Col != 132 {
		t.Errorf("read %q with a window of %+v, %v", line[:count], size, err)
	}
	p.master.Close() // the supervisor's
	p.end(t, 0)
	check(t, s, "typed\r\n||connected t1 true disconnected 0")
}

func TestExec_EndsWithItsStream(t *testing.T) {
	n := newNode(t)
	for _, start := range []*api.ExecStart{{}, {Stdin: true}} {
		s, cancel := n.connect(run(start))
		p := <-n.calls
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		p.gone(t) // X1
	}
	// One that fills its pipe without anybody who reads is no exception.
	s, cancel := n.connect(run(&api.ExecStart{}))
	p := <-n.calls
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		for {
			if _, err := p.stdout.Write(make([]byte, 1<<20)); err != nil {
				written <- err
				return
			}
		}
	}()
	cancel()
	if err := <-written; !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
	p.gone(t)
}

func TestExec_EndsThoughOthersHaveItsPipes(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(run(&api.ExecStart{Stdin: true}))
	defer cancel()
	p := <-n.calls
	fmt.Fprint(p.stdout, "said")
	// More input than fits anywhere, for a process that doesn't read it: who sends is held up.
	sent := make(chan error, 1)
	go func() {
		for {
			if err := s.Send(&api.ConnectNodeTaskRequest{Input: data(strings.Repeat("i", 16<<10))}); err != nil {
				sent <- err
				return
			}
		}
	}()
	if err := protocol.Write(p.conn, protocol.Reply{Ended: &protocol.Ended{ExitCode: 3}}); err != nil {
		t.Fatal(err)
	}
	check(t, s, "said||connected t1 false disconnected 3")
	if err := <-sent; !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	p.close()
	p.conn.Close()
}

func TestExec_Detached(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(run(&api.ExecStart{Detach: true}))
	defer cancel()
	p := <-n.calls
	check(t, s, "||connected t1 false disconnected 0")
	p.conn.Close()
}

func TestExec_SaysWhatCantBe(t *testing.T) {
	for name, tt := range map[string]struct {
		refuse error
		first  *api.ConnectTaskRequest
		want   string
		kind   fault.Kind
	}{
		"no program": {protocol.ErrNoProgram, run(&api.ExecStart{}), "||disconnected 127 " + protocol.ErrNoProgram.Error(), 0},
		"no start":   {protocol.ErrStart, run(&api.ExecStart{}), "||disconnected 126 " + protocol.ErrStart.Error(), 0},
		"not there":  {protocol.ErrNotFound, run(&api.ExecStart{}), "||", fault.Precondition},
		"paused":     {protocol.ErrState, run(&api.ExecStart{}), "||", fault.Precondition},
		"wrong":      {protocol.ErrInvalid, run(&api.ExecStart{}), "||", fault.Invalid},
		"no user":    {nil, run(&api.ExecStart{User: "nemo"}), "||", fault.Invalid},
		"nothing":    {nil, &api.ConnectTaskRequest{Task: "t1"}, "||", fault.Invalid},
		"copy of what is not there": {
			protocol.ErrNotFound, &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_CopyFrom{CopyFrom: &api.CopyFrom{}}}, "||", fault.Precondition,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.refuses(tt.refuse)
			s, cancel := n.connect(tt.first)
			defer cancel()
			got, err := all(s)
			if got != tt.want || (err != nil) != (tt.kind != 0) || err != nil && fault.KindOf(fault.FromStatus(err)) != tt.kind {
				t.Errorf("got %q, %v; want %q, %v", got, err, tt.want, tt.kind)
			}
		})
	}
}

func TestExec_WhenTheSupervisorGoesAway(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(run(&api.ExecStart{}))
	defer cancel()
	p := <-n.calls
	p.close()
	p.conn.Close()
	if got, err := all(s); err == nil || got != "||connected t1 false" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestCopy_PassesOnBothWays(t *testing.T) {
	n := newNode(t)
	s, cancel := n.connect(&api.ConnectTaskRequest{Task: "t1", Input: &api.ConnectTaskRequest_CopyFrom{
		CopyFrom: &api.CopyFrom{Path: "/p", FollowLink: true},
	}})
	defer cancel()
	p := <-n.calls
	if diff := cmp.Diff(&protocol.Copy{From: true, Path: "/p", Follow: true}, p.Copy); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	fmt.Fprint(p.stdout, "tar")
	fmt.Fprint(p.stderr, `{"Warning":"\"a\u001b[2J\" is left out"}`+"\n"+`{"Warn`)
	fmt.Fprint(p.stderr, `ing":"and b"}`+"\n")
	p.end(t, 0)
	check(t, s, "tar|warning: \"a?[2J\" is left out\nwarning: and b\n|connected t1 false disconnected 0")

	s, cancel2 := n.connect(&api.ConnectTaskRequest{Task: "t1", Input: &api.ConnectTaskRequest_CopyTo{
		CopyTo: &api.CopyTo{Path: "/p", Archive: true, KeepOwner: true},
	}})
	defer cancel2()
	p = <-n.calls
	if diff := cmp.Diff(&protocol.Copy{Path: "/p", Extract: true, Owner: true}, p.Copy); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	put(t, s, data("tar"))
	put(t, s, &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_End{End: &api.EndOfInput{}}})
	if text, err := io.ReadAll(p.stdin); string(text) != "tar" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	p.end(t, 0)
	check(t, s, "||connected t1 false disconnected 0")
}

func TestCopy_SaysWhatWentWrong(t *testing.T) {
	n := newNode(t)
	for said, tt := range map[string]struct {
		kind fault.Kind
		text string
	}{
		`{"Error":"/p: no such file","Kind":"not-found"}`: {fault.NotFound, "/p: no such file"},
		`{"Error":"no","Kind":"invalid"}`:                 {fault.Invalid, "no"},
		`{"Error":"too much","Kind":"limit"}`:             {fault.Exhausted, "too much"},
		`{"Error":"read-only file\n\u001bsystem"}`:        {fault.Precondition, "read-only file??system"},
		`panic: at the runtime`:                           {fault.Unavailable, "did the task end"},
		strings.Repeat("x", 60<<10):                       {fault.Unavailable, "did the task end"},
		"":                                                {fault.Unavailable, "(code 137)"},
	} {
		s, cancel := n.connect(&api.ConnectTaskRequest{Task: "t1", Input: &api.ConnectTaskRequest_CopyFrom{CopyFrom: &api.CopyFrom{Path: "/p"}}})
		p := <-n.calls
		fmt.Fprintln(p.stderr, said)
		p.end(t, 137)
		if _, err := all(s); err == nil || fault.KindOf(fault.FromStatus(err)) != tt.kind || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%.60s: %v, want %v: %s", said, err, tt.kind, tt.text)
		}
		cancel()
	}
}

func TestControl(t *testing.T) {
	n := newNode(t)
	ctx := t.Context()
	for _, r := range []*api.ControlNodeTaskRequest{
		{TaskId: "t1", Action: &api.ControlNodeTaskRequest_Pause{}},
		{TaskId: "t1", Action: &api.ControlNodeTaskRequest_Unpause{}},
		{TaskId: "t1", Action: &api.ControlNodeTaskRequest_Signal{Signal: 9}},
	} {
		n.refuses(nil)
		if _, err := n.managers.ControlNodeTask(ctx, r); err != nil {
			t.Errorf("%v: %v", r, err)
		}
		n.refuses(protocol.ErrState)
		if _, err := n.managers.ControlNodeTask(ctx, r); fault.KindOf(fault.FromStatus(err)) != fault.Precondition {
			t.Errorf("%v, refused: %v", r, err)
		}
	}
	if _, err := n.managers.ControlNodeTask(ctx, &api.ControlNodeTaskRequest{TaskId: "t1"}); fault.KindOf(fault.FromStatus(err)) != fault.Invalid {
		t.Errorf("nothing: %v", err)
	}
}
