package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Socket is where the keeper of the supervisor with this root directory listens.
func Socket(root string) string { return filepath.Join(root, "keeper.sock") }

// Limits of what is kept and said.
const (
	// maxHeld is as many containers as a supervisor may have.
	maxHeld = 8192
	// maxFiles holds the two pipes of a container's output, or its terminal.
	maxFiles = 4
	// maxName is that of a container's.
	maxName = 128
	// maxMessage holds the arguments of a supervisor, with some paths.
	maxMessage = 32 << 10
)

// ErrMessage is returned when a message is not one.
var ErrMessage = errors.New("malformed message")

// op is what a message asks for.
type op string

const (
	opStart  op = "start"  // run a supervisor
	opHold   op = "hold"   // a container
	opAsk    op = "ask"    // for a container
	opForget op = "forget" // a container
	opSettle op = "settle" // forget all that this connection did not name
)

// message is one to the keeper. With start come the program, unless it is the keeper's own, and the log; with hold what
// is to be kept.
type message struct {
	Op      op
	Name    string   `json:",omitempty"`
	Pid     int      `json:",omitempty"` // of hold
	Args    []string `json:",omitempty"` // of start: the program's, with its own name
	Program bool     `json:",omitempty"` // of start: the first descriptor is the program
}

// answer is one of the keeper. With that to ask come the descriptors.
type answer struct {
	Error  string `json:",omitempty"`
	Pid    int    `json:",omitempty"` // to start
	Held   bool   `json:",omitempty"`
	Exited bool   `json:",omitempty"`
	Status uint32 `json:",omitempty"` // as wait4 has it
}

// send sends v in one packet, with descriptors, which stay the caller's.
func send(conn *net.UnixConn, v any, files []int) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > maxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d are possible", ErrMessage, len(text), maxMessage)
	}
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	_, _, err = conn.WriteMsgUnix(text, rights, nil)
	return err
}

// receive reads one packet into v, using buffer, and gives the descriptors, which are the caller's. An empty packet is
// the end of the connection. Where not all descriptors have room in this process, it gives none: the word is worth something
// without them. They are numbers and not files, which Go would watch.
func receive(conn *net.UnixConn, buffer []byte, v any) ([]int, error) {
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, used, flags, _, err := conn.ReadMsgUnix(buffer, rights)
	if err != nil {
		return nil, err
	}
	files, err := filesIn(rights[:used])
	switch {
	case err != nil:
	case n == 0:
		err = net.ErrClosed
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("%w: longer than %d bytes", ErrMessage, len(buffer))
	default:
		if err = json.Unmarshal(buffer[:n], v); err != nil {
			err = fmt.Errorf("%w: %w", ErrMessage, err)
		}
	}
	if err != nil || flags&unix.MSG_CTRUNC != 0 {
		closeAll(files)
		files = nil
	}
	return files, err
}

// filesIn takes the descriptors out of control messages.
func filesIn(rights []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	var files []int
	for _, m := range messages {
		fds, failed := unix.ParseUnixRights(&m)
		err = errors.Join(err, failed)
		files = append(files, fds...)
	}
	return files, err
}

func closeAll(files []int) {
	for _, fd := range files {
		unix.Close(fd)
	}
}
