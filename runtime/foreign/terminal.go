package foreign

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// consoleTime bounds the wait for a terminal after the command that made it.
const consoleTime = 5 * time.Second

// runWithTerminal runs create with a socket at path, where the runtime sends the master of the container's terminal, as
// runc's docs/terminals.md has it.
func (r *Runtime) runWithTerminal(ctx context.Context, job Job, path string, args []string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	defer l.Close()
	if err := r.run(ctx, job.ID, job.Stdio, slices.Insert(args, 1, "--console-socket", path)...); err != nil {
		return err
	}
	if err := l.SetDeadline(time.Now().Add(consoleTime)); err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	conn, err := l.AcceptUnix() // it is waiting there
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	defer conn.Close()
	master, err := receiveTerminal(conn)
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	return job.Console(master)
}

// receiveTerminal takes the one descriptor that comes.
func receiveTerminal(conn *net.UnixConn) (*os.File, error) {
	if err := conn.SetDeadline(time.Now().Add(consoleTime)); err != nil {
		return nil, err
	}
	name, rights := make([]byte, unix.PathMax), make([]byte, unix.CmsgSpace(4))
	_, used, _, _, err := conn.ReadMsgUnix(name, rights)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:used])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("there came no descriptor"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(fmt.Errorf("there came %d descriptors", len(fds)), err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
