package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/client"
)

const (
	// reconnectMin and reconnectMax bound the pause before the supervisor's events are asked for again.
	reconnectMin = 50 * time.Millisecond
	reconnectMax = 2 * time.Second
	// killedMin and killedMax bound the pause before it is looked again whether a container that was killed has ended.
	killedMin = time.Millisecond
	killedMax = 100 * time.Millisecond
)

// Supervisor is the Runtime of this node: skep-runtime, behind its socket. Make one with NewSupervisor and run Run beside
// everything else: Wait depends on it, and nothing else does.
type Supervisor struct {
	// constant after NewSupervisor
	client  *client.Client
	log     *slog.Logger
	witness *witness

	mu sync.Mutex
	// waiters have room for one signal each: something happened to the container. Guarded by mu.
	waiters map[*waiter]bool
}

// waiter is a Wait under way.
type waiter struct {
	id      string
	changed chan struct{}
}

var _ Runtime = (*Supervisor)(nil)

// NewSupervisor returns the runtime behind a client, which remains the caller's.
func NewSupervisor(c *client.Client, log *slog.Logger) *Supervisor {
	return &Supervisor{client: c, log: log, witness: newWitness(), waiters: map[*waiter]bool{}}
}

// Run listens to what happens to containers until ctx ends. It connects again when the supervisor is restarted.
func (s *Supervisor) Run(ctx context.Context) error {
	for pause := reconnectMin; ctx.Err() == nil; pause = min(2*pause, reconnectMax) {
		heard, err := s.listen(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("no events from the container supervisor, connecting again", "error", err)
		if heard {
			pause = reconnectMin
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// errEventsEnded is returned when the supervisor ends the stream of events, as when it is restarted.
var errEventsEnded = errors.New("the container supervisor closed the stream of events")

// listen wakes waiters until the stream ends, and says whether it began.
func (s *Supervisor) listen(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	events, err := s.client.Events(ctx)
	if err != nil {
		cancel()
		return false, err
	}
	defer func() { // the stream's goroutine ends when the channel is closed
		cancel()
		for range events {
		}
	}()
	for e := range events {
		heard = true
		switch e.Type {
		case client.EventExited, client.EventDeleted:
			s.wake(e.State.ID)
		case client.EventOOM:
			s.log.Warn("the kernel killed a process of a task for want of memory", "task", e.State.ID)
		case client.EventSynced: // whatever happened before this stream began
			s.wake("")
		}
	}
	return heard, errEventsEnded
}

// wake signals those who wait for a container, or all for "".
func (s *Supervisor) wake(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.waiters {
		if id != "" && w.id != id {
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// Create implements [Runtime].
func (s *Supervisor) Create(ctx context.Context, c Container) (State, error) {
	r := client.Request{
		ID: c.ID, Spec: c.Spec, Share: c.Share, Devices: c.Devices,
		Rootfs: client.Rootfs{Lower: c.Layers, Upper: c.Upper, Work: c.Work, ReadOnly: c.Spec.Root.Readonly},
		Log:    client.LogConfig{Path: c.Log.Path, MaxSize: c.Log.MaxSize, MaxFiles: c.Log.MaxFiles},
	}
	for _, f := range c.Files {
		r.Files = append(r.Files, fileOf(f))
	}
	state, err := s.client.Create(ctx, r)
	if err == nil {
		s.witness.watch(c.ID, state.Pid) // it waits for Start, so the number is its own
	}
	if errors.Is(err, client.ErrExists) { // the last run of the agent had it made; the supervisor takes it back, and another try makes it anew
		return State{}, fault.Wrap(fault.Unavailable, err)
	}
	return stateOf(state), kinded(err)
}

// fileOf describes a file to the supervisor.
func fileOf(f File) client.File {
	return client.File{
		Dir: path.Dir(f.Path), Name: path.Base(f.Path), Mode: fs.FileMode(f.Mode), UID: f.UID, GID: f.GID,
		Single: !within(f.Path, secretDir), Exec: f.Exec, Data: f.Data,
	}
}

// Rewrite implements [Runtime].
func (s *Supervisor) Rewrite(ctx context.Context, id string, f File) error {
	return kinded(s.client.Rewrite(ctx, id, []client.File{fileOf(f)}))
}

// Start implements [Runtime].
func (s *Supervisor) Start(ctx context.Context, id string) error {
	err := s.client.Start(ctx, id)
	if errors.Is(err, client.ErrState) { // it ended with the supervisor that had created it; another try makes it anew
		return fault.Wrap(fault.Unavailable, err)
	}
	return kinded(err)
}

// List implements [Runtime].
func (s *Supervisor) List(ctx context.Context) ([]State, error) {
	states, err := s.client.List(ctx)
	if err != nil {
		return nil, kinded(err)
	}
	var out []State
	for _, st := range states {
		out = append(out, stateOf(st))
		s.watch(ctx, st)
	}
	return out, nil
}

// Wait implements [Runtime].
func (s *Supervisor) Wait(ctx context.Context, id string) (State, error) {
	w := &waiter{id: id, changed: make(chan struct{}, 1)}
	s.mu.Lock()
	s.waiters[w] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiters, w)
		s.mu.Unlock()
	}()
	for {
		st, err := s.client.State(ctx, id)
		if err != nil {
			return State{}, kinded(err)
		}
		if st.Status == client.Exited {
			if st.Unknown {
				st = s.recall(ctx, st)
			}
			if st.Error != "" {
				s.log.Warn("the end of a container is not fully known", "task", id, "reason", st.Error)
			}
			return stateOf(st), nil
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			return State{}, ctx.Err()
		}
	}
}

// Stats implements [Runtime].
func (s *Supervisor) Stats(ctx context.Context, id string) (client.Stats, error) {
	out, err := s.client.Stats(ctx, id)
	if errors.Is(err, client.ErrState) {
		return out, fault.Wrap(fault.NotFound, err)
	}
	return out, kinded(err)
}

// watch makes the node's own record of a container that an earlier run of the agent started.
func (s *Supervisor) watch(ctx context.Context, st client.State) {
	if st.Pid == 0 || s.witness.watches(st.ID) {
		return
	}
	s.witness.watch(st.ID, st.Pid)
	// If it was still running then, the number was its own.
	if now, err := s.client.State(ctx, st.ID); err != nil || now.Pid != st.Pid {
		s.witness.forget(st.ID)
	}
}

// recall completes the state of a container whose end the supervisor did not see, by what the kernel told the agent.
func (s *Supervisor) recall(ctx context.Context, st client.State) client.State {
	code, ok := s.witness.exit(ctx, st.ID)
	if !ok {
		return st
	}
	s.log.Info("the container supervisor did not see the end of a container; the kernel told", "task", st.ID, "exit_code", code)
	st.ExitCode, st.Unknown, st.Error = code, false, ""
	return st
}

// Kill implements [Runtime]. A process that has ended already is no error.
func (s *Supervisor) Kill(ctx context.Context, id string, sig unix.Signal) error {
	err := s.client.Kill(ctx, id, sig)
	if errors.Is(err, client.ErrState) {
		return nil
	}
	return kinded(err)
}

// Delete implements [Runtime].
func (s *Supervisor) Delete(ctx context.Context, id string) error {
	err := s.client.Delete(ctx, id)
	if err == nil || errors.Is(err, client.ErrNotFound) {
		s.witness.forget(id)
	}
	if !errors.Is(err, client.ErrState) {
		return kinded(err)
	}
	if err := s.client.KillAll(ctx, id); err != nil {
		return kinded(err)
	}
	if err := s.killed(ctx, id); err != nil {
		return kinded(err)
	}
	if err := s.client.Delete(ctx, id); err != nil {
		return kinded(err)
	}
	s.witness.forget(id)
	return nil
}

// killed waits until a container that was killed has ended. It asks, for an agent that ends takes back the starts under way when Run has ended
// already, and nobody hears events any more.
func (s *Supervisor) killed(ctx context.Context, id string) error {
	for pause := killedMin; ; pause = min(2*pause, killedMax) {
		st, err := s.client.State(ctx, id)
		if err != nil || st.Status == client.Exited {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func stateOf(s client.State) State {
	return State{
		ID: s.ID, Started: s.Status == client.Running || s.Status == client.Exited && !s.StartedAt.IsZero(),
		PID: s.Pid, ExitCode: s.ExitCode, OOMKilled: s.OOMKilled, Unknown: s.Unknown, Isolation: s.Enforced,
	}
}

// kinded gives an error of the supervisor its kind.
func kinded(err error) error {
	var connection *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrNotFound):
		return fault.Wrap(fault.NotFound, err)
	case errors.Is(err, client.ErrInvalid), errors.Is(err, client.ErrStart), errors.Is(err, client.ErrNoProgram):
		return fault.Wrap(fault.Invalid, err)
	case errors.As(err, &connection), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Unavailable, "the container supervisor does not answer, is skep-runtime running? %w", err)
	default:
		return fmt.Errorf("container supervisor: %w", err)
	}
}
