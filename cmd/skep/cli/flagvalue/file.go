package flagvalue

import (
	"errors"
	"io/fs"
	"os"

	"github.com/skep-io/skep/internal/fault"
)

// OpenFile opens a file that the command line names. The caller closes it. Errors are those of [FileFault].
func OpenFile(name string) (*os.File, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, FileFault(err)
	}
	return file, nil
}

// FileFault gives an error of the file system its kind: NotFound for a file that is not there, else Invalid. It returns
// nil for nil.
func FileFault(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.NotFound, err)
	}
	return fault.Wrap(fault.Invalid, err)
}
