package joingrant

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

const (
	// keep is how long a grant remains after its end.
	keep = 24 * time.Hour
	// recheck is the time between two looks at a grant that a waiting node holds.
	recheck = time.Hour
)

// Grant is what a decision depends on.
type Grant struct {
	ID      string
	Expires time.Time
	// Waiting says that a node waits for approval with it.
	Waiting bool
}

// Step returns the grants to remove now, and when to ask again at the latest; the zero time is never.
func Step(now time.Time, grants []Grant) (remove []string, next time.Time) {
	for _, g := range grants {
		due := g.Expires.Add(keep)
		switch {
		case now.Before(due):
		case g.Waiting:
			due = now.Add(recheck)
		default:
			remove = append(remove, g.ID)
			continue
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return remove, next
}

// Config is what a Reaper needs; all fields are required.
type Config struct {
	Store  *store.Store
	Logger *slog.Logger
}

// Reaper is the loop.
type Reaper struct{ cfg Config }

// New returns a Reaper.
func New(cfg Config) (*Reaper, error) {
	if cfg.Store == nil || cfg.Logger == nil {
		return nil, errors.New("joingrant: Store and Logger are required")
	}
	return &Reaper{cfg}, nil
}

// Run works until ctx ends, and then returns nil, or until this manager does not lead any more.
func (r *Reaper) Run(ctx context.Context) error { return store.Follow(ctx, r.run) }

func (r *Reaper) run(ctx context.Context) error {
	watch, err := r.cfg.Store.Watch(ctx, 0, object.KindJoinGrant)
	if err != nil {
		return err
	}
	for {
		next, err := r.settle(ctx)
		if err != nil {
			return err
		}
		if err := watch.Await(ctx, next); err != nil {
			return err
		}
	}
}

// settle removes what is due, and returns when more will be.
func (r *Reaper) settle(ctx context.Context) (next time.Time, err error) {
	grants, err := r.grants()
	if err != nil {
		return time.Time{}, err
	}
	remove, next := Step(time.Now(), grants)
	done, err := r.cfg.Store.Batch(ctx, len(remove), func(tx store.Tx, i int) error {
		err := tx.Delete(object.KindJoinGrant, remove[i])
		if errors.Is(err, store.ErrNotFound) {
			return nil // revoked meanwhile
		}
		return err
	})
	if done > 0 {
		r.cfg.Logger.Info("removed ended join grants", "grants", remove[:done])
	}
	return next, err
}

func (r *Reaper) grants() (grants []Grant, err error) {
	return grants, r.cfg.Store.View(func(tx store.ReadTx) error {
		all, err := store.All[*api.JoinGrant](tx)
		if err != nil {
			return err
		}
		for g := range all {
			waiting, err := waits(tx, g)
			if err != nil {
				return err
			}
			grants = append(grants, Grant{ID: g.GetId(), Expires: g.GetExpiresAt().AsTime(), Waiting: waiting})
		}
		return nil
	})
}

// waits reports whether a node that came by the grant waits for approval.
func waits(tx store.ReadTx, g *api.JoinGrant) (bool, error) {
	for _, use := range g.GetUses() {
		node, err := store.Get[*api.Node](tx, use.GetNodeId())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
		if node.GetApproval().GetState() == api.ApprovalState_APPROVAL_STATE_PENDING {
			return true, nil
		}
	}
	return false, nil
}
