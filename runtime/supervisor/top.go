package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/spec"
)

const (
	// maxListed bounds the processes of a list, and maxCommand the bytes of one's command.
	maxListed  = 4096
	maxCommand = 4096
	// userHZ is how many ticks a second the times in /proc have: the kernel's ABI on every machine that this runs on.
	userHZ = 100
)

// top lists the processes of a container. Those that end meanwhile are left out.
func (s *Supervisor) top(c *container) ([]protocol.Process, error) {
	if err := c.executable(); err != nil {
		return nil, err
	}
	pids, err := c.group.Pids()
	if err != nil {
		return nil, err
	}
	var ranges []spec.IDRange
	if plan, err := loadExecPlan(c.dir); err == nil { // else the ids are the host's
		ranges = plan.UIDs
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, err
	}
	var out []protocol.Process
	for _, pid := range pids[:min(len(pids), maxListed)] {
		if p, err := look(pid, time.Duration(now.Nano()), ranges); err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}

// errGone is returned when a process ended while it was looked at.
var errGone = errors.New("process has ended")

// look reads what /proc has of a process (proc_pid_stat(5), proc_pid_status(5)).
func look(pid int, uptime time.Duration, ranges []spec.IDRange) (protocol.Process, error) {
	read := func(name string) ([]byte, error) { return os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name)) }
	stat, err := read("stat")
	if err != nil {
		return protocol.Process{}, err
	}
	// The name, field 2, may contain anything but ends with the last parenthesis.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return protocol.Process{}, errGone
	}
	f := strings.Fields(string(stat[end+1:])) // field 3 is f[0]
	if len(f) < 22 {
		return protocol.Process{}, errGone
	}
	number := func(field int) uint64 {
		n, _ := strconv.ParseUint(f[field-3], 10, 64) // the kernel writes numbers
		return n
	}
	ticks := func(n uint64) time.Duration { return time.Duration(n) * (time.Second / userHZ) }
	p := protocol.Process{
		Pid: pid, Parent: int(number(4)), State: f[0], CPU: ticks(number(14) + number(15)),
		Age: max(0, uptime-ticks(number(22))), Resident: number(24) * uint64(os.Getpagesize()),
		Command: "[" + string(stat[open+1:end]) + "]",
	}
	status, err := read("status")
	if err != nil {
		return protocol.Process{}, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		words := strings.Fields(value)
		if len(words) == 0 {
			continue
		}
		switch key {
		case "NSpid": // the last is that of the innermost namespace
			p.Inner, _ = strconv.Atoi(words[len(words)-1])
		case "Uid":
			uid, _ := strconv.ParseUint(words[1], 10, 32) // the effective one
			p.UID = within(ranges, uint32(uid))
		}
	}
	if line, err := read("cmdline"); err == nil && len(line) > 0 {
		line = bytes.TrimRight(line[:min(len(line), maxCommand)], "\x00")
		p.Command = strings.ToValidUTF8(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})), "?")
	}
	return p, nil
}

// within gives the id in the container for one of the host, or that if the container has none.
func within(ranges []spec.IDRange, id uint32) uint32 {
	for _, r := range ranges {
		if id >= r.Host && id-r.Host < r.Size {
			return r.Container + id - r.Host
		}
	}
	return id
}
