package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Freezing takes as long as the slowest system call that can't be interrupted.
const (
	freezeWait  = 10 * time.Second
	freezePause = 2 * time.Millisecond
)

// ErrFreeze is returned when processes could not be halted, or the machine has nothing to halt them by.
var ErrFreeze = errors.New("processes can't be halted")

// Freeze halts all processes of the group, wherever they are. On v1 they are put into a group of the freezer for that, which
// exists for as long as they are halted: no launch pays for what hardly any container needs.
func (g *Group) Freeze(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, freezeWait)
	defer cancel()
	err := g.freeze(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("halt control group %s: %w", g.name, err), g.Thaw())
	}
	return nil
}

func (g *Group) freeze(ctx context.Context) error {
	if g.unified {
		if err := write(g.dirs[0], setting{file: "cgroup.freeze", value: "1"}); err != nil {
			return err
		}
	} else if err := g.enterFreezer(); err != nil {
		return err
	}
	for {
		halted, err := g.halted()
		if err != nil || halted {
			return err
		}
		if !g.unified { // who was forked meanwhile, and on v1 the word has to be repeated until all obey
			if err := g.enterFreezer(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: some are still running", ErrFreeze)
		case <-time.After(freezePause):
		}
	}
}

// enterFreezer puts the processes that are not there yet into the group of the freezer, and has that halt.
func (g *Group) enterFreezer() error {
	if g.freezer == "" {
		return fmt.Errorf("%w: the freezer controller is not mounted", ErrFreeze)
	}
	if err := os.MkdirAll(g.freezer, 0o755); err != nil {
		return err
	}
	pids, err := g.pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := write(g.freezer, setting{file: "cgroup.procs", value: strconv.Itoa(pid)})
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return err
		}
	}
	return write(g.freezer, setting{file: "freezer.state", value: "FROZEN"})
}

// halted reports whether all processes stand still.
func (g *Group) halted() (bool, error) {
	if g.unified {
		text, err := os.ReadFile(filepath.Join(g.dirs[0], "cgroup.events"))
		n, ok := counter(string(text), "frozen")
		return ok && n == 1, err
	}
	text, err := os.ReadFile(filepath.Join(g.freezer, "freezer.state"))
	if err != nil || strings.TrimSpace(string(text)) != "FROZEN" {
		return false, err
	}
	all, err := g.pids()
	if err != nil {
		return false, err
	}
	inside, err := pidsIn(g.freezer)
	if err != nil {
		return false, err
	}
	have := make(map[int]bool, len(inside))
	for _, pid := range inside {
		have[pid] = true
	}
	for _, pid := range all {
		if !have[pid] {
			return false, nil
		}
	}
	return true, nil
}

// Frozen reports whether the group was told to halt.
func (g *Group) Frozen() bool {
	if g.unified {
		text, err := os.ReadFile(filepath.Join(g.dirs[0], "cgroup.freeze"))
		return err == nil && strings.TrimSpace(string(text)) == "1"
	}
	if g.freezer == "" {
		return false
	}
	text, err := os.ReadFile(filepath.Join(g.freezer, "freezer.state"))
	return err == nil && strings.TrimSpace(string(text)) != "THAWED"
}

// Thaw lets all processes go on. It does nothing for a group that is not halted.
func (g *Group) Thaw() error {
	err := g.thaw()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("resume control group %s: %w", g.name, err)
	}
	return nil
}

func (g *Group) thaw() error {
	if g.unified {
		return write(g.dirs[0], setting{file: "cgroup.freeze", value: "0"})
	}
	if g.freezer == "" {
		return nil
	}
	if err := write(g.freezer, setting{file: "freezer.state", value: "THAWED"}); err != nil {
		return err
	}
	root := filepath.Dir(filepath.Dir(g.freezer))
	for range killRounds {
		pids, err := pidsIn(g.freezer)
		if err != nil || len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			if err := write(root, setting{file: "cgroup.procs", value: strconv.Itoa(pid)}); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	if err := unix.Rmdir(g.freezer); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, fs.ErrNotExist) {
		return err // a busy one is used again, and goes with the group
	}
	return nil
}
