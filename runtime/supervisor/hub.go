package supervisor

import (
	"github.com/skep-io/skep/runtime/protocol"
)

// maxQueue is how far a subscriber may fall behind before it is cut off. It loses nothing by that: the next
// subscription begins with the state of everything.
const maxQueue = 4096

// subscriber is one event stream.
type subscriber struct {
	events chan *protocol.Event // closed when the subscriber was cut off or has left; what it gives is not to be modified
}

// subscribe begins a stream: the states of all containers, then every change from there on. The caller ends it with
// unsubscribe.
func (s *Supervisor) subscribe() *subscriber {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	sub := &subscriber{events: make(chan *protocol.Event, len(s.containers)+maxQueue)}
	for _, state := range s.statesLocked() {
		sub.events <- &protocol.Event{Type: protocol.EventSnapshot, Time: now, State: state}
	}
	sub.events <- &protocol.Event{Type: protocol.EventSynced, Time: now}
	s.subscribers[sub] = true
	return sub
}

func (s *Supervisor) unsubscribe(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutOffLocked(sub)
}

func (s *Supervisor) cutOffLocked(sub *subscriber) {
	if s.subscribers[sub] {
		delete(s.subscribers, sub)
		close(sub.events)
	}
}

// announceLocked tells every subscriber, without waiting for any.
func (s *Supervisor) announceLocked(e protocol.Event) {
	for sub := range s.subscribers {
		select {
		case sub.events <- &e:
		default:
			s.cutOffLocked(sub)
		}
	}
}
