package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/foreign"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/logfile"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/overlay"
	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/spec"
)

// create makes a container. It does not keep the request; the caller overwrites its files' data.
func (s *Supervisor) create(ctx context.Context, r *protocol.Request) (protocol.State, error) {
	plan, err := s.check(r)
	if err != nil {
		return protocol.State{}, err
	}
	if err := s.reserve(r.ID); err != nil {
		return protocol.State{}, err
	}
	s.calm.stir()
	s.launches <- struct{}{}
	c, err := s.build(ctx, r, plan)
	<-s.launches
	if err != nil {
		s.admit(r.ID, nil)
		return protocol.State{}, fmt.Errorf("create container %s: %w", r.ID, err)
	}
	state := c.machine.state // from here on others may change it
	s.admit(r.ID, c)
	s.watch(c)
	return state, nil
}

// admit ends the reservation of a name: by its container, or nil if that could not be made.
func (s *Supervisor) admit(id string, c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.reserved[id])
	delete(s.reserved, id)
	if c == nil {
		return
	}
	c.public = c.machine.state
	s.containers[id] = c
	s.announceLocked(protocol.Event{Type: protocol.EventCreated, Time: c.public.CreatedAt, State: c.public})
}

// check compiles the plan of a request.
func (s *Supervisor) check(r *protocol.Request) (*spec.Plan, error) {
	if r == nil || !cgroup.ValidName(r.ID) {
		return nil, fmt.Errorf("%w: a container needs a name of letters, digits, \"_\", \".\" and \"-\"", protocol.ErrInvalid)
	}
	plan, err := spec.CompileGranted(r.Spec, runtime.GOARCH, spec.Granted{Namespaces: r.Share, Devices: r.Devices})
	if err == nil && len(r.Seccomp) > 0 {
		if plan.Seccomp, err = s.filters.Compile(r.Seccomp, runtime.GOARCH); err != nil {
			err = fmt.Errorf("linux.seccomp: %w", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w: %w", r.ID, protocol.ErrInvalid, err)
	}
	if s.foreign != nil {
		plan.Landlock = false // which only our launcher has
	}
	plan.ReadOnlyRoot = plan.ReadOnlyRoot || r.Rootfs.ReadOnly
	for _, dir := range append([]string{r.Rootfs.Upper, r.Rootfs.Work, r.Log.Path}, r.Rootfs.Lower...) {
		if dir != "" && !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("create container %s: %w: %.128q is not an absolute path", r.ID, protocol.ErrInvalid, dir)
		}
	}
	if r.Rootfs.Upper == "" && !plan.ReadOnlyRoot {
		return nil, fmt.Errorf("create container %s: %w: a root file system needs a writable layer or must be read-only",
			r.ID, protocol.ErrInvalid)
	}
	if err := (logfile.Config{Path: r.Log.Path, MaxSize: r.Log.MaxSize, MaxFiles: r.Log.MaxFiles}).Validate(); err != nil {
		return nil, fmt.Errorf("create container %s: %w: %w", r.ID, protocol.ErrInvalid, err)
	}
	return plan, nil
}

// reserve keeps a name while its container is made.
func (s *Supervisor) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[id] != nil || s.reserved[id] != nil {
		return fmt.Errorf("%w: %s", protocol.ErrExists, id)
	}
	if len(s.containers)+len(s.reserved) >= maxContainers {
		return fmt.Errorf("create container %s: there are %d containers already; delete some that have exited", id, maxContainers)
	}
	s.reserved[id] = make(chan struct{})
	return nil
}

// awaitMade returns when nobody makes a container of that name.
func (s *Supervisor) awaitMade(id string) {
	s.mu.Lock()
	made := s.reserved[id]
	s.mu.Unlock()
	if made != nil {
		<-made
	}
}

// build makes everything that a container is made of, or nothing (I6).
func (s *Supervisor) build(ctx context.Context, r *protocol.Request, plan *spec.Plan) (_ *container, err error) {
	c := &container{
		id: r.ID, dir: filepath.Join(s.cfg.Run, r.ID), log: r.Log, boot: s.boot, ended: make(chan struct{}),
		terminal: plan.Process.Terminal,
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return nil, err
	}
	undo := func(f func() error) {
		if err != nil {
			err = errors.Join(err, f())
		}
	}
	defer undo(func() error { return os.RemoveAll(c.dir) })
	// Control groups take the kernel a while: they are made beside everything else.
	groups := make(chan error, 1)
	go func() {
		var failed error
		c.group, failed = s.tree.Create(r.ID, plan.Limits)
		groups <- failed
	}()
	writers, err := openStreams(c, plan)
	defer closeAll(writers)
	defer undo(func() error { c.output.close(); return nil })
	if failed := <-groups; failed != nil {
		return nil, errors.Join(failed, err)
	}
	defer undo(func() error { c.unwatchOOM(); return c.group.Remove(ctx) })
	if err != nil {
		return nil, err
	}
	if err := s.launch(ctx, c, r, plan, writers); err != nil {
		return nil, err
	}
	return c, nil
}

// openStreams makes the pipes, and opens the ends that the process gets, with what they were opened through.
func openStreams(c *container, plan *spec.Plan) (writers []*os.File, err error) {
	if c.terminal { // which will be its output
		return nil, nil
	}
	uid, _ := plan.HostUID(plan.Process.UID)
	gid, _ := plan.HostGID(plan.Process.GID)
	if err := makePipes(c.dir, plan.MountLabel, uid, gid); err != nil {
		return nil, err
	}
	return openWriters(c.dir)
}

// launch makes the process and the first record.
func (s *Supervisor) launch(ctx context.Context, c *container, r *protocol.Request, plan *spec.Plan, writers []*os.File) error {
	mem, err := fillMemory(r.Files, r.ID, plan)
	if err != nil {
		return err
	}
	defer mem.close()
	job := launch.Job{
		Plan:   plan,
		Root:   overlay.Layers{Lower: r.Rootfs.Lower, Upper: r.Rootfs.Upper, Work: r.Rootfs.Work},
		Memory: mem.mounts,
		Group:  c.group,
		Stdio:  [3]*os.File{s.null, s.nullOut, s.nullOut},
	}
	if c.terminal {
		job.Console = func(master *os.File) error { return s.takeTerminal(c, master) }
	} else {
		job.Stdio[1], job.Stdio[2] = writers[0], writers[1]
	}
	job.Meanwhile = func(p *launch.Process) error {
		defer closeAll(writers) // the process has its own
		return s.begin(c, p, plan)
	}
	if err := s.makeProcess(ctx, c, r, job); err != nil {
		if c.process != nil { // there may be a record
			err = errors.Join(err, s.journal.Delete(c.id))
		}
		return err
	}
	s.hold(c)
	return nil
}

// begin makes, for a container that has a process, all that is there to watch it, what commands in it will need, and the first record.
func (s *Supervisor) begin(c *container, p *launch.Process, plan *spec.Plan) (err error) {
	c.process = p
	if !c.terminal {
		if c.output, err = s.openOutput(c.dir, c.log, false); err != nil {
			return err
		}
	}
	if err := saveExecPlan(c.dir, plan); err != nil {
		return err
	}
	c.machine = created(s.now(), c.id, p.Pid())
	c.machine.state.Enforced = s.enforced(plan)
	if c.started, err = launch.StartTime(p.Pid()); err != nil {
		return err
	}
	s.openOOMs(c)
	return s.save(c.record(c.machine.state), false)
}

// makeProcess makes the waiting process, by our own launcher or by the runtime that the configuration names, and calls job.Meanwhile.
func (s *Supervisor) makeProcess(ctx context.Context, c *container, r *protocol.Request, job launch.Job) error {
	if s.foreign == nil {
		_, err := s.launcher.Create(ctx, job)
		return err
	}
	p, err := s.foreign.Create(ctx, foreign.Job{
		ID: c.id, Spec: r.Spec, Seccomp: r.Seccomp, Plan: job.Plan, Root: job.Root, Memory: job.Memory, Stdio: job.Stdio,
		Console: job.Console,
		Group:   filepath.Join("/", s.cfg.CgroupParent, c.id),
	})
	if err != nil {
		return err
	}
	if err := job.Meanwhile(p); err != nil {
		p.Abort()
		return err
	}
	return nil
}

// remove forgets a container that has exited, or was never started: everything of it goes.
func (s *Supervisor) remove(ctx context.Context, c *container) error {
	if err := s.endUnstarted(c); err != nil {
		return err
	}
	c.removal.Lock()
	defer c.removal.Unlock()
	if found, err := s.find(c.id); err != nil || found != c {
		return fmt.Errorf("%w: %s", protocol.ErrNotFound, c.id)
	}
	c.halt()
	if s.foreign != nil {
		if err := s.foreign.Delete(ctx, c.id); err != nil {
			return fmt.Errorf("delete container %s: %w", c.id, err)
		}
	}
	if err := c.release(ctx); err != nil {
		return fmt.Errorf("delete container %s: %w", c.id, err)
	}
	// The record goes last: while it is there, a supervisor that finds it can finish this.
	if err := errors.Join(os.RemoveAll(c.dir), s.journal.Delete(c.id)); err != nil {
		return fmt.Errorf("delete container %s: %w", c.id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, c.id)
	s.announceLocked(protocol.Event{Type: protocol.EventDeleted, Time: s.now(), State: c.public})
	return nil
}

// endUnstarted makes sure that the container has ended, by killing it if its program never ran.
func (s *Supervisor) endUnstarted(c *container) error {
	select {
	case <-c.ended:
		return nil
	default:
	}
	c.mu.Lock()
	phase, description := c.machine.phase, c.machine.describe()
	c.mu.Unlock()
	if phase != phaseCreated {
		return fmt.Errorf("%w: container %s is %s; kill it first", protocol.ErrState, c.id, description)
	}
	if err := c.process.Signal(9); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("delete container %s: %w", c.id, err)
	}
	<-c.ended
	return nil
}

// enforced names what isolates the container, by the words of --require: what is not in force is not there.
func (s *Supervisor) enforced(plan *spec.Plan) []string {
	var out []string
	add := func(in bool, name string) {
		if in {
			out = append(out, name)
		}
	}
	add(plan.UserNS(), lsm.UserNS)
	add(plan.Seccomp != nil, lsm.Seccomp)
	add(plan.Process.NoNewPrivs, "no-new-privileges")
	add(s.launcher.Landlock(plan), lsm.LandlockName)
	add(plan.Process.AppArmor != "", lsm.AppArmorName+"="+plan.Process.AppArmor)
	add(plan.Process.SELinux != "" && lsm.SELinuxEnforces(), lsm.SELinuxName+"="+plan.Process.SELinux)
	return out
}
