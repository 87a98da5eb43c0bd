package executor

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/client"
)

// outputTime bounds the wait for the rest of a command's output after its end.
const outputTime = time.Second

// Exec implements [Runtime].
func (s *Supervisor) Exec(ctx context.Context, id string, c Command) (Outcome, error) {
	e, err := s.client.Exec(ctx, id, client.ExecRequest{Args: c.Args, Env: c.Env})
	if errors.Is(err, client.ErrState) {
		return Outcome{}, fault.Wrap(fault.Precondition, err)
	}
	if err != nil {
		return Outcome{}, kinded(err)
	}
	output := &head{room: c.MaxOutput}
	var readers sync.WaitGroup
	for _, f := range []*os.File{e.Stdout, e.Stderr} {
		readers.Go(func() {
			// It ends with the last process that has the pipe, or with the exec.
			_, _ = io.Copy(output, f)
		})
	}
	code, err := e.Wait(ctx)
	// A process that it left behind may hold the pipes for ever.
	for _, f := range []*os.File{e.Stdout, e.Stderr} {
		_ = f.SetReadDeadline(time.Now().Add(outputTime)) // pipes have deadlines
	}
	readers.Wait()
	e.Close()
	if err != nil {
		return Outcome{}, kinded(err)
	}
	return Outcome{ExitCode: code, Output: output.kept}, nil
}

// head keeps the first bytes that are written to it, and takes the rest. It is safe for concurrent use.
type head struct {
	mu   sync.Mutex // guards all below
	room int
	kept []byte
}

// Write implements io.Writer. It never fails.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(len(p), h.room)
	h.kept, h.room = append(h.kept, p[:n]...), h.room-n
	return len(p), nil
}

// User resolves a user of a prepared task's image, in ids of its container: a name or an id, with a group after a colon if wanted. It
// looks into the image's own /etc/passwd and /etc/group. home is the user's home directory.
func (e *Executor) User(id, name string) (user specs.User, home string, err error) {
	h, ok := e.find(id)
	if !ok {
		return specs.User{}, "", fault.New(fault.NotFound, "no container of task %s is on this node", id)
	}
	a, err := lookupUser(h.image, name, nil)
	return a.user(), a.home, err
}
