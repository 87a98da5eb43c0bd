package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/fault"
)

// nodePath gives the path of a granted file or directory without the links that lead there. It follows only those that every system has
// at its top, such as /lib and /var/run: any other could be one that a container made where another grant lets it write, and lead to
// anything. What it gives may change until it is used: whoever uses it must follow no link.
func nodePath(file string) (string, error) {
	at := "/"
	for _, name := range strings.Split(strings.Trim(file, "/"), "/") {
		next := path.Join(at, name)
		target, err := os.Readlink(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", fault.New(fault.Invalid, "this node has no %s: make it, or give the grant a --node-label that only nodes with one have", file)
		case errors.Is(err, unix.EINVAL): // no link
			at = next
		case err != nil:
			return "", fmt.Errorf("%s of this node: %w", file, err)
		case at == "/" || next == "/var/run" || next == "/var/lock":
			if !path.IsAbs(target) {
				target = path.Join(at, target)
			}
			at = path.Clean(target)
		default:
			return "", fault.New(fault.Invalid, "%s of this node is a symbolic link, to %s: grant that path itself; whoever can change the link would "+
				"choose what the grant gives", next, target)
		}
	}
	return at, nil
}

// public refuses what is of Skep itself, whoever granted it.
func (p plan) public(file string) error {
	for _, dir := range p.private {
		if within(file, dir) {
			return fault.New(fault.Invalid, "%s of this node is of Skep itself, with its keys: no container is given that", file)
		}
	}
	return nil
}
