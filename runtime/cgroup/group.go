package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is the control group of one container.
type Group struct {
	name    string
	unified bool
	dirs    []string // one per hierarchy
	memory  string   // the one with the OOM counters
	views   []View
	freezer string // on v1: where its processes are while they are halted, or ""
	fd      int    // of the v2 directory, or -1
}

// View is the group's directory in one hierarchy, for showing it inside the container.
type View struct {
	// Controllers of the hierarchy; none on v2, which has but one.
	Controllers []string
	Dir         string
}

// Views gives the group's directories. The caller must not modify them.
func (g *Group) Views() []View { return g.views }

// create makes the group's directory in one hierarchy.
func (g *Group) create(dir string, h hierarchy, l Limits) error {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("mkdir %s: %w", dir, err)
	}
	err := g.fill(dir, h, l)
	if err != nil {
		_ = unix.Rmdir(dir) // I2; it is empty and ours
	}
	return err
}

// fill sets the limits of a new directory.
func (g *Group) fill(dir string, h hierarchy, l Limits) error {
	settings := l.unified()
	if !g.unified {
		settings = l.legacy(h.controllers)
		if slices.Contains(h.controllers, "cpuset") {
			if err := inheritCPUSet(dir); err != nil {
				return err
			}
		}
	}
	for _, s := range settings {
		if err := write(dir, s); err != nil {
			return err
		}
	}
	if !g.unified {
		return nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	g.fd = fd
	return guardDevices(fd, l.deviceRules())
}

// FD is the v2 directory, for clone3 with CLONE_INTO_CGROUP, or -1 on v1 and for a handle from Tree.Group. It stays the group's.
func (g *Group) FD() int { return g.fd }

// Exists reports whether the group is there.
func (g *Group) Exists() bool {
	_, err := os.Stat(g.dirs[0])
	return err == nil
}

// Entrances opens the files by which a process of one thread moves itself into the group, when it writes a zero to each (Entering). There
// are none where FD is what a process begins in. The caller closes the descriptors.
//
// On v1 they are those for single threads. To move a whole process, or another one, the kernel first waits until all processors have
// seen that nobody may fork.
func (g *Group) Entrances() (fds []int, err error) {
	if g.fd >= 0 {
		return nil, nil
	}
	file := "tasks"
	if g.unified {
		file = "cgroup.procs"
	}
	for _, dir := range g.dirs {
		fd, err := unix.Open(filepath.Join(dir, file), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("enter control group %s: %w", g.name, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// Entering is what is written to an entrance.
const Entering = "0"

// OOMKills is how many processes of the group the kernel has killed for want of memory.
func (g *Group) OOMKills() (uint64, error) {
	file := "memory.oom_control"
	if g.unified {
		file = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(g.memory, file))
	if err != nil {
		return 0, fmt.Errorf("read OOM kills of control group %s: %w", g.name, err)
	}
	n, ok := counter(string(text), "oom_kill")
	if !ok {
		return 0, fmt.Errorf("read OOM kills of control group %s: no counter in %s", g.name, file)
	}
	return n, nil
}

// counter finds "key value" among the lines of text.
func counter(text, key string) (uint64, bool) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name != key {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// OOMEvents gives a file that becomes readable when OOMKills may have grown. Reading empties it; the content means
// nothing. The caller closes it. On v1 the kernel writes before it kills, so the counter may lag a little.
func (g *Group) OOMEvents() (*os.File, error) {
	open := g.legacyOOMEvents
	if g.unified {
		open = g.unifiedOOMEvents
	}
	f, err := open()
	if err != nil {
		return nil, fmt.Errorf("watch OOM kills of control group %s: %w", g.name, err)
	}
	return f, nil
}

func (g *Group) unifiedOOMEvents() (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(g.memory, "memory.events"), unix.IN_MODIFY); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (g *Group) legacyOOMEvents() (*os.File, error) {
	control, err := os.Open(filepath.Join(g.memory, "memory.oom_control"))
	if err != nil {
		return nil, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "eventfd")
	if err := write(g.memory, setting{file: "cgroup.event_control", value: fmt.Sprintf("%d %d", fd, control.Fd())}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// killRounds bounds how often KillAll looks again for processes that were forked meanwhile.
const killRounds = 16

// KillAll kills every process of the group. Those that the kernel is still tearing down may be seen for a while.
func (g *Group) KillAll() error {
	if g.unified {
		err := write(g.dirs[0], setting{file: "cgroup.kill", value: "1"})
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for round := range killRounds {
		pids, err := g.pids()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if round == 1 { // some were forked meanwhile, and may go on so
			if err := g.forbidForks(); err != nil {
				return err
			}
		}
		for _, pid := range pids {
			if err := g.signal(pid, unix.SIGKILL); err != nil {
				return err
			}
		}
		if err := g.Thaw(); err != nil { // halted ones end when they go on
			return err
		}
	}
	return nil
}

// forbidForks lets no process of the group on v1 make another one. It is for a group that is to end.
func (g *Group) forbidForks() error {
	for _, dir := range g.dirs {
		if _, err := os.Stat(filepath.Join(dir, "pids.max")); err == nil {
			return write(dir, setting{file: "pids.max", value: "0"})
		}
	}
	return nil
}

// signal signals one process by a handle that was taken while the process was in the group, so that a number which the
// kernel gave to another process meanwhile can't be hit.
func (g *Group) signal(pid int, s unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d of control group %s: %w", pid, g.name, err)
	}
	defer unix.Close(fd)
	pids, err := g.pids()
	if err != nil || !slices.Contains(pids, pid) {
		return err
	}
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d of control group %s: %w", pid, g.name, err)
	}
	return nil
}

// pids lists the group's processes; none if the group is gone.
func (g *Group) pids() ([]int, error) {
	pids, err := pidsIn(g.memory)
	if err != nil {
		return nil, fmt.Errorf("list control group %s: %w", g.name, err)
	}
	return pids, nil
}

// pidsIn lists the processes of a directory; none if it is gone.
func pidsIn(dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Close gives up the handle, not the group.
func (g *Group) Close() {
	if g.fd >= 0 {
		unix.Close(g.fd)
		g.fd = -1
	}
}

// Removal is retried: for a moment after the last process was reaped the kernel still counts it.
const (
	removeFirstWait = time.Millisecond
	removeLastWait  = 64 * time.Millisecond
	removeWait      = 2 * time.Second
)

// Remove removes the empty group and closes it. It waits a little for processes that just ended, and then fails with
// ErrBusy; it may be called again.
func (g *Group) Remove(ctx context.Context) error {
	g.Close()
	ctx, cancel := context.WithTimeout(ctx, removeWait)
	defer cancel()
	for _, dir := range append(slices.Clone(g.dirs), g.freezer) {
		if dir == "" {
			continue
		}
		if err := removeDir(ctx, dir); err != nil {
			return fmt.Errorf("remove control group %s: %w", g.name, err)
		}
	}
	return nil
}

func removeDir(ctx context.Context, dir string) error {
	for wait := removeFirstWait; ; wait = min(2*wait, removeLastWait) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("rmdir %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", ErrBusy, dir)
		case <-time.After(wait):
		}
	}
}
