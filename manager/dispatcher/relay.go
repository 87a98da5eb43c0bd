package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// Times of the way to the leader.
const (
	// gather is how long signs of life wait for others. Whatever somebody waits for goes at once.
	gather = 100 * time.Millisecond
	// relayTimeout bounds one try: after it, somebody else may lead.
	relayTimeout = 5 * time.Second
	// retryMin and retryMax bound the pause after a try that failed; it doubles.
	retryMin = 50 * time.Millisecond
	retryMax = time.Second
	// maxReports bounds what a manager takes from another at once.
	maxReports = 100_000
)

// Relay takes in what another manager heard from its agents. Only managers may call it, and only the leader answers.
func (d *Dispatcher) Relay(ctx context.Context, request *api.RelayRequest) (*api.RelayResponse, error) {
	if n := len(request.GetReports()); n > maxReports {
		return nil, fault.Status(fault.New(fault.Invalid, "%d reports in one relay, at most %d are allowed", n, maxReports))
	}
	if err := d.absorb(ctx, request.GetReports()); err != nil {
		return nil, fault.Status(relayFault(err))
	}
	return &api.RelayResponse{}, nil
}

// relayFault gives an error of the store a kind.
func relayFault(err error) error {
	var notLeader *store.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		return fault.NewNotLeader(notLeader.LeaderAddr)
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrStopped), errors.Is(err, store.ErrBusy):
		return fault.Wrap(fault.Unavailable, err)
	default:
		return err
	}
}

// deliver empties the outbox towards whoever leads, until ctx ends.
func (d *Dispatcher) deliver(ctx context.Context) error {
	link := &link{dial: d.cfg.Dial}
	defer link.close()
	retry := retryMin
	for {
		if err := d.awaitNews(ctx); err != nil {
			return nil
		}
		d.mu.Lock()
		b := d.outbox.take()
		reports := b.reports(time.Now())
		d.mu.Unlock()
		leadership, changed := d.cfg.Leadership()
		d.sending(leadership)
		began := time.Now()
		err := d.send(ctx, link, leadership, changed, reports)
		if err == nil || !mayWork(err) {
			d.delivered(b, err)
			retry = retryMin
			continue
		}
		link.close() // gRPC would wait longer and longer before it tries the same connection again
		if retry == retryMin && (leadership.LeaderAddr != "" || leadership.Self) {
			d.log.Warn("the leader cannot be reached, trying again", "leader", leadership.LeaderAddr, "error", err)
		}
		now, _ := d.cfg.Leadership()
		d.failed(b, now == leadership && time.Since(began) < relayTimeout)
		if pause(ctx, retry, changed) != nil {
			return nil
		}
		retry = min(2*retry, retryMax)
	}
}

// awaitNews waits until there is something to send, and for signs of life alone a little longer.
func (d *Dispatcher) awaitNews(ctx context.Context) error {
	var gathered <-chan time.Time
	for {
		d.mu.Lock()
		urgent, empty := d.outbox.urgent, d.outbox.empty()
		d.mu.Unlock()
		if urgent {
			return nil
		}
		if !empty && gathered == nil {
			timer := time.NewTimer(gather)
			defer timer.Stop()
			gathered = timer.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gathered:
			return nil
		case <-d.posted:
		}
	}
}

// send makes one try, which ends when somebody else leads: a leader that was cut off may never answer.
func (d *Dispatcher) send(
	ctx context.Context, l *link, leader store.Leadership, changed <-chan struct{}, reports []*api.NodeReport,
) error {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	if leader.Self {
		return relayFault(d.absorb(ctx, reports))
	}
	if leader.LeaderAddr == "" {
		return fault.NewNotLeader("")
	}
	client, err := l.to(leader)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err)
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		select {
		case <-ctx.Done():
		case <-changed:
			cancel()
		}
	})
	_, err = client.Relay(ctx, &api.RelayRequest{Reports: reports})
	return fault.FromStatus(err)
}

// mayWork reports whether a failed try is worth another: with another leader, or a little later. A leader that denies this
// manager the right to speak is as good as one that cannot be reached: agents find a manager that it listens to.
func mayWork(err error) bool {
	switch fault.KindOf(err) {
	case fault.NotLeader, fault.Unavailable, fault.Conflict, fault.Exhausted, fault.PermissionDenied, fault.Unauthenticated:
		return true
	default:
		return false
	}
}

// sending notes that there is something to be answered from now on.
func (d *Dispatcher) sending(leader store.Leadership) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case leader.Self:
		d.unanswered = time.Time{}
	case d.unanswered.IsZero():
		d.unanswered = time.Now()
	}
}

// delivered settles a batch that the leader took, or will never take.
func (d *Dispatcher) delivered(b *batch, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unanswered, d.refused = time.Time{}, false
	b.settle(err)
	if err != nil {
		d.log.Error("the leader refuses what agents reported", "error", err)
	}
}

// failed keeps a batch for the next try. refused says that the leader, or the way to it, did not just take too long.
func (d *Dispatcher) failed(b *batch, refused bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = refused
	d.outbox.putBack(b)
}

// pause waits for a while, or until leadership changes. It returns an error when ctx ends.
func pause(ctx context.Context, d time.Duration, changed <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-changed:
	}
	return nil
}

// link is the connection to the leader. It belongs to one goroutine.
type link struct {
	dial   func(address, nodeID string) (*grpc.ClientConn, error)
	conn   *grpc.ClientConn // or nil
	leader store.Leadership // that conn leads to
}

// to returns a client of the leader's dispatcher.
func (l *link) to(leader store.Leadership) (api.DispatcherClient, error) {
	if l.conn != nil && l.leader.LeaderAddr == leader.LeaderAddr && l.leader.LeaderID == leader.LeaderID {
		return api.NewDispatcherClient(l.conn), nil
	}
	l.close()
	conn, err := l.dial(leader.LeaderAddr, leader.LeaderID)
	if err != nil {
		return nil, fmt.Errorf("dial the leader at %s: %w", leader.LeaderAddr, err)
	}
	l.conn, l.leader = conn, leader
	return api.NewDispatcherClient(conn), nil
}

func (l *link) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}
