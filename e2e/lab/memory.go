package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// window is how much memory is looked at in one go.
const window = 1 << 20

// MemoryHolds returns the command name of a process of the machine whose memory holds the text, or "".
func (m *Machine) MemoryHolds(text []byte) (string, error) {
	for pid, command := range m.Processes() {
		if pid == m.PID() {
			// The machine's init process is the lab's own.
			continue
		}
		found, err := memoryOf(pid, text)
		if err != nil {
			return "", fmt.Errorf("memory of %s: %w", command, err)
		}
		if found {
			return command, nil
		}
	}
	return "", nil
}

// memoryOf looks through the readable and writable memory of a process; see proc_pid_maps(5). A process that ended holds nothing.
func memoryOf(pid int, text []byte) (bool, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var rights string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); err != nil || !strings.HasPrefix(rights, "rw") {
			continue
		}
		if holds(io.NewSectionReader(memory, from, to-from), text) {
			return true, nil
		}
	}
	return false, nil
}

// holds reports whether the text is in r, also across the borders of windows. What can't be read holds nothing.
func holds(r io.Reader, text []byte) bool {
	buffer := make([]byte, 0, window+len(text))
	for {
		n, err := io.ReadFull(r, buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		if bytes.Contains(buffer, text) {
			return true
		}
		if err != nil {
			return false
		}
		kept := copy(buffer, buffer[len(buffer)-len(text)+1:])
		buffer = buffer[:kept]
	}
}
