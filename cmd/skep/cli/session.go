package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/term"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

// inputChunk is the most bytes of input in one message.
const inputChunk = 32 << 10

// patience is how many interrupts go to a program before the command gives up on it, as Docker's.
const patience = 3

// taskSession is a stream to a task, and this side's input and output.
type taskSession struct {
	out, err io.Writer
	cancel   context.CancelFunc
	// ownSignals has signals end the session.
	ownSignals bool

	// detached says that the keys to leave were typed.
	detached atomic.Bool

	mu   sync.Mutex // held while sending
	send func(*api.ConnectTaskRequest) error
}

func (s *taskSession) put(r *api.ConnectTaskRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.send(r)
}

// sendInput sends what is read, and its end.
func (s *taskSession) sendInput(from io.Reader) {
	buffer := make([]byte, inputChunk)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			data := &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Data{Data: append([]byte(nil), buffer[:n]...)}}
			if s.put(data) != nil {
				return // receive knows why
			}
		}
		if errors.Is(err, errDetached) {
			s.detached.Store(true)
			s.cancel()
			return
		}
		if err != nil {
			_ = s.put(&api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_End{End: &api.EndOfInput{}}}) // likewise
			return
		}
	}
}

// relaySignals passes signals on, and the size of the window. With a terminal the keys make the signals there.
func (s *taskSession) relaySignals(ctx context.Context, signals <-chan os.Signal, size func() *api.TerminalSize, tty bool) {
	interrupts := 0
	for {
		var sig os.Signal
		select {
		case sig = <-signals:
		case <-ctx.Done():
			return
		}
		if sig == syscall.SIGWINCH {
			if tty {
				_ = s.put(&api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Resize{Resize: size()}}) // receive knows why not
			}
			continue
		}
		if sig == syscall.SIGINT || sig == syscall.SIGTERM {
			interrupts++
		}
		if tty && sig == syscall.SIGHUP || interrupts >= patience || s.ownSignals { // the terminal is gone, or the program doesn't listen
			s.cancel()
			return
		}
		number, _ := sig.(syscall.Signal)
		_ = s.put(&api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Signal{Signal: int32(number)}}) // receive knows why not
	}
}

// receive writes what comes, until the end.
func (s *taskSession) receive(next func() (*api.ConnectTaskResponse, error)) (*api.TaskDisconnected, error) {
	for {
		r, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, fault.New(fault.Unavailable, "the connection to the task ended before the program did")
		case errors.Is(err, context.Canceled):
			return nil, progress.ErrInterrupted
		case err != nil:
			return nil, err
		}
		switch out := r.GetOutput().(type) {
		case *api.ConnectTaskResponse_Stdout:
			_, err = s.out.Write(out.Stdout)
		case *api.ConnectTaskResponse_Stderr:
			_, err = s.err.Write(out.Stderr)
		case *api.ConnectTaskResponse_Disconnected:
			return out.Disconnected, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// terminalSize gives the size of the first of the streams that is a terminal; zero if none is.
func terminalSize(streams ...any) *api.TerminalSize {
	for _, s := range streams {
		file, ok := s.(*os.File)
		if !ok {
			continue
		}
		if columns, rows, err := term.GetSize(int(file.Fd())); err == nil {
			return &api.TerminalSize{Rows: uint32(rows), Columns: uint32(columns)}
		}
	}
	return &api.TerminalSize{}
}

// rawTerminal has the terminal pass every key on, until restore is called.
func rawTerminal(stream any) (restore func(), err error) {
	file, ok := stream.(*os.File)
	if !ok {
		return func() {}, nil
	}
	before, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		return nil, err
	}
	return func() { _ = term.Restore(int(file.Fd()), before) }, nil // nothing is left to do if it fails
}
