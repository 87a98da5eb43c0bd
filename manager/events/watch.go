package events

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store/object"
)

const (
	// maxWatches bounds the watches of a manager at once.
	maxWatches = 512
	// perMessage bounds the events of a message, and with it what a watch holds.
	perMessage = 128
	// silent is how many events may pass by a watch's filters before it is told how far it is.
	silent = 2048
)

// watch is one call of WatchEvents. It belongs to its goroutine.
type watch struct {
	log          *Log
	filter       filter
	since, until time.Time // zero is unbounded
	secrets      bool      // whether the caller may know which secrets there are
	send         func(*api.WatchEventsResponse) error

	// next is the number of the event to look at next, and position the place before it.
	next     uint64
	position cursor
	// untold counts the events that were looked at since the last response.
	untold int
}

// WatchEvents implements api.EventsServer.
func (l *Log) WatchEvents(r *api.WatchEventsRequest, stream grpc.ServerStreamingServer[api.WatchEventsResponse]) error {
	w, err := l.newWatch(r)
	if err != nil {
		return err
	}
	w.send = stream.Send
	if w.secrets = mayKnowSecrets(stream.Context()); !w.secrets && w.filter.names(object.KindSecret.String()) {
		return fault.New(fault.PermissionDenied, "events of secrets are for operators and admins")
	}
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	index, err := l.catchUp(stream.Context())
	if err != nil {
		return err
	}
	if err := w.start(r.GetAfter(), index); err != nil {
		return err
	}
	return w.run(stream.Context())
}

// mayKnowSecrets says whether a caller may list secrets (V5).
func mayKnowSecrets(ctx context.Context) bool {
	kind := authz.FromContext(ctx).Kind
	return kind == api.Caller_CALLER_ADMIN || kind == api.Caller_CALLER_OPERATOR
}

func (l *Log) newWatch(r *api.WatchEventsRequest) (*watch, error) {
	w := &watch{log: l}
	var err error
	if w.filter, err = newFilter(r.GetFilters()); err != nil {
		return nil, err
	}
	for _, t := range []struct {
		name  string
		given *timestamppb.Timestamp
		to    *time.Time
	}{{"since", r.GetSince(), &w.since}, {"until", r.GetUntil(), &w.until}} {
		if t.given == nil {
			continue
		}
		if t.given.CheckValid() != nil {
			return nil, fault.New(fault.Invalid, "%s: is not a valid time", t.name)
		}
		*t.to = t.given.AsTime()
	}
	if r.GetAfter() != "" && !w.since.IsZero() {
		return nil, fault.New(fault.Invalid, "after and since exclude each other: a place among events says more than a time")
	}
	return w, nil
}

func (l *Log) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watches == maxWatches {
		return fault.New(fault.Exhausted, "this manager has %d watches of events already: end some, or ask another manager", maxWatches)
	}
	l.watches++
	return nil
}

func (l *Log) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watches--
}

// start finds the place to begin at, and says so. The index is the last one that happened.
func (w *watch) start(after string, index uint64) error {
	w.log.mu.Lock()
	ring := &w.log.ring
	since, last := ring.since, ring.last()
	w.next, w.position = ring.end(), last
	if !w.since.IsZero() {
		w.next, w.position = ring.first, ring.base
	}
	var at cursor
	var err error
	kept := true
	if after != "" {
		if at, err = parseCursor(after); err == nil {
			w.next, kept = ring.seek(at)
			w.position = at
		}
	}
	w.log.mu.Unlock()
	switch {
	case err != nil:
		return err
	case !kept:
		return w.lost(at, last)
	case at.index > max(index, last.index):
		return fault.New(fault.Invalid, "after: the log of the swarm has no entry %d yet: its last one is %d", at.index, index)
	}
	return w.send(&api.WatchEventsResponse{Position: w.position.String(), CompleteSince: timestamppb.New(since)})
}

// lost is the error for events that are not kept (V1).
func (w *watch) lost(after, last cursor) error {
	return fault.New(fault.Exhausted, "the events after %s are not kept any more by this manager: look at the state as it is now (`skep service ls`, `skep node ls`), "+
		"and go on after %s", after, last)
}

// run sends events until the time is over.
func (w *watch) run(ctx context.Context) error {
	var over <-chan time.Time // never
	ended := false
	if left := time.Until(w.until); !w.until.IsZero() && left <= 0 {
		ended = true
	} else if !w.until.IsZero() {
		timer := time.NewTimer(left)
		defer timer.Stop()
		over = timer.C
	}
	for {
		more, err := w.step()
		switch {
		case err != nil:
			return err
		case more:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			continue
		case ended:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.followed():
		case <-over:
			if _, err := w.log.catchUp(ctx); err != nil {
				return err
			}
			ended = true
		}
	}
}

// followed returns a channel that is closed when there is more to look at; it may be at once.
func (w *watch) followed() <-chan struct{} {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	if w.next != w.log.ring.end() {
		c := make(chan struct{})
		close(c)
		return c
	}
	return w.log.followed
}

// step looks at a few events and sends those that are wanted; more is false when there were none.
func (w *watch) step() (more bool, err error) {
	w.log.mu.Lock()
	events, kept := w.log.ring.read(w.next, perMessage)
	last := w.log.ring.last()
	w.log.mu.Unlock()
	if !kept {
		return false, w.lost(w.position, last)
	}
	if len(events) == 0 {
		return false, nil
	}
	out := &api.WatchEventsResponse{}
	for i := range events {
		if e := &events[i]; w.wants(e) {
			out.Events = append(out.Events, e.message())
		}
	}
	w.next += uint64(len(events))
	w.position = events[len(events)-1].at
	w.untold += len(events)
	if len(out.Events) == 0 && w.untold < silent {
		return true, nil
	}
	w.untold = 0
	out.Position = w.position.String()
	return true, w.send(out)
}

func (w *watch) wants(e *entry) bool {
	if !w.secrets && of(e, object.KindSecret) {
		return false
	}
	return !e.time.Before(w.since) && (w.until.IsZero() || !e.time.After(w.until)) && w.filter.passes(e)
}

// message is the event as people get it.
func (e *entry) message() *api.Event {
	out := &api.Event{
		Cursor: e.at.String(), Index: e.at.index, Time: timestamppb.New(e.time), Type: e.kind, Action: e.action, ActorId: e.id,
		Attributes: map[string]string{}, Labels: e.labels,
	}
	for _, a := range e.attributes {
		out.Attributes[a.key] = a.value
	}
	return out
}
