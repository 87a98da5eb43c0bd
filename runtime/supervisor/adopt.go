package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/protocol"
)

// found is what an earlier supervisor left behind of its knowledge.
type found struct {
	records map[string][]byte
	damaged error // or nil: why a part of the records is missing
}

// adoptAll takes over what an earlier supervisor left.
func (s *Supervisor) adoptAll(ctx context.Context, f found) error {
	dirs := make(map[string]string, len(f.records)) // of containers, by id
	for id := range f.records {
		dirs[id] = filepath.Join(s.cfg.Run, id)
	}
	for _, dir := range []string{s.cfg.Run, s.formerDir()} { // of a container that has both, it is the latter
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("find containers: %w", err)
		}
		for _, e := range entries {
			dirs[e.Name()] = filepath.Join(dir, e.Name())
		}
	}
	for _, id := range slices.Sorted(maps.Keys(dirs)) {
		if !cgroup.ValidName(id) {
			s.logger.Warn("not a container's directory", "name", id)
			continue
		}
		if err := s.adopt(ctx, f, id, dirs[id]); err != nil { // one container must not keep the others from being served
			s.logger.Error("container not taken over", "container", id, "error", err)
		}
	}
	return nil
}

// recall gives the record of a container, or fs.ErrNotExist if none was ever written.
func (s *Supervisor) recall(f found, id, dir string) (record, error) {
	if text, ok := f.records[id]; ok {
		return parse(text)
	}
	r, err := load(dir)
	switch {
	case err == nil: // of an earlier version; now the journal has it
		return r, s.save(r, r.State.Status == protocol.Exited)
	case errors.Is(err, fs.ErrNotExist) && f.damaged != nil:
		return record{}, fmt.Errorf("%w: %w", errRecord, f.damaged)
	default:
		return record{}, err
	}
}

// adopt takes over one container, whose directory is dir, if it has one.
func (s *Supervisor) adopt(ctx context.Context, f found, id, dir string) error {
	group, err := s.tree.Group(id)
	if err != nil {
		return err
	}
	c := &container{id: id, dir: dir, group: group, ended: make(chan struct{})}
	r, err := s.recall(f, id, c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		// Its creation was never finished, so nobody knows of it.
		var foreign error
		if s.foreign != nil {
			foreign = s.foreign.Delete(ctx, id)
		}
		return errors.Join(foreign, group.KillAll(), group.Remove(ctx), os.RemoveAll(c.dir))
	}
	damaged := err
	if damaged != nil {
		s.logger.Error("journal record lost", "container", id, "error", damaged)
		r = record{State: protocol.State{ID: id, Status: protocol.Running}}
	}
	c.log, c.boot, c.started, c.terminal = r.Log, r.Boot, r.Started, r.Terminal
	c.machine = restored(r.State)
	c.public = r.State
	s.mu.Lock()
	s.containers[id] = c
	s.mu.Unlock()
	switch {
	case r.State.Status == protocol.Exited:
		close(c.ended)
		return nil
	case damaged != nil:
		return s.lost(c, "exit code not known: the container's record was not readable")
	default:
		return s.takeOver(c, r)
	}
}

// restored puts a machine where a record says it was.
func restored(state protocol.State) machine {
	m := machine{state: state}
	switch state.Status {
	case protocol.Running:
		m.phase = phaseRunning
	case protocol.Exited:
		m.phase = phaseExited
	default:
		m.phase = phaseCreated
	}
	return m
}

// takeOver watches the process of a container that was not known to have ended, or records that it has.
func (s *Supervisor) takeOver(c *container, r record) error {
	if r.Boot != s.boot {
		return s.lost(c, "exit code not known: the machine was restarted")
	}
	p, err := launch.Adopt(r.State.Pid, r.Started)
	if errors.Is(err, os.ErrProcessDone) {
		s.reopen(c) // the keeper has kept what was in the pipes
		return s.lost(c, "exit code not known: the supervisor was not running when the container ended")
	}
	if err != nil {
		return err
	}
	c.process = p
	if r.State.Status == protocol.Created && !s.startable(c.id, p) {
		// It ends by itself, since the supervisor that could start it is gone, unless it was being started at that
		// very moment: then nobody was told, and it must not run.
		if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	s.reopen(c)
	s.hold(c)
	s.openOOMs(c)
	s.watch(c)
	s.logger.Info("container taken over", "container", c.id, "pid", r.State.Pid)
	return nil
}

// reopen takes up the output of a container.
func (s *Supervisor) reopen(c *container) {
	var err error
	if c.terminal {
		c.output, err = s.reopenTerminal(c)
	} else {
		c.output, err = s.openOutput(c.dir, c.log, true)
	}
	if err != nil {
		s.logger.Error("output of the container is lost", "container", c.id, "error", err)
	}
}

// lost records the end of a container that no supervisor saw: how, if the keeper knows, or why nobody does (I7).
func (s *Supervisor) lost(c *container, why string) error {
	in := exited{code: unknownExit, unknown: true, text: why}
	if status, ok := s.witnessed(c.id); ok {
		exit := launch.ExitOf(status)
		in = exited{code: exit.Code, signal: int(exit.Signal)}
		s.logger.Info("container ended while no supervisor ran", "container", c.id, "code", in.code)
	}
	if err := c.group.KillAll(); err != nil {
		return err
	}
	c.output.drain(drainTime)
	if n, err := c.group.OOMKills(); err == nil {
		in.oom = n > 0
	}
	if err := s.feed(c, in); err != nil {
		return err
	}
	s.forget(c)
	return nil
}
