package exec

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/client"
)

// Exit codes of programs that could not be run, as shells and Docker have them.
const (
	exitNotFound = 127
	exitNotRun   = 126
)

// chunk is the most bytes of output in one message.
const chunk = 32 << 10

// Runtime is what a Server needs of the container runtime; see package client.
type Runtime interface {
	Exec(ctx context.Context, id string, r client.ExecRequest) (*client.Exec, error)
	Copy(ctx context.Context, id string, r client.CopyRequest) (*client.Exec, error)
	Attach(ctx context.Context, id string) (*client.Attachment, error)
	Kill(ctx context.Context, id string, sig syscall.Signal) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Processes(ctx context.Context, id string) ([]client.Process, error)
}

// Server serves the tasks of this node to managers. It is constant once it serves; no field is nil.
type Server struct {
	api.UnimplementedNodeTasksServer
	Runtime Runtime
	// User resolves a user of a task's image, as `--user` takes it, and says where the user's home directory is.
	User func(id, name string) (user specs.User, home string, err error)
	// Answer turns an error into a status, for the method that is named.
	Answer func(method string, err error) error
}

type (
	request  = api.ConnectNodeTaskRequest
	response = api.ConnectNodeTaskResponse
	stream   = grpc.BidiStreamingServer[request, response]
)

// ConnectNodeTask implements api.NodeTasksServer.
func (s *Server) ConnectNodeTask(stream stream) error {
	return s.Answer("ConnectNodeTask", s.connect(stream))
}

func (s *Server) connect(stream stream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	id := first.GetInput().GetTask()
	switch start := first.GetInput().GetInput().(type) {
	case *api.ConnectTaskRequest_Exec:
		return s.exec(stream, id, start.Exec)
	case *api.ConnectTaskRequest_Attach:
		return s.attach(stream, id, start.Attach)
	case *api.ConnectTaskRequest_CopyFrom:
		from := start.CopyFrom
		return s.copy(stream, id, client.CopyRequest{From: true, Path: from.GetPath(), Follow: from.GetFollowLink()})
	case *api.ConnectTaskRequest_CopyTo:
		to := start.CopyTo
		return s.copy(stream, id, client.CopyRequest{Path: to.GetPath(), Extract: to.GetArchive(), Owner: to.GetKeepOwner()})
	default:
		return fault.New(fault.Invalid, "the first request does not say what to do: this node may be older than the manager")
	}
}

// exec runs a program and passes on its input and output.
func (s *Server) exec(stream stream, id string, start *api.ExecStart) error {
	r := client.ExecRequest{
		Args: start.GetArgs(), Env: start.GetEnv(), Cwd: start.GetDir(), Stdin: start.GetStdin(), Detach: start.GetDetach(),
		Terminal: sizeOf(start.GetTerminal()),
	}
	if name := start.GetUser(); name != "" {
		user, home, err := s.User(id, name)
		if err != nil {
			return err
		}
		r.User, r.Env = &user, append([]string{"HOME=" + home}, r.Env...) // unless the command says another
	}
	p, err := s.Runtime.Exec(stream.Context(), id, r)
	switch {
	case errors.Is(err, client.ErrNoProgram):
		return end(stream, exitNotFound, err.Error())
	case errors.Is(err, client.ErrStart):
		return end(stream, exitNotRun, err.Error())
	case err != nil:
		return kinded(err)
	}
	err = begin(stream, id, r.Terminal != nil)
	if r.Detach {
		if err != nil {
			return err
		}
		return end(stream, 0, "")
	}
	defer p.Close() // X1
	if err != nil {
		return err
	}
	code, err := newSession(stream, p).run(stream.Context())
	if err != nil {
		return err
	}
	return end(stream, code, "")
}

// sizeOf gives a terminal's size, or nil for nil.
func sizeOf(size *api.TerminalSize) *client.Size {
	if size == nil {
		return nil
	}
	const most = 1<<16 - 1
	return &client.Size{Rows: uint16(min(size.GetRows(), most)), Cols: uint16(min(size.GetColumns(), most))}
}

func send(stream stream, r *api.ConnectTaskResponse) error { return stream.Send(&response{Output: r}) }

// begin sends the first response.
func begin(stream stream, id string, terminal bool) error {
	first := &api.TaskConnected{TaskId: id, Terminal: terminal}
	return send(stream, &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Connected{Connected: first}})
}

// end sends the last response.
func end(stream stream, code int, text string) error {
	last := &api.TaskDisconnected{ExitCode: int32(code), Error: text}
	return send(stream, &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Disconnected{Disconnected: last}})
}

// process is one in a container: a client.Exec, or a client.Attachment to the first.
type process interface {
	Wait(ctx context.Context) (int, error)
	Signal(sig syscall.Signal) error
	Resize(size client.Size) error
	Close()
}

// output is what a process writes to.
type output struct {
	file *os.File
	// wrap words what was read, or gives nil for nothing to send.
	wrap func(text []byte) *api.ConnectTaskResponse
	// next gives the file to go on with after the end of one, or nil. It may be nil itself.
	next func() *os.File
}

// session is a process with its stream.
type session struct {
	stream  stream
	p       process
	outputs []output
	// stdin is where input goes, or nil; it is closed at the end of input if pipe says that it is one: a terminal has no end of input
	// but the one that is typed.
	stdin *os.File
	pipe  bool
	// ended is closed when the process has ended.
	ended chan struct{}

	sending sync.Mutex // held while sending
}

// newSession is a session with a process that was started.
func newSession(stream stream, p *client.Exec) *session {
	s := &session{stream: stream, p: p, ended: make(chan struct{})}
	if p.Terminal != nil {
		s.stdin, s.outputs = p.Terminal, []output{{file: p.Terminal, wrap: stdout}}
		return s
	}
	s.stdin, s.pipe = p.Stdin, true
	s.outputs = []output{{file: p.Stdout, wrap: stdout}, {file: p.Stderr, wrap: stderr}}
	return s
}

func stdout(text []byte) *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Stdout{Stdout: text}}
}

func stderr(text []byte) *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Stderr{Stderr: text}}
}

// run passes on input and output until the process has ended and all its output is sent, or the stream ends. It gives the exit
// code.
func (s *session) run(ctx context.Context) (int, error) {
	var outputs sync.WaitGroup
	failed := make(chan error, len(s.outputs))
	for _, out := range s.outputs {
		outputs.Go(func() {
			if err := s.passOn(out); err != nil {
				failed <- err
				s.p.Close() // nobody reads any more
			}
		})
	}
	go s.inputs() // ends with the stream, which ends when this returns
	code, err := s.p.Wait(ctx)
	close(s.ended)
	for _, out := range s.outputs {
		_ = out.file.SetReadDeadline(time.Now().Add(idle)) // wakes the pump; a closed one needs no waking
	}
	outputs.Wait()
	select {
	case failed := <-failed:
		return 0, failed
	default:
		return code, err
	}
}

const (
	// idle is how long, after the end of a process, its output must be silent to count as read to the end: what it wrote
	// itself is there at once, and others that it left behind may have the pipe for ever.
	idle = 100 * time.Millisecond
	// most is how much can be left in a pipe (fcntl(2), pipe-max-size), which bounds what is read after the end.
	most = 1 << 20
)

// passOn sends what the process writes to an output.
func (s *session) passOn(out output) error {
	for f := out.file; f != nil; f = out.next() {
		if err := s.pump(f, out.wrap); err != nil || out.next == nil {
			return err
		}
	}
	return nil
}

// pump sends what the process writes (X2).
func (s *session) pump(f *os.File, wrap func([]byte) *api.ConnectTaskResponse) error {
	buffer := make([]byte, chunk)
	after, waited := 0, false // bytes since the end; whether the file was silent for as long as idle since then
	for {
		n, err := f.Read(buffer)
		if n > 0 {
			if err := s.send(wrap(slices.Clone(buffer[:n]))); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if waited || after > most {
				return nil
			}
			waited = true // the time may have passed while sending
			err = f.SetReadDeadline(time.Now().Add(idle))
		case n > 0:
			waited = false
		}
		if err != nil {
			return nil // the end: io.EOF of a pipe, EIO of a terminal
		}
		select {
		case <-s.ended:
			if after += n; after > most {
				return nil
			}
		default:
		}
	}
}

func (s *session) send(r *api.ConnectTaskResponse) error {
	if r == nil {
		return nil
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	return send(s.stream, r)
}

// queue is how many messages of input wait for a process that doesn't read, before what follows waits too.
const queue = 16

// inputs does what the stream asks for, until it ends.
func (s *session) inputs() {
	queued := make(chan []byte, queue)
	data := queued // nil after the end of input, which may come before the writer begins
	var writer sync.WaitGroup
	writer.Go(func() { s.write(queued) })
	defer writer.Wait()
	defer func() {
		if data != nil {
			close(data)
		}
	}()
	for {
		r, err := s.stream.Recv()
		if err != nil {
			return
		}
		switch in := r.GetInput().GetInput().(type) {
		case *api.ConnectTaskRequest_Data:
			if data == nil {
				continue
			}
			select {
			case data <- in.Data:
			case <-s.ended:
				return
			}
		case *api.ConnectTaskRequest_End:
			if data != nil {
				close(data)
				data = nil
			}
		case *api.ConnectTaskRequest_Resize:
			_ = s.p.Resize(*sizeOf(in.Resize)) // it fails only for a terminal that is closed
		case *api.ConnectTaskRequest_Signal:
			_ = s.p.Signal(syscall.Signal(in.Signal)) // likewise for a process that has ended
		}
	}
}

// write passes input on, to its end.
func (s *session) write(data <-chan []byte) {
	to := s.stdin
	for b := range data {
		if to == nil {
			continue
		}
		if _, err := to.Write(b); err != nil {
			to = nil // the process reads no more
		}
	}
	if s.pipe && s.stdin != nil {
		s.stdin.Close()
	}
}

// kinded gives an error of the runtime its kind.
func kinded(err error) error {
	var connection *net.OpError
	switch {
	case errors.Is(err, client.ErrInvalid):
		return fault.Wrap(fault.Invalid, err)
	case errors.Is(err, client.ErrNotFound), errors.Is(err, client.ErrState):
		return fault.Wrap(fault.Precondition, err)
	case errors.As(err, &connection), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Unavailable, "the container supervisor of the node does not answer, is skep-runtime running there? %w", err)
	}
	return err
}
