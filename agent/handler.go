package agent

import (
	"context"

	"github.com/skep-io/skep/agent/executor"
	"github.com/skep-io/skep/agent/images"
	"github.com/skep-io/skep/api"
)

// handler is the agent as its session sees it.
type handler struct{ a *Agent }

// Registered implements session.Handler.
func (h handler) Registered(r *api.SessionResponse) {
	a := h.a
	a.mu.Lock()
	begun := a.sessionID != r.GetSessionId()
	a.sessionID, a.registered = r.GetSessionId(), true
	a.mu.Unlock()
	if begun {
		// What the last manager heard may not have reached the leader.
		for id, s := range a.tasks.Statuses() {
			a.session.Report(id, s)
		}
		a.identities.Retry()
		a.wakeUp()
	}
	if a.cfg.Registered != nil {
		a.cfg.Registered(r)
	}
}

// Disconnected implements session.Handler.
func (h handler) Disconnected(err error) {
	h.a.mu.Lock()
	h.a.registered = false
	h.a.mu.Unlock()
	h.a.heardRefusal(err)
	if h.a.cfg.Disconnected != nil {
		h.a.cfg.Disconnected(err)
	}
}

// Assign implements session.Handler. Secrets are here before the tasks that need them.
func (h handler) Assign(ctx context.Context, complete bool, changes []*api.AssignmentChange) error {
	a := h.a
	a.assigning.Lock()
	defer a.assigning.Unlock()
	s := a.sort(changes)
	for _, v := range s.secrets {
		a.secrets.Put(v.GetId(), v.GetVersion(), v.GetSpec().GetData())
		clear(v.GetSpec().GetData())
	}
	if err := a.tasks.Assign(ctx, complete, s.tasks, s.tasksGone); err != nil {
		return err
	}
	if complete {
		a.assignedOnce.Do(func() { close(a.assigned) })
		a.setAbsent(nil)
		a.forgetRefusal()
	}
	for _, id := range s.secretsGone {
		a.secrets.Remove(id)
	}
	if complete {
		kept := map[string]bool{}
		for _, v := range s.secrets {
			kept[v.GetId()] = true
		}
		a.secrets.Retain(func(id string) bool { return kept[id] })
	}
	if len(s.secrets) > 0 {
		a.wakeUp()
	}
	a.sealUp()
	return nil
}

// sorted are changes by what they mean.
type sorted struct {
	tasks                  []*api.Task
	secrets                []*api.Secret
	tasksGone, secretsGone []string
}

// sort passes over what isn't for this node (I7): a manager that sends it has a defect.
func (a *Agent) sort(changes []*api.AssignmentChange) sorted {
	var s sorted
	for _, c := range changes {
		gone := c.GetAction() == api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE
		switch o := c.GetObject().(type) {
		case *api.AssignmentChange_Task:
			switch {
			case gone:
				s.tasksGone = append(s.tasksGone, o.Task.GetId())
			case o.Task.GetNodeId() != a.cfg.Identity.NodeID():
				a.log.Error("a manager assigned a task of another node, refusing it", "task", o.Task.GetId())
			default:
				s.tasks = append(s.tasks, o.Task)
			}
		case *api.AssignmentChange_Secret:
			if gone {
				s.secretsGone = append(s.secretsGone, o.Secret.GetId())
			} else {
				s.secrets = append(s.secrets, o.Secret)
			}
		}
	}
	return s
}

// wakeUp has waiting tasks try again. It doesn't block.
func (a *Agent) wakeUp() { signal(a.wake) }

// signal gives a channel with room for one a signal, unless it has it.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// imagesOf are the node's images as the executor sees them.
type imagesOf struct{ peers *images.Peer }

// Acquire implements executor.Images.
func (i imagesOf) Acquire(ctx context.Context, reference string) (executor.Image, error) {
	img, err := i.peers.Acquire(ctx, reference)
	return executor.Image(img), err
}

// secretsOf are the node's secrets as the executor sees them.
type secretsOf struct{ a *Agent }

// Reveal implements executor.Secrets.
func (s secretsOf) Reveal(id string) ([]byte, uint64, bool) {
	v, ok := s.a.secrets.Get(id)
	return v.Reveal(), v.Version(), ok
}

// Absence implements executor.Secrets.
func (s secretsOf) Absence(id string) string {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	return s.a.absent[id]
}
