package audit

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

const (
	// perMessage is how many entries come in a message.
	perMessage = 500
	// maxLimit bounds the entries that are collected for the last of them.
	maxLimit = 100_000
	// patience bounds how long a reader waits for a majority of managers: several elections.
	patience = 10 * time.Second
)

var errNoMajority = fault.New(fault.Unavailable, "The swarm does not have a leader. It's possible that too few managers are online. "+
	"Make sure more than half of the managers are online.")

// ReadAudit sends the log and its entries.
func (l *Log) ReadAudit(request *api.ReadAuditRequest, stream grpc.ServerStreamingServer[api.ReadAuditResponse]) error {
	if n := request.GetLimit(); n > maxLimit {
		return fault.New(fault.Invalid, "limit: at most %d entries are shown, got %d: export all of them", maxLimit, n)
	}
	ctx := stream.Context()
	// The watch begins before the view: what comes in between is seen by both, and sent once.
	watcher, err := l.cfg.Store.Watch(ctx, 0, object.KindAuditSegment)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err)
	}
	r := &reader{request: request, send: stream.Send, last: request.GetAfter()}
	if err := l.view(ctx, r.begin); err != nil || !request.GetFollow() {
		return err
	}
	for {
		_, err := watcher.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, store.ErrResync): // the sequence number says where to go on
			watcher, err = l.cfg.Store.Watch(ctx, 0, object.KindAuditSegment)
		}
		if err == nil {
			err = l.cfg.Store.View(r.goOn)
		}
		if err != nil {
			return fault.Wrap(fault.Unavailable, err)
		}
	}
}

// view calls fn with a linearizable snapshot.
func (l *Log) view(ctx context.Context, fn func(store.ReadTx) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoMajority)
	defer cancel()
	if err := l.cfg.Store.Barrier(ctx); err != nil {
		if fault.KindOf(err) == fault.Internal {
			err = fault.Wrap(fault.Unavailable, err)
		}
		return err
	}
	return l.cfg.Store.View(fn)
}

// reader sends entries in their order.
type reader struct {
	request *api.ReadAuditRequest
	send    func(*api.ReadAuditResponse) error
	last    uint64 // the sequence number of the last entry that was looked at
	batch   []*api.AuditEntry
}

// begin sends the log, and the entries that it has.
func (r *reader) begin(tx store.ReadTx) error {
	log, err := r.log(tx)
	if err != nil {
		return err
	}
	if err := r.send(&api.ReadAuditResponse{Log: log}); err != nil {
		return err
	}
	return r.entries(tx, int(r.request.GetLimit()))
}

// goOn sends the entries that came since.
func (r *reader) goOn(tx store.ReadTx) error { return r.entries(tx, 0) }

// log describes the log, beginning where the first entry is that is to be sent.
func (r *reader) log(tx store.ReadTx) (*api.AuditLog, error) {
	head, err := store.AuditHead(tx)
	if err != nil {
		return nil, err
	}
	cluster, err := store.TheCluster(tx)
	if err != nil || cluster == nil {
		return nil, errors.Join(err, fault.New(fault.Unavailable, "the swarm is not set up yet: try again in a moment"))
	}
	log := &api.AuditLog{ClusterId: cluster.GetId(), Head: head}
	if head == nil {
		log.Head = &api.AuditHead{Hash: chain.Genesis(log.GetClusterId())}
		log.Anchor = log.GetHead()
		return log, nil
	}
	if r.last > head.GetSequence() {
		return nil, fault.New(fault.NotFound, "the audit log ends at entry %d, and has none after %d: is this an older state of the swarm?",
			head.GetSequence(), r.last)
	}
	log.Anchor, err = r.skip(tx)
	return log, err
}

// skip moves to before the first entry that is to be sent, and returns that place.
func (r *reader) skip(tx store.ReadTx) (*api.AuditHead, error) {
	segments, err := store.List[*api.AuditSegment](tx)
	if err != nil {
		return nil, err
	}
	var at *api.AuditHead
	for _, s := range segments {
		if at == nil {
			at = chain.Anchor(s)
		}
		if chain.Head(s).GetSequence() <= r.last || s.GetMeta().GetUpdatedAt().AsTime().Before(r.since()) {
			at = chain.Head(s)
			continue
		}
		for link, err := range chain.Links(s) {
			if err != nil {
				return nil, err
			}
			if link.Sequence > r.last && link.At >= r.since().UnixNano() {
				r.last = at.GetSequence()
				return at, nil
			}
			at = &api.AuditHead{Sequence: link.Sequence, Hash: link.Hash}
		}
	}
	r.last = at.GetSequence()
	return at, nil
}

func (r *reader) since() time.Time {
	if r.request.GetSince() == nil {
		return time.Unix(0, 0)
	}
	return r.request.GetSince().AsTime()
}

// entries sends what is after the last entry that was looked at: all, or the last few that match.
func (r *reader) entries(tx store.ReadTx, limit int) error {
	err := each(tx, r.last, func(e *api.AuditEntry) error {
		r.last = e.GetSequence()
		if !matches(r.request, e) {
			return nil
		}
		r.batch = append(r.batch, e)
		switch {
		case limit > 0 && len(r.batch) >= 2*limit:
			r.batch = append(r.batch[:0], r.batch[len(r.batch)-limit:]...)
		case limit == 0 && len(r.batch) >= perMessage:
			return r.flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if limit > 0 && len(r.batch) > limit {
		r.batch = r.batch[len(r.batch)-limit:]
	}
	return r.flush()
}

// flush sends what was collected.
func (r *reader) flush() error {
	for len(r.batch) > 0 {
		n := min(len(r.batch), perMessage)
		if err := r.send(&api.ReadAuditResponse{Entries: r.batch[:n]}); err != nil {
			return err
		}
		r.batch = r.batch[n:]
	}
	r.batch = nil
	return nil
}

// matches reports whether an entry is one that a reader wants.
func matches(want *api.ReadAuditRequest, e *api.AuditEntry) bool {
	event := e.GetEvent()
	if until := want.GetUntil(); until != nil && !e.GetTime().AsTime().Before(until.AsTime()) {
		return false
	}
	return oneOf(want.GetCaller(), event.GetCaller(), event.GetCallerKind(), event.GetAddress(), hostOf(event.GetAddress())) &&
		oneOf(want.GetMethod(), event.GetMethod(), afterDot(event.GetMethod())) &&
		oneOf(want.GetObject(), event.GetObjectKind(), event.GetObjectId(), event.GetObjectName(), event.GetObjectKind()+"/"+event.GetObjectName()) &&
		oneOf(want.GetResult(), event.GetResult())
}

// oneOf reports whether want is empty or among the given.
func oneOf(want string, given ...string) bool {
	if want == "" {
		return true
	}
	for _, text := range given {
		if text == want {
			return true
		}
	}
	return false
}
