package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// callTimeout bounds each RPC that answers at once; Docker Swarm's.
	callTimeout = 5 * time.Second
	// heartbeatTimeoutMin and heartbeatTimeoutMax bound the time that a manager has to answer a heartbeat. A manager that
	// hangs, or whose host is cut off, is given up after one that is missed.
	heartbeatTimeoutMin = time.Second
	heartbeatTimeoutMax = 3 * time.Second
	// heartbeatJitter is the part of the period by which a heartbeat comes early at most.
	heartbeatJitter = 0.1
	// heartbeatMin is the shortest period that a manager can ask for.
	heartbeatMin = 100 * time.Millisecond
	// heartbeatDefault is the period while a manager names none; Docker Swarm's.
	heartbeatDefault = 5 * time.Second
	// describeLinger is the time that a change of the description waits for others.
	describeLinger = 200 * time.Millisecond
	// maxMessage is the most bytes of one message: managers that know of no parts send all that a node gets in one.
	maxMessage = 64 << 20
)

var (
	errConnect  = errors.New("the manager did not accept a connection in time")
	errRegister = errors.New("the manager did not answer the registration in time")
	errGone     = errors.New("the machine of the manager is gone: neither this node nor others can reach it")
	errEnded    = errors.New("the manager ended the session")
)

// session is a registration with one manager.
type session struct {
	// constant after the registration
	c       *Client
	id      string
	manager string // its address
	client  api.DispatcherClient
	ca      api.CAClient
	stream  grpc.ServerStreamingClient[api.SessionResponse]
	cancel  context.CancelCauseFunc // ends it
	// periods hands a new period of heartbeats to the goroutine that sends them; it has room for one.
	periods chan time.Duration
	doubts  chan struct{} // has room for one: others can't reach the manager
}

// session runs one session and returns why it ended.
func (c *Client) session(ctx context.Context, a attempt) error {
	conn, err := c.cfg.Dial(a.address)
	if err != nil {
		return fmt.Errorf("dial manager %s: %w", a.address, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{c: c, manager: a.address, client: api.NewDispatcherClient(conn), ca: api.NewCAClient(conn), periods: make(chan time.Duration, 1), doubts: make(chan struct{}, 1), cancel: cancel}
	first, err := s.register(ctx, conn, a.connect)
	if err != nil {
		return fmt.Errorf("register with manager %s: %w", a.address, reason(ctx, err))
	}
	c.log.Info("registered with a manager", "manager", a.address)
	s.id = first.GetSessionId()
	s.heard(first)
	c.setCurrent(s)
	defer c.setCurrent(nil)
	return fmt.Errorf("session with manager %s: %w", a.address, s.run(ctx))
}

// register opens the session's stream and waits for its first message.
func (s *session) register(ctx context.Context, conn *grpc.ClientConn, connect time.Duration) (*api.SessionResponse, error) {
	connected := time.AfterFunc(connect, func() {
		if conn.GetState() != connectivity.Ready {
			s.cancel(errConnect)
		}
	})
	defer connected.Stop()
	answered := time.AfterFunc(connect+callTimeout, func() { s.cancel(errRegister) })
	defer answered.Stop()
	stream, err := s.client.Session(ctx, &api.SessionRequest{
		Description: s.c.cfg.Describe(), Tls: s.c.cfg.TLS(), AuditSequence: s.c.sawAudit(),
	})
	if err != nil {
		return nil, err
	}
	s.stream = stream
	first, err := stream.Recv()
	if err != nil {
		return nil, refusal(err)
	}
	if first.GetSessionId() == "" {
		return nil, errors.New("the manager gave no session id")
	}
	return first, s.c.witnessed(s.manager, first.GetAudit()) // S4
}

// run does all that a session does until one part fails or ctx ends, and returns why.
func (s *session) run(ctx context.Context) error {
	var parts sync.WaitGroup
	for _, part := range []func(context.Context) error{s.listen, s.heartbeat, s.assignments, s.report, s.describe} {
		parts.Go(func() { s.cancel(fault.FromStatus(part(ctx))) })
	}
	parts.Wait() // S3
	return context.Cause(ctx)
}

// reason returns why something failed: what cancelled ctx, if anything did.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fault.FromStatus(err)
}

// received returns the error of a stream that ended, which is never nil.
func received(err error) error {
	if errors.Is(err, io.EOF) {
		return errEnded
	}
	return err
}

// refusal returns the error of the session's stream, as a RefusedError if it says so.
func refusal(err error) error {
	if err = fault.FromStatus(err); fault.KindOf(err) == fault.PermissionDenied {
		return Refused(err)
	}
	return err
}

// heard takes in a message of the session's stream.
func (s *session) heard(r *api.SessionResponse) {
	if p := r.GetHeartbeatPeriod(); p != nil {
		s.setPeriod(p.AsDuration())
	}
	s.c.registered(r)
}

func (s *session) setPeriod(d time.Duration) {
	select {
	case <-s.periods:
	default:
	}
	s.periods <- d
}

// listen takes in what changes for this node.
func (s *session) listen(context.Context) error {
	for {
		r, err := s.stream.Recv()
		if err != nil {
			return refusal(received(err))
		}
		s.heard(r)
	}
}

// heartbeat tells the manager that this node lives, at once, and then a little before each period ends, or when there are doubts about the manager.
func (s *session) heartbeat(ctx context.Context) error {
	period, doubtful := heartbeatDefault, false
	for {
		select {
		case period = <-s.periods:
		default:
		}
		timeout := min(max(period, heartbeatTimeoutMin), heartbeatTimeoutMax)
		if doubtful {
			timeout = heartbeatTimeoutMin
		}
		next, err := s.beat(ctx, timeout)
		if err != nil && doubtful {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		if err != nil {
			return err
		}
		doubtful = false
		if next > 0 {
			period = next
		}
		period = max(period, heartbeatMin)
		early := time.Duration(rand.Float64() * heartbeatJitter * float64(period))
		select {
		case <-time.After(period - early):
		case period = <-s.periods:
		case <-s.doubts:
			doubtful = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// beat sends one heartbeat and returns the period that the manager asks for, or 0.
func (s *session) beat(ctx context.Context, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := s.client.Heartbeat(ctx, &api.HeartbeatRequest{SessionId: s.id, AuditSequence: s.c.sawAudit()})
	if err != nil {
		return 0, err
	}
	return r.GetPeriod().AsDuration(), s.c.witnessed(s.manager, r.GetAudit())
}

// assignments passes on what is assigned to this node (S2).
func (s *session) assignments(ctx context.Context) error {
	stream, err := s.client.Assignments(ctx, &api.AssignmentsRequest{SessionId: s.id, Parts: true}, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return err
	}
	var order sequence
	defer order.forget()
	for {
		m, err := stream.Recv()
		if err != nil {
			return received(err)
		}
		changes, whole, err := order.accept(m)
		if err != nil {
			return err
		}
		if !whole {
			continue
		}
		if err := s.c.cfg.Handler.Assign(ctx, m.GetComplete(), changes); err != nil {
			return fmt.Errorf("take in assignments: %w", err)
		}
	}
}

// report sends statuses, in batches, until they are acknowledged (S1). That takes as long as the leader has other work to do: whether this manager
// is there, and hears the leader, heartbeats tell. A new session would not be faster, and would cost them more than the report: when thousands of
// nodes give up waiting, none gets through.
func (s *session) report(ctx context.Context) error {
	for {
		batch, err := s.nextReport(ctx)
		if err != nil {
			return err
		}
		if _, err := s.client.UpdateTaskStatus(ctx, &api.UpdateTaskStatusRequest{SessionId: s.id, Updates: batch}); err != nil {
			return err
		}
		s.c.mu.Lock()
		s.c.reporter.acknowledge(batch)
		s.c.mu.Unlock()
	}
}

// nextReport waits until there is something to be sent, and returns it.
func (s *session) nextReport(ctx context.Context) ([]*api.TaskStatusUpdate, error) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		s.c.mu.Lock()
		at := s.c.reporter.due()
		if !at.IsZero() && !at.After(now) {
			defer s.c.mu.Unlock()
			return s.c.reporter.batch(now), nil
		}
		s.c.mu.Unlock()
		if at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(at.Sub(now))
		}
		select {
		case <-s.c.reported:
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// describe sends the node's description whenever it changes.
func (s *session) describe(ctx context.Context) error {
	for {
		if err := await(ctx, s.c.described, describeLinger); err != nil {
			return err
		}
		if err := s.redescribe(ctx); err != nil {
			return err
		}
	}
}

func (s *session) redescribe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := s.client.UpdateDescription(ctx, &api.UpdateDescriptionRequest{
		SessionId: s.id, Description: s.c.cfg.Describe(), Tls: s.c.cfg.TLS(),
	})
	return err
}

// await waits for a signal and then a little longer, for others to join it.
func await(ctx context.Context, c <-chan struct{}, linger time.Duration) error {
	select {
	case <-c:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !pause(ctx, linger) {
		return ctx.Err()
	}
	select {
	case <-c: // those who joined
	default:
	}
	return nil
}
