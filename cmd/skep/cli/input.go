package cli

import (
	"context"
	"io"

	"github.com/skep-io/skep/internal/fault"
)

// input returns the input stream, whose reads end when ctx does: Ctrl-C must work while a person or a pipe gives nothing.
func (p *program) input(ctx context.Context) io.Reader {
	return readerFunc(func(into []byte) (int, error) {
		data, err := interruptible(ctx, func() ([]byte, error) {
			// A buffer of its own, because a read that was given up may still fill it.
			buffer := make([]byte, len(into))
			n, err := p.in.Read(buffer)
			return buffer[:n], err
		})
		n := copy(into, data)
		clear(data) // it may be a secret
		return n, err
	})
}

// readerFunc is a function as a reader.
type readerFunc func([]byte) (int, error)

// Read calls the function.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// interruptible runs read and returns what it does, or gives up when ctx ends. Nothing can end a read of a terminal: one
// that was given up lasts until the program ends, which is at once.
func interruptible[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, fault.Wrap(fault.Unavailable, context.Canceled)
	}
}
