package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/skep-io/skep/internal/fault"
)

// group may use the socket beside root, where it exists.
const group = "skep"

// listenUnix makes the socket for people. Root may use it, and the group skep if there is one.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fault.New(fault.Precondition, "another daemon answers on %s: stop it, or give another --socket", path), conn.Close())
	}
	// Nobody answers: what is there was left by a daemon that was killed.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := protect(path); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// protect gives the socket to root and the group. Between listen and here only root can connect: the directory or the
// umask may allow more, but each connection's peer is checked besides.
func protect(path string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("protect the socket: %w", err)
	}
	found, err := user.LookupGroup(group)
	if errors.As(err, new(user.UnknownGroupError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up the group %s: %w", group, err)
	}
	gid, err := strconv.Atoi(found.Gid)
	if err != nil {
		return fmt.Errorf("group %s: %w", group, err)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("give the socket to the group %s: %w", group, err)
	}
	return os.Chmod(path, 0o660)
}
