package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// A loop that fell behind begins anew; it ends with its context, or with what it can't go on after.
func TestFollow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	broken := errors.New("broken")
	runs := 0
	err := store.Follow(ctx, func(context.Context) error {
		if runs++; runs < 3 {
			return fmt.Errorf("watch: %w", store.ErrResync)
		}
		return broken
	})
	if !errors.Is(err, broken) || runs != 3 {
		t.Errorf("%v after %d runs", err, runs)
	}
	err = store.Follow(ctx, func(context.Context) error {
		cancel()
		return store.ErrResync
	})
	if err != nil {
		t.Errorf("with its context: %v", err)
	}
}

func TestWatcher_DrainPassesOverWhatIsThere(t *testing.T) {
	s := storetest.New(t)
	watch, err := s.Watch(t.Context(), 0, object.KindService)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Create(t, s, service("a", "web"), service("b", "db"))
	if err := watch.Drain(); err != nil {
		t.Fatal(err)
	}
	storetest.Create(t, s, service("c", "cache"))
	batch, err := watch.Next(t.Context())
	if err != nil || len(batch.Changes) != 1 || batch.Changes[0].Object.GetId() != "c" {
		t.Errorf("got %v, %v", batch, err)
	}
}

func TestTheCluster_IsNilWhileThereIsNone(t *testing.T) {
	s := storetest.New(t)
	get := func() (cluster *api.Cluster) {
		t.Helper()
		err := s.View(func(tx store.ReadTx) (err error) {
			cluster, err = store.TheCluster(tx)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return cluster
	}
	if got := get(); got != nil {
		t.Errorf("got %v", got)
	}
	storetest.Create(t, s, &api.Cluster{Id: "testcluster", Spec: &api.ClusterSpec{}})
	if got := get(); got.GetId() != "testcluster" {
		t.Errorf("got %v", got)
	}
}
