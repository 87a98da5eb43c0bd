package console

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Send gives a terminal to who listens at a unix socket, as engines ask for by --console-socket: one message
// with its name and its descriptor.
func Send(socket string, terminal *os.File) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("console socket: %w", err)
	}
	defer conn.Close()
	rights := unix.UnixRights(int(terminal.Fd()))
	if _, _, err := conn.WriteMsgUnix([]byte("/dev/ptmx"), rights, nil); err != nil {
		return fmt.Errorf("console socket %s: %w", socket, err)
	}
	return nil
}
