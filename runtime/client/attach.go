package client

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/skep-io/skep/runtime/protocol"
)

// Attachment looks at what a container prints, and types into its terminal. Make it with Client.Attach.
//
// What is printed goes to the container's log as well, and to everybody else who is attached. A container never waits for
// who looks on: an Attachment that is more than a mebibyte behind sees the end of the stream.
type Attachment struct {
	// Stdout gives what the container prints from now on, or what its terminal shows. It ends with the container.
	Stdout *os.File
	// Stderr gives its errors. It is nil with a terminal.
	Stderr *os.File
	// Terminal is the master of the container's terminal, or nil if it has none: what is written is typed. It must not be
	// read from: what one reads there is missing in the log.
	Terminal *os.File

	exec *Exec // has the connection
}

// Attach looks at a container that was created and has not ended: ErrState says that it has. When ctx ends before it returns,
// nothing is attached. The caller closes the Attachment.
func (c *Client) Attach(ctx context.Context, id string) (*Attachment, error) {
	e, started, err := c.begin(ctx, protocol.Call{Op: protocol.OpAttach, ID: id})
	if err != nil {
		return nil, err
	}
	a := &Attachment{exec: e}
	want := []**os.File{&a.Stdout, &a.Stderr}
	if started.Terminal {
		want[1] = &a.Terminal
	}
	if err := e.receive(started.Files, want); err != nil {
		e.Close()
		return nil, err
	}
	return a, nil
}

// Wait blocks until the container has ended, and gives its exit code as the journal has it. When ctx ends first, the Attachment
// ends, and the container goes on. Wait may be called once.
func (a *Attachment) Wait(ctx context.Context) (int, error) { return a.exec.Wait(ctx) }

// Signal sends a signal to the container's first process.
func (a *Attachment) Signal(sig syscall.Signal) error { return a.exec.Signal(sig) }

// Resize sets the size of the window of the container's terminal, and does nothing without one.
func (a *Attachment) Resize(size Size) error {
	if a.Terminal == nil {
		return nil
	}
	return resize(a.Terminal, size)
}

// Close ends the Attachment. The container goes on.
func (a *Attachment) Close() error {
	var errs []error
	for _, f := range []*os.File{a.Stdout, a.Stderr, a.Terminal} {
		if f == nil {
			continue
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) { // they may be closed one by one
			errs = append(errs, err)
		}
	}
	a.exec.Close()
	return errors.Join(errs...)
}
