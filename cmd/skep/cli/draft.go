package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// draft is a file that comes to be, or the output stream.
type draft struct {
	io.Writer
	file *os.File // nil for the output stream
}

// newFile makes a file for what, such as "a backup", that was not there before, for its owner alone; "-" is the output stream.
func (p *program) newFile(name, what string) (*draft, error) {
	if name == "-" {
		if p.opts.IsTerminal(p.out) {
			return nil, fault.New(fault.Invalid, "%s is not for a terminal: name a file, or send the output stream to one", what)
		}
		return &draft{Writer: p.out}, nil
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, fault.New(fault.AlreadyExists, "%s exists already, and %s replaces nothing: name another file", name, what)
	case err != nil:
		return nil, fault.New(fault.KindOf(flagvalue.FileFault(err)), "make the file: %w", err)
	}
	return &draft{file, file}, nil
}

// finish makes the file durable and closes it; after a failure, which it returns, it removes the file.
func (d *draft) finish(failed error) error {
	if d.file == nil {
		return failed
	}
	if failed == nil {
		failed = d.file.Sync()
	}
	if err := d.file.Close(); failed == nil {
		failed = err
	}
	if failed != nil {
		return errors.Join(failed, os.Remove(d.file.Name()))
	}
	return nil
}
