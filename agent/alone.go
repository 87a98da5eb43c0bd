package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/internal/fault"
)

// alonePatience is how long after its start a node waits for a manager to tell its tasks, before it starts again by itself what ran there. It
// is longer than managers that were started together need for an election, and than a session takes.
const alonePatience = 10 * time.Second

// Why a node does not start tasks by itself.
var (
	errNotValid = errors.New("this node's certificate is not valid at the time that its clock shows: without a manager it starts no task again")
	errRefused  = errors.New("a manager refused this node: it starts no task again by itself")
)

// startAlone starts tasks again that the machine's restart ended, if no manager tells in time what is to become of them.
func (a *Agent) startAlone(ctx context.Context) error {
	select {
	case <-a.tasks.Adopted():
	case <-ctx.Done():
		return nil
	}
	for told := error(nil); ; {
		select {
		case <-time.After(a.cfg.AlonePatience):
		case <-a.assigned:
			return nil
		case <-ctx.Done():
			return nil
		}
		err := a.mayStartAlone(time.Now())
		if err == nil {
			return a.becomeAlone(ctx)
		}
		if !errors.Is(err, told) {
			a.log.Warn("no manager has told this node its tasks", "error", err)
			told = err
		}
	}
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

// heardRefusal notes whether a manager that was reached does not know this node, or does so no more.
func (a *Agent) heardRefusal(err error) {
	kind := fault.KindOf(err)
	if kind != fault.PermissionDenied && kind != fault.Unauthenticated {
		return
	}
	a.mu.Lock()
	a.refused = true
	a.mu.Unlock()
	a.sealUp()
}

// Refused reports whether a manager refused this node when it was asked last: it was removed from the swarm.
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
