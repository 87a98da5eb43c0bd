package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/skep-io/skep/agent/session"
	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/internal/atomicfile"
)

// alonePatience is how long after its start a node waits for a manager to tell its tasks, before it starts again by itself what ran there. It
// is longer than managers that were started together need for an election, and than a session takes.
const alonePatience = 10 * time.Second

// sessionPatience is how many times as long it waits while it has a session: that manager is there, and may be catching up with what the swarm
// decided meanwhile.
const sessionPatience = 6

// refusedFile is in the agent's directory while a manager's refusal of this node is the last word.
const refusedFile = "refused"

// Why a node does not start tasks by itself.
var (
	errNotValid = errors.New("this node's certificate is not valid at the time that its clock shows: without a manager it starts no task again")
	errRefused  = errors.New("a manager refused this node: it starts no task again by itself")
)

// startAlone starts tasks again that the machine's restart ended, if no manager tells in time what is to become of them, and until one refuses this
// node: what waits then is given up.
func (a *Agent) startAlone(ctx context.Context) error {
	select {
	case <-a.tasks.Adopted():
	case <-ctx.Done():
		return nil
	}
	if !a.staysAlone(ctx) {
		return nil
	}
	if err := a.becomeAlone(ctx); err != nil {
		return err
	}
	select {
	case <-a.refusal:
	case <-a.assigned:
		return nil
	case <-ctx.Done():
		return nil
	}
	if err := a.tasks.NotAlone(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// staysAlone waits until this node may start tasks without being told to, or returns false because a manager told, or ctx ended.
func (a *Agent) staysAlone(ctx context.Context) bool {
	begun := time.Now()
	for told := error(nil); ; {
		select {
		case <-time.After(a.cfg.AlonePatience):
		case <-a.assigned:
			return false
		case <-ctx.Done():
			return false
		}
		err := a.mayStartAlone(time.Now())
		if err == nil && (!a.inSession() || time.Since(begun) >= sessionPatience*a.cfg.AlonePatience) {
			return true
		}
		if err != nil && !errors.Is(err, told) {
			a.log.Warn("no manager has told this node its tasks", "error", err)
			told = err
		}
	}
}

func (a *Agent) inSession() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.registered
}

// mayStartAlone returns why this node may not start tasks without being told to, or nil. A machine that was removed from the swarm, or stolen,
// can't know: it goes on no longer than its certificate does.
func (a *Agent) mayStartAlone(now time.Time) error {
	leaf := a.cfg.Identity.Current().Chain()[0]
	switch {
	case a.Refused():
		return errRefused
	case now.Before(leaf.NotBefore) || !now.Before(leaf.NotAfter):
		return errNotValid
	}
	return nil
}

// becomeAlone starts tasks again, with what the vault has of their secrets.
func (a *Agent) becomeAlone(ctx context.Context) error {
	a.log.Warn("no manager has told this node its tasks: it starts those again that ended with the machine, if any")
	a.unseal()
	if err := a.tasks.Alone(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	a.wakeUp() // those that never ran
	return nil
}

// recallRefusal takes in what the last run heard.
func (a *Agent) recallRefusal() error {
	switch _, err := os.Lstat(a.refusedPath()); {
	case err == nil:
		a.refused = true
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("learn whether a manager refused this node: %w", err)
	}
	return nil
}

func (a *Agent) refusedPath() string { return filepath.Join(a.cfg.DataDir, agentDir, refusedFile) }

// heardRefusal notes that a manager does not know this node, or does so no more. The mark is on the disk before anything follows from it.
func (a *Agent) heardRefusal(err error) {
	if !errors.As(err, new(*session.RefusedError)) {
		return
	}
	if _, err := os.Lstat(a.refusedPath()); err == nil && a.Refused() {
		return
	}
	if err := atomicfile.Write(a.refusedPath(), []byte(err.Error()+"\n"), 0o600); err != nil {
		a.log.Error("after a restart this node will not know that a manager refused it", "error", err)
	}
	a.setRefused(true)
	signal(a.refusal)
	a.sealUp()
}

// forgetRefusal takes in that a manager told this node all of its tasks: it is part of the swarm.
func (a *Agent) forgetRefusal() {
	if !a.Refused() {
		return
	}
	if err := atomicfile.Remove(a.refusedPath()); err != nil {
		a.log.Error("this node goes on as one that managers refuse: it can't forget that one did", "error", err)
		return
	}
	a.setRefused(false)
}

func (a *Agent) setRefused(refused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused = refused
}

// Refused reports whether a manager refused this node, and none told its tasks since: it was removed from the swarm.
func (a *Agent) Refused() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// Waiting says of each task what it waits for that this node is to start again by itself.
func (a *Agent) Waiting() []string {
	tasks := a.tasks.Tasks()
	var out []string
	for id, s := range a.tasks.Statuses() {
		if task.Reviving(s) {
			out = append(out, fmt.Sprintf("no manager is in reach, and this node is to start %s.%d again, task %s: %s",
				tasks[id].GetServiceName(), tasks[id].GetSlot(), id, s.GetErr()))
		}
	}
	slices.Sort(out)
	return out
}
