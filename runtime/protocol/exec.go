package protocol

import (
	"errors"
	"fmt"
	"net"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Exec describes one more process for a running container. What it leaves out is as for the container's first process; in
// its namespaces, its control group, and with at most its rights it is always.
type Exec struct {
	Args []string
	// Env is added to the container's environment.
	Env []string `json:",omitempty"`
	// Cwd is absolute. User are ids inside the container.
	Cwd  string      `json:",omitempty"`
	User *specs.User `json:",omitempty"`
	// Terminal gives the process a terminal of this size for its input and output, instead of pipes.
	Terminal *Size `json:",omitempty"`
	// Stdin gives it a pipe for its input. Otherwise that is empty.
	Stdin bool `json:",omitempty"`
	// Detach lets it run on by itself: without input, and its output dropped.
	Detach bool `json:",omitempty"`
}

// Size is that of a terminal's window, in characters.
type Size struct {
	Rows, Cols uint16
}

// Started says that the program of an Exec runs, or that a client is attached.
type Started struct {
	// Pid is its number on the host.
	Pid int
	// Files is how many descriptors follow the reply, see SendFiles: the terminal's master; or the reading ends of its
	// output and of its errors and, if it has one, the writing end of its input. None when detached.
	// After attach: the reading ends of copies of the container's output and of its errors; or of what its terminal shows, and
	// then the terminal's master, which is for writing and for the size of its window.
	Files int `json:",omitempty"`
	// Terminal says that a container that was attached to has one.
	Terminal bool `json:",omitempty"`
}

// Ended says how a process of an Exec ended.
type Ended struct {
	ExitCode int // 0 to 255: the program's, or 128 + Signal
	Signal   int `json:",omitempty"`
}

// SendFiles sends descriptors, right after a message that tells their number. They stay the caller's.
func SendFiles(conn *net.UnixConn, files []*os.File) error {
	if len(files) == 0 {
		return nil
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	if _, _, err := conn.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("send descriptors: %w", err)
	}
	return nil
}

// maxFiles bounds what ReceiveFiles takes.
const maxFiles = 8

// ReceiveFiles receives n descriptors, which are the caller's.
func ReceiveFiles(conn *net.UnixConn, n int) ([]*os.File, error) {
	if n < 0 || n > maxFiles {
		return nil, fmt.Errorf("%w: %d descriptors", ErrFrame, n)
	}
	if n == 0 {
		return nil, nil
	}
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	got, used, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:used])
	for _, m := range messages {
		fds, rightsErr := unix.ParseUnixRights(&m)
		err = errors.Join(err, rightsErr)
		for _, fd := range fds {
			err = errors.Join(err, unix.SetNonblock(fd, true)) // its own: each end of a pipe has its flags
			files = append(files, os.NewFile(uintptr(fd), "exec"))
		}
	}
	if err == nil && (got != 1 || len(files) != n) {
		err = fmt.Errorf("%w: %d descriptors instead of %d", ErrFrame, len(files), n)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	return files, nil
}
