package audit

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
)

// RecordAudit appends what another manager saw. Only managers may call it, and only the leader answers.
func (l *Log) RecordAudit(ctx context.Context, request *api.RecordAuditRequest) (*api.RecordAuditResponse, error) {
	if n := len(request.GetEvents()); n > maxEvents {
		return nil, fault.New(fault.Invalid, "%d audit events at once, at most %d are allowed", n, maxEvents)
	}
	l.recording.Lock()
	defer l.recording.Unlock()
	events, err := l.fresh(request.GetEvents())
	if err != nil {
		return nil, err
	}
	if from := authz.FromContext(ctx); from.NodeID != "" {
		for i, e := range events {
			events[i] = proto.CloneOf(e)
			events[i].Manager = from.NodeID // who says so is proved, and not a matter of words
		}
	}
	_, err = l.cfg.Store.Batch(ctx, len(events), func(tx store.Tx, i int) error { return tx.Audit(chain.Encode(events[i])) })
	var notLeader *store.NotLeaderError
	switch {
	case err == nil, errors.Is(err, store.ErrOutdated): // the log begins when all managers know it
		return &api.RecordAuditResponse{}, nil
	case errors.As(err, &notLeader):
		return nil, fault.NewNotLeader(notLeader.LeaderAddr)
	default:
		return nil, fault.Wrap(fault.Unavailable, err)
	}
}

// fresh leaves out the deliveries that are in the log already. The caller holds recording.
func (l *Log) fresh(events []*api.AuditEvent) (fresh []*api.AuditEvent, err error) {
	followed := false
	now := map[delivery]bool{}
	for _, e := range events {
		d, ok := deliveryOf(e)
		if !ok {
			fresh = append(fresh, e)
			continue
		}
		if !followed {
			followed = true
			if err := l.cfg.Store.View(l.deliveries.follow); err != nil {
				return nil, err
			}
		}
		if !l.deliveries.seen[d] && !now[d] {
			now[d] = true
			fresh = append(fresh, e)
		}
	}
	return fresh, nil
}

// delivery is a version of a secret that went to a node.
type delivery struct{ secret, version, node string }

// deliveryOf returns the delivery that an event is of, or false.
func deliveryOf(e *api.AuditEvent) (delivery, bool) {
	d := delivery{e.GetObjectId(), e.GetSummary(), e.GetCaller()}
	return d, e.GetMethod() == methodDeliver && e.GetResult() == resultOK
}

func versionText(version uint64) string { return fmt.Sprintf("version %d", version) }

// maxDeliveries is where the set of deliveries is read anew, without those that the log has dropped.
const maxDeliveries = 1 << 18

// deliveries are those that the log has, as far as it was followed. The zero value has followed nothing.
type deliveries struct {
	upTo uint64 // sequence number
	seen map[delivery]bool
}

// follow takes in what the log has since the last time.
func (d *deliveries) follow(tx store.ReadTx) error {
	if d.seen == nil || len(d.seen) > maxDeliveries {
		d.upTo, d.seen = 0, map[delivery]bool{}
	}
	return each(tx, d.upTo, func(e *api.AuditEntry) error {
		d.upTo = e.GetSequence()
		if of, ok := deliveryOf(e.GetEvent()); ok {
			d.seen[of] = true
		}
		return nil
	})
}

// each calls fn with the entries after a sequence number.
func each(tx store.ReadTx, after uint64, fn func(*api.AuditEntry) error) error {
	segments, err := store.All[*api.AuditSegment](tx)
	if err != nil {
		return err
	}
	for s := range segments {
		if chain.Head(s).GetSequence() <= after {
			continue
		}
		for link, err := range chain.Links(s) {
			if err != nil {
				return err
			}
			if link.Sequence <= after {
				continue
			}
			e, err := link.Entry()
			if err == nil {
				err = fn(e)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
