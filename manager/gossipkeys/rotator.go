package gossipkeys

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

const (
	// period is how long a key is the newest, as in Swarm.
	period = 12 * time.Hour
	// kept is how many keys there are.
	kept = 3
	// size is that of an AES-256 key.
	size = 32
)

// Rotator is the loop. Make it with New.
type Rotator struct{ store *store.Store }

// New returns a rotator of the keys in a store.
func New(s *store.Store) (*Rotator, error) {
	if s == nil {
		return nil, errors.New("gossipkeys: a store is required")
	}
	return &Rotator{s}, nil
}

// Run works until ctx ends, and then returns nil, or until this manager does not lead any more.
func (r *Rotator) Run(ctx context.Context) error { return store.Follow(ctx, r.run) }

func (r *Rotator) run(ctx context.Context) error {
	watch, err := r.store.Watch(ctx, 0, object.KindCluster) // a new swarm's comes after its first leader
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

// settle makes a key if one is due, and returns when the next is; the zero time is while there is no cluster object.
func (r *Rotator) settle(ctx context.Context) (next time.Time, err error) {
	var cluster *api.Cluster
	err = r.store.View(func(tx store.ReadTx) error {
		cluster, err = store.TheCluster(tx)
		return err
	})
	if err != nil || cluster == nil {
		return time.Time{}, err
	}
	if next = due(cluster); time.Now().Before(next) {
		return next, nil
	}
	err = r.store.Update(ctx, "", func(tx store.Tx) error {
		cluster, err := store.TheCluster(tx)
		if err != nil || time.Now().Before(due(cluster)) {
			return err
		}
		cluster = proto.CloneOf(cluster)
		cluster.GossipKeys = rotated(cluster.GetGossipKeys(), time.Now())
		next = due(cluster)
		return tx.Update(cluster)
	})
	return next, err
}

// due is when a cluster needs another key: one that has none does since 1970.
func due(cluster *api.Cluster) time.Time {
	return cluster.GetGossipKeys().GetRotatedAt().AsTime().Add(period)
}

// rotated returns the keys with a new one.
func rotated(keys *api.GossipKeys, now time.Time) *api.GossipKeys {
	fresh := make([]byte, size)
	rand.Read(fresh) // never fails
	all := append([][]byte{fresh}, keys.GetKeys()...)
	return &api.GossipKeys{Keys: all[:min(len(all), kept)], RotatedAt: timestamppb.New(now)}
}
