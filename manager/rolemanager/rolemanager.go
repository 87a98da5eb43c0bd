package rolemanager

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// retryAfter is the pause before an effect is tried again that failed or has to wait: members come back without the store
// telling.
const retryAfter = time.Second

// changeTimeout bounds one change of the group, which otherwise waits for members that don't answer: then it is decided anew.
const changeTimeout = 10 * time.Second

// Group is the Raft group, as the leader changes it.
type Group interface {
	Status() store.Status
	// RemoveMember takes a member out of the group, for ever. It is no error when there is none with the id.
	RemoveMember(ctx context.Context, raftID uint64) error
	// TransferLeadership lets another member lead.
	TransferLeadership(ctx context.Context) error
}

// Config is what a Manager needs; all fields are required.
type Config struct {
	Store  *store.Store
	Group  Group
	Logger *slog.Logger
}

// Manager is the loop.
type Manager struct{ cfg Config }

// New returns a Manager.
func New(cfg Config) (*Manager, error) {
	if cfg.Store == nil || cfg.Group == nil || cfg.Logger == nil {
		return nil, errors.New("rolemanager: Store, Group and Logger are required")
	}
	return &Manager{cfg: cfg}, nil
}

// Run works until ctx ends, and then returns nil, or until this manager does not lead any more.
func (m *Manager) Run(ctx context.Context) error { return store.Follow(ctx, m.run) }

func (m *Manager) run(ctx context.Context) error {
	watch, err := m.cfg.Store.Watch(ctx, 0, object.KindNode)
	if err != nil {
		return err
	}
	for {
		done, err := m.settle(ctx)
		if err != nil {
			return err
		}
		var again time.Time
		if !done {
			again = time.Now().Add(retryAfter)
		}
		if err := watch.Await(ctx, again); err != nil {
			return err
		}
	}
}

// settle steps until nothing is to be done, and reports false when something remains that has to wait.
func (m *Manager) settle(ctx context.Context) (done bool, err error) {
	for {
		state, err := m.state()
		if err != nil {
			return false, err
		}
		effects := Step(state)
		if len(effects) == 0 {
			return true, nil
		}
		for _, effect := range effects {
			if done, err = m.perform(ctx, effect); err != nil || !done {
				return false, err
			}
		}
	}
}

func (m *Manager) state() (State, error) {
	status := m.cfg.Group.Status()
	state := State{Self: status.NodeID, Members: status.Members}
	err := m.cfg.Store.View(func(tx store.ReadTx) (err error) {
		state.Nodes, err = store.List[*api.Node](tx)
		return err
	})
	return state, err
}

// perform does one thing, and reports false when it can't be done now. An error ends the loop: this manager does not lead.
func (m *Manager) perform(ctx context.Context, effect Effect) (done bool, err error) {
	switch e := effect.(type) {
	case SetRole:
		err = m.setRole(ctx, e)
	case RemoveMember:
		err = bounded(ctx, func(ctx context.Context) error { return m.cfg.Group.RemoveMember(ctx, e.RaftID) })
	case TransferLeadership:
		err = bounded(ctx, m.cfg.Group.TransferLeadership)
	default:
		m.cfg.Logger.Warn("manager can't leave yet", "effect", effect.String())
		return false, nil
	}
	switch {
	case err == nil:
		m.cfg.Logger.Info("changed role", "effect", effect.String())
		_, transferred := effect.(TransferLeadership)
		return !transferred, nil // after a transfer the next leader goes on
	case ctx.Err() != nil, errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrStopped):
		return false, err
	default:
		m.cfg.Logger.Warn("change of role failed, trying again", "effect", effect.String(), "error", err)
		return false, nil
	}
}

func bounded(ctx context.Context, change func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return change(ctx)
}

// setRole stores the role, unless the spec wants another one by now.
func (m *Manager) setRole(ctx context.Context, e SetRole) error {
	return m.cfg.Store.Update(ctx, "", func(tx store.Tx) error {
		old, err := store.Get[*api.Node](tx, e.NodeID)
		if errors.Is(err, store.ErrNotFound) {
			return nil // removed meanwhile
		}
		if err != nil || old.GetSpec().GetDesiredRole() != e.Role {
			return err
		}
		if old.GetCompromise() == nil { // else nothing is left of its role
			if err := authz.Revoke(tx, time.Now(), e.NodeID, e.Role); err != nil {
				return err
			}
		}
		node := proto.CloneOf(old)
		node.Role = e.Role
		return tx.Update(node)
	})
}
