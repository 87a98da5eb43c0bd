package audit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
)

const (
	// linger is how long an event that nobody waits for waits for others.
	linger = 100 * time.Millisecond
	// retry is the pause after a try that failed.
	retry = time.Second
	// maxEvents bounds what one manager takes from another at once.
	maxEvents = 2 * maxWaiting
)

// methodDeliver is the method of the event that a secret went to a node.
const methodDeliver = "Dispatcher.Assignments"

// Config is what a Log needs; all fields are required.
type Config struct {
	// NodeID is this manager's.
	NodeID string
	Store  *store.Store
	// Send gets events to the leader, which answers with RecordAudit.
	Send   func(context.Context, *api.RecordAuditRequest) error
	Logger *slog.Logger
}

// Log is this manager's door to the audit log.
type Log struct {
	api.UnimplementedAuditServer

	// Constant after New.
	cfg      Config
	recorded map[string]*api.Access // by full method, those that are recorded whatever becomes of them
	// posted has room for one: there may be something in the queue.
	posted chan struct{}

	mu    sync.Mutex
	queue *queue // guarded by mu

	// recording is held while events of managers are written, so that two of them don't write one delivery.
	recording  sync.Mutex
	deliveries deliveries // guarded by recording
}

// New returns a Log. It starts nothing.
func New(cfg Config) (*Log, error) {
	if cfg.NodeID == "" || cfg.Store == nil || cfg.Send == nil || cfg.Logger == nil {
		return nil, errors.New("audit: NodeID, Store, Send and Logger are required")
	}
	return &Log{cfg: cfg, recorded: authz.Recorded(), posted: make(chan struct{}, 1), queue: newQueue(cfg.NodeID)}, nil
}

// ride is the store.Rider of a call.
type ride struct {
	event     *api.AuditEvent // of the call
	committed bool
}

// Event implements store.Rider.
func (r *ride) Event(changes []store.Change) []byte {
	e := proto.CloneOf(r.event)
	e.Result = resultOK
	describeChanges(e, changes)
	return chain.Encode(e)
}

// Committed implements store.Rider.
func (r *ride) Committed() { r.committed = true }

// Unary returns the interceptor that records calls. It comes after those that authorize and forward: a call is recorded where its handler
// runs.
func (l *Log) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		rule := l.recorded[info.FullMethod]
		if rule == nil {
			answer, err := handler(ctx, request)
			l.noteRefusal(ctx, info.FullMethod, request, err)
			return answer, err
		}
		r := &ride{event: l.describe(ctx, info.FullMethod, request)}
		answer, err := handler(context.WithValue(store.WithRider(ctx, r), eventKey{}, r.event), request)
		switch {
		case err != nil && fault.KindOf(err) == fault.NotLeader, err == nil && r.committed:
		case err == nil && rule.GetLeader():
			r.event.Result = resultOK
			if err := l.write(ctx, r.event); err != nil {
				return nil, err // what it hands out has no entry (I16)
			}
		default:
			r.event.Result = resultOf(err)
			l.Note(r.event)
		}
		return answer, err
	}
}

// Stream returns the interceptor for streams, whose requests are not looked at.
func (l *Log) Stream() grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if l.recorded[info.FullMethod] == nil {
			err := handler(srv, stream)
			l.noteRefusal(stream.Context(), info.FullMethod, nil, err)
			return err
		}
		e := l.describe(stream.Context(), info.FullMethod, nil)
		err := handler(srv, described{stream, e})
		e.Result = resultOf(err)
		l.Note(e)
		return err
	}
}

// described is a stream whose context has the event of its end.
type described struct {
	grpc.ServerStream
	event *api.AuditEvent
}

// Context implements grpc.ServerStream.
func (d described) Context() context.Context {
	return context.WithValue(d.ServerStream.Context(), eventKey{}, d.event)
}

// eventKey is the context key of the event of a call, or of the end of a stream.
type eventKey struct{}

// About says what a call does to which object, where its request and its changes of the store don't: for the entry of the call, which it
// returns, or nil if it has none. ctx is the call's, and the goroutine its handler's. The summary must not hold what is secret.
func (l *Log) About(ctx context.Context, kind, id, name, summary string) *api.AuditEvent {
	e, ok := ctx.Value(eventKey{}).(*api.AuditEvent)
	if !ok {
		return nil
	}
	e.ObjectKind, e.ObjectId, e.ObjectName, e.Summary = kind, id, name, summary
	return e
}

// Began takes in that a stream does something that lasts, to an object, of which nobody should have to wait for the end: it has an entry
// of its own. ctx is the stream's, and the goroutine its handler's. The summary must not hold what is secret.
func (l *Log) Began(ctx context.Context, kind, id, name, summary string) {
	e := l.About(ctx, kind, id, name, summary)
	if e == nil {
		return
	}
	begin := proto.CloneOf(e)
	begin.Result = resultOK
	l.Note(begin)
	e.Summary = "end of " + summary
}

// Ended says how what Began told of has ended, for the entry of the stream's end. It is called as Began is.
func (l *Log) Ended(ctx context.Context, how string) {
	if e, ok := ctx.Value(eventKey{}).(*api.AuditEvent); ok {
		e.Summary += "; " + how
	}
}

// noteRefusal records a call of which only refusals are recorded, if its handler refused it: such as for a task of another node.
func (l *Log) noteRefusal(ctx context.Context, method string, request any, err error) {
	switch fault.KindOf(fault.FromStatus(err)) {
	case fault.PermissionDenied, fault.Unauthenticated:
		e := l.describe(ctx, method, request)
		e.Result = resultOf(err)
		l.Note(e)
	}
}

// write commits an event in a transaction of its own.
func (l *Log) write(ctx context.Context, e *api.AuditEvent) error {
	err := l.cfg.Store.Update(ctx, "", func(tx store.Tx) error { return tx.Audit(chain.Encode(e)) })
	var notLeader *store.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		return fault.NewNotLeader(notLeader.LeaderAddr)
	case err == nil, errors.Is(err, store.ErrOutdated): // the log begins when all managers know it
		return nil
	default:
		return fault.Wrap(fault.Unavailable, err)
	}
}

// Note takes an event that nobody waits for: a call that failed, or one that is not made to the store. It never blocks. Exec and what
// else happens on nodes comes in by it.
func (l *Log) Note(e *api.AuditEvent) {
	l.mu.Lock()
	l.queue.add(time.Now(), e)
	l.mu.Unlock()
	l.post()
}

// Refused takes in a call that was refused.
func (l *Log) Refused(r authz.Refusal) {
	e := l.about(r.Caller, r.Method)
	e.Result = resultRefused
	l.Note(e)
}

// Delivered takes in that a version of a secret went to a node.
func (l *Log) Delivered(to authz.Caller, secret *api.Secret) {
	e := l.about(to, "/"+api.Dispatcher_ServiceDesc.ServiceName+"/Assignments")
	e.ObjectKind, e.ObjectId, e.ObjectName = "secret", secret.GetId(), secret.GetSpec().GetAnnotations().GetName()
	e.Result, e.Summary = resultOK, versionText(secret.GetVersion())
	l.mu.Lock()
	l.queue.deliver(time.Now(), e)
	l.mu.Unlock()
	l.post()
}

func (l *Log) post() {
	select {
	case l.posted <- struct{}{}:
	default:
	}
}

// Run gets what waits to the leader, until ctx ends, and then returns nil.
func (l *Log) Run(ctx context.Context) error {
	for {
		if !l.awaitTurn(ctx) {
			return nil
		}
		l.mu.Lock()
		events := l.queue.take(time.Now())
		l.mu.Unlock()
		if len(events) == 0 {
			continue
		}
		err := l.cfg.Send(ctx, &api.RecordAuditRequest{Events: events})
		if err == nil {
			continue
		}
		l.cfg.Logger.Warn("the leader does not take what belongs in the audit log, trying again", "events", len(events), "error", err)
		l.mu.Lock()
		l.queue.putBack(time.Now(), events)
		l.mu.Unlock()
		if !pause(ctx, retry) {
			return nil
		}
	}
}

// awaitTurn waits until there is something to send, and a little longer. It returns false when ctx ends.
func (l *Log) awaitTurn(ctx context.Context) bool {
	for {
		l.mu.Lock()
		rest, some := l.queue.next(time.Now())
		l.mu.Unlock()
		if some && rest == 0 {
			return pause(ctx, linger)
		}
		var turn <-chan time.Time
		if some {
			turn = time.After(rest)
		}
		select {
		case <-ctx.Done():
			return false
		case <-turn:
		case <-l.posted:
		}
	}
}

// pause waits, and says whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
