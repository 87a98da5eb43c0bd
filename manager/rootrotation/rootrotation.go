package rootrotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// retryAfter is the pause after a write that failed.
const retryAfter = time.Second

// Config is what a Loop needs; all fields are required.
type Config struct {
	Store  *store.Store
	Logger *slog.Logger
}

// Loop is the loop.
type Loop struct{ cfg Config }

// New returns a Loop.
func New(cfg Config) (*Loop, error) {
	if cfg.Store == nil || cfg.Logger == nil {
		return nil, errors.New("rootrotation: Store and Logger are required")
	}
	return &Loop{cfg}, nil
}

// Run works until ctx ends, and then returns nil, or until this manager does not lead any more.
func (l *Loop) Run(ctx context.Context) error { return store.Follow(ctx, l.run) }

func (l *Loop) run(ctx context.Context) error {
	watch, err := l.cfg.Store.Watch(ctx, 0, object.KindCluster, object.KindNode)
	if err != nil {
		return err
	}
	for {
		rest, err := l.step(ctx)
		if err != nil {
			return err
		}
		var again time.Time
		if rest > 0 {
			again = time.Now().Add(rest)
		}
		if err := watch.Await(ctx, again); err != nil {
			return err
		}
	}
}

// step decides once and does it, and returns after what time to decide again. An error ends the loop.
func (l *Loop) step(ctx context.Context) (time.Duration, error) {
	state, cluster, err := l.state()
	if err != nil {
		return 0, err
	}
	decision, err := Step(time.Now(), state)
	if err != nil {
		l.cfg.Logger.Error("the rotation of the root CA can't go on", "error", err)
		return 0, nil
	}
	switch {
	case decision.Finish:
		err = l.finish(ctx, cluster)
	case len(decision.Ask) > 0:
		err = l.ask(ctx, state.Root, decision.Ask)
	}
	switch {
	case err == nil, ctx.Err() != nil:
		return decision.Wake, nil
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrStopped):
		return 0, err
	default:
		l.cfg.Logger.Warn("a step of the rotation of the root CA failed, trying again", "error", err)
		return retryAfter, nil
	}
}

// state returns what is to be decided on. While no rotation is under way, it does not look at nodes.
func (l *Loop) state() (s State, cluster *api.Cluster, err error) {
	err = l.cfg.Store.View(func(tx store.ReadTx) error {
		s, cluster, err = stateOf(tx)
		return err
	})
	return s, cluster, err
}

func stateOf(tx store.ReadTx) (s State, cluster *api.Cluster, err error) {
	cluster, err = store.TheCluster(tx)
	if err != nil || cluster == nil {
		return State{}, nil, err
	}
	s.Root = cluster.GetRootCa()
	if s.Root.GetRotation() != nil {
		s.Nodes, err = store.List[*api.Node](tx)
	}
	return s, cluster, err
}

// ask writes into the records of nodes that they are to renew their certificates, unless the rotation is another one by now.
func (l *Loop) ask(ctx context.Context, root *api.RootCA, ids []string) error {
	target, err := ca.TargetOf(root)
	if err != nil {
		return err
	}
	wish := &api.RenewalRequest{
		RotationId: root.GetRotation().GetId(), IssuerKeyDigest: target.KeyDigest, AskedAt: timestamppb.New(time.Now()),
	}
	_, err = l.cfg.Store.Batch(ctx, len(ids), func(tx store.Tx, i int) error {
		old, err := store.Get[*api.Node](tx, ids[i])
		if errors.Is(err, store.ErrNotFound) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		node := proto.CloneOf(old)
		node.Renewal = proto.CloneOf(wish)
		return tx.Update(node)
	})
	return err
}

// finish makes the root to be the root, if all nodes are still done (R1).
func (l *Loop) finish(ctx context.Context, seen *api.Cluster) error {
	rotation := seen.GetRootCa().GetRotation()
	finished := false
	err := l.cfg.Store.Update(ctx, "", func(tx store.Tx) error {
		finished = false
		state, old, err := stateOf(tx)
		if err != nil || state.Root.GetRotation().GetId() != rotation.GetId() {
			return err
		}
		decision, err := Step(time.Now(), state)
		if err != nil || !decision.Finish {
			return err
		}
		cluster := proto.CloneOf(old)
		if err := settle(cluster); err != nil {
			return err
		}
		finished = true
		return tx.Update(cluster)
	})
	if err == nil && finished {
		l.cfg.Logger.Info("the root CA was rotated", "rotation", rotation.GetId(), "aborted", len(rotation.GetCertificate()) == 0)
	}
	return err
}

// settle ends the rotation in the cluster object, with fresh join tokens: the old ones pin a root that no manager has any more.
func settle(cluster *api.Cluster) error {
	rotation := cluster.GetRootCa().GetRotation()
	cluster.RootCa.Rotation = nil
	if len(rotation.GetCertificate()) == 0 { // aborted
		return nil
	}
	cluster.RootCa = &api.RootCA{Certificate: rotation.GetCertificate(), Key: rotation.GetKey(), External: rotation.GetExternal()}
	roots, err := ca.ParseRoots(rotation.GetCertificate())
	if err != nil {
		return fmt.Errorf("the root to be: %w", err)
	}
	digest := token.DigestOf(roots)
	cluster.JoinTokens = &api.JoinTokens{Worker: token.New(digest).Reveal(), Manager: token.New(digest).Reveal()}
	return nil
}
