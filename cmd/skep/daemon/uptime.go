package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
	"github.com/skep-io/skep/store/wal"
)

const (
	// firstPause is how long a node that stopped by itself rests before it starts again; each further pause doubles, up to
	// longestPause. A machine that heals, such as a full disk that was cleared, is back within a minute.
	firstPause   = time.Second
	longestPause = time.Minute
)

// backoff decides how long a node rests before it is started again.
type backoff struct{ pause time.Duration }

// next returns the pause after a node that was up for a time: a long one was healthy, and its end is a new trouble.
func (b *backoff) next(up time.Duration) time.Duration {
	switch {
	case b.pause == 0 || up > longestPause:
		b.pause = firstPause
	default:
		b.pause = min(2*b.pause, longestPause)
	}
	return b.pause
}

// keepUp brings the node back that this machine was before a restart, and again whenever it stops by itself, until ctx ends.
func (d *Daemon) keepUp(ctx context.Context) {
	rest := &backoff{}
	for {
		started := time.Now()
		d.resume(ctx)
		d.resumedOnce.Do(func() { close(d.resumed) })
		select {
		case <-ctx.Done():
			return
		case <-d.fallen:
		}
		pause := time.NewTimer(rest.next(time.Since(started)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// ended notes that a node runs no more, and why.
func (d *Daemon) ended(n *node, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(n.done)
	if d.current == n {
		d.current = nil
	}
	if err == nil {
		return
	}
	d.broken = err
	d.unlock = n.unlockKey()
	d.logger.Error("the node stopped; it starts again soon", "error", err)
	d.fell()
}

// fell makes keepUp try again. The caller holds no lock, or mu.
func (d *Daemon) fell() {
	select {
	case d.fallen <- struct{}{}:
	default: // one signal is as good as two
	}
}

// resume makes the node run that this machine is by its disk, unless it runs. What stops it is shown by `skep info`: the daemon
// goes on, so that the node can be unlocked or can leave.
func (d *Daemon) resume(ctx context.Context) {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.mu.Lock()
	idle, unlock := d.current == nil && !d.locked, d.unlock
	d.mu.Unlock()
	if !idle {
		return
	}
	err := d.resumeFromDisk(ctx, unlock)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, keyfile.ErrLocked):
		d.locked, d.broken = true, nil
		d.logger.Warn("the node is locked: run `skep swarm unlock`")
	default:
		d.broken = err
		d.logger.Error("the node can't come back", "error", err)
		if !lasting(err) {
			d.fell()
		}
	}
}

// resumeFromDisk goes on from wherever a crash stopped this machine: in a swarm, in none, or on the way.
func (d *Daemon) resumeFromDisk(ctx context.Context, unlock seal.Key) error {
	m, member, err := d.disk.membership()
	switch {
	case err != nil:
		return err
	case member && !m.Leaving:
		return errors.Join(d.disk.removeApplicant(), d.comeBack(ctx, m, unlock))
	case !member:
		d.resumeApplicant()
	}
	// What is there belongs to a swarm that this node left, or did not quite enter.
	if err := d.clearContainers(ctx); err != nil {
		return err
	}
	return d.disk.forget()
}

// lasting reports whether an error is about what is on the disk: trying again finds it there again.
func lasting(err error) bool {
	for _, sentinel := range []error{
		errMembership, keyfile.ErrCorrupt, wal.ErrCorrupt, wal.ErrFormat, seal.ErrFormat, seal.ErrWrongKey, seal.ErrKeyFile,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// comeBack starts the node that this machine was before a restart. It returns keyfile.ErrLocked when that needs the unlock key,
// and none, or another one, was given.
func (d *Daemon) comeBack(ctx context.Context, m membership, unlock seal.Key) error {
	m, err := d.relocate(m)
	if err != nil {
		return err
	}
	_, source, err := store.Inspect(vfs.OS{}, d.disk.path(storeDir))
	if err != nil && !errors.Is(err, wal.ErrNone) {
		return storeFault(err)
	}
	u, err := d.unseal(ctx, source, unlock)
	if err != nil {
		return err
	}
	n := d.newNode(m, u.keys, ca.NewIdentity(u.credentials), u.kek, u.source)
	if err := n.openStore(); err != nil {
		switch {
		case !errors.Is(err, seal.ErrWrongKey):
			return storeFault(err)
		case u.source == seal.SourceUnlockKey:
			return keyfile.ErrLocked
		}
		return d.own.fault(u.source, err)
	}
	if err := d.launch(ctx, n); err != nil {
		n.stop()
		return err
	}
	return nil
}

// storeFault gives an error of a store that does not open its kind, and the way out.
func storeFault(err error) error {
	var corrupt *wal.CorruptError
	switch {
	case errors.As(err, &corrupt):
		what := corrupt.What
		if corrupt.Index > 0 {
			what = fmt.Sprintf("%s %d", what, corrupt.Index)
		}
		return fault.New(fault.Precondition, "%s is %w: this manager takes no part in the swarm, and does not use its copy of the cluster store. "+
			"If other managers have the data, `skep swarm rejoin` here gets it from them", what, wal.ErrCorrupt)
	case lasting(err):
		return fault.Wrap(fault.Precondition, err)
	}
	return err
}

// reason is why the last node stopped.
func (d *Daemon) reason() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	return errStopped
}

// unlockKey returns the unlock key that opens this node, or the zero value.
func (n *node) unlockKey() seal.Key {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.source == seal.SourceUnlockKey {
		return n.kek
	}
	return seal.Key{}
}

// await returns when the node takes part in its swarm, as a manager too when it is one, or can't, or the managers refuse it.
func (n *node) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, joinPatience, errors.New("the managers did not answer in time"))
	defer cancel()
	if err := n.awaitEvent(ctx, n.ready); err != nil || n.identity.Role() != api.Role_ROLE_MANAGER {
		return err
	}
	return n.awaitEvent(ctx, n.grouped)
}

func (n *node) awaitEvent(ctx context.Context, event <-chan struct{}) error {
	select {
	case <-event:
		return nil
	case <-n.done:
		return fmt.Errorf("the node stopped: %w", n.daemon.reason())
	case <-n.refused:
		return n.joinProblem()
	case <-ctx.Done():
		if err := n.joinProblem(); err != nil {
			return fault.New(fault.Unavailable, "%w: %w", context.Cause(ctx), err)
		}
		return fault.Wrap(fault.Unavailable, context.Cause(ctx))
	}
}
