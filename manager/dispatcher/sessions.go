package dispatcher

import (
	"errors"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// A node may register registerBurst times within registerWindow, as in Swarm: a node in trouble must not keep managers busy.
const (
	registerBurst  = 3
	registerWindow = 8 * time.Second
)

// missedHeartbeats is the number of periods without a heartbeat after which a session ends, or a node is down.
const missedHeartbeats = 3

// Why a session ended, for its streams.
var (
	errSuperseded = errors.New("the node registered anew")
	errSilent     = errors.New("no heartbeat for three periods")
	errClosed     = errors.New("its stream ended")
)

// invalidSession is the answer to every RPC that names a session which isn't there.
func invalidSession() error {
	return fault.New(fault.Invalid, "session invalid: register again")
}

// session is an agent's registration at this manager.
type session struct {
	// Constant.
	id     string
	nodeID string
	ended  chan struct{} // closed when the session ends
	wake   chan struct{} // has room for one: something may have changed for the session's stream
	// Guarded by Dispatcher.mu.
	heard   time.Time // the last heartbeat
	cause   error     // why it ended, once ended is closed
	streams int       // of assignments
	// said is what the node registered with, or nil once the node has used the session, and the leader is told.
	said *introduction
}

// introduction is what a node says of itself when it registers.
type introduction struct {
	at          time.Time
	address     string               // the machine's, without a port
	description *api.NodeDescription // nil when it did not change
	tls         *api.NodeTLS         // nil when the node did not say
}

// sessions is the core that holds them. The zero value is not usable, see newSessions.
type sessions struct {
	byNode map[string]*session
	// registered holds the times of each node's last registrations, at most registerBurst of them.
	registered map[string][]time.Time
}

func newSessions() *sessions {
	return &sessions{byNode: map[string]*session{}, registered: map[string][]time.Time{}}
}

// register begins a session with a given id and ends the node's former one. It returns an error if the node does so too often.
func (c *sessions) register(nodeID, id string, said introduction) (*session, error) {
	now := said.at
	c.forget(now)
	times := c.registered[nodeID]
	if len(times) == registerBurst {
		return nil, fault.New(fault.Unavailable, "node %s registers too often: %d times within %v are allowed, try again later",
			nodeID, registerBurst, registerWindow)
	}
	c.registered[nodeID] = append(times, now)
	if old := c.byNode[nodeID]; old != nil {
		c.end(old, errSuperseded)
	}
	s := &session{id: id, nodeID: nodeID, ended: make(chan struct{}), wake: make(chan struct{}, 1), heard: now, said: &said}
	c.byNode[nodeID] = s
	return s, nil
}

// forget drops registrations that are too long ago to count, of all nodes, so that nothing is kept of those that left.
func (c *sessions) forget(now time.Time) {
	for nodeID, times := range c.registered {
		for len(times) > 0 && now.Sub(times[0]) >= registerWindow {
			times = times[1:]
		}
		if len(times) == 0 {
			delete(c.registered, nodeID)
		} else {
			c.registered[nodeID] = times
		}
	}
}

// find returns the node's session if it has that id.
func (c *sessions) find(nodeID, id string) (*session, error) {
	s := c.byNode[nodeID]
	if s == nil || s.id != id {
		return nil, invalidSession()
	}
	return s, nil
}

// end ends a session. It may be called more than once.
func (c *sessions) end(s *session, cause error) {
	if c.byNode[s.nodeID] == s {
		delete(c.byNode, s.nodeID)
	}
	if s.cause == nil {
		s.cause = cause
		close(s.ended)
	}
}

// signal wakes the session's stream.
func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
