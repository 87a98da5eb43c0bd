package keymanager_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/keymanager"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// life runs a store and its key manager for a time, as one start of a daemon does, and returns when its data key was made.
func life(t *testing.T, disk store.Disk, lasts time.Duration, first func(*store.Store)) time.Time {
	t.Helper()
	s, err := store.Open(store.Config{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx) }()
	if err := s.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
	first(s)
	m, err := keymanager.New(keymanager.Config{
		NodeID: "m1", Store: s, DataKey: s, Reseal: s.Reseal, Logger: slog.New(slog.DiscardHandler),
		LocalKey: func(context.Context) (seal.Key, seal.Source, error) { return disk.KEK, disk.Source, nil },
		Report:   func(context.Context, *api.DataKeyStatus) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- m.Run(ctx) }()
	time.Sleep(lasts)
	synctest.Wait()
	madeAt, _ := s.DataKey()
	cancel()
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return madeAt
}

// A real store that is never up as long as its data key may last changes it all the same. (K1)
func TestRotation_OfAStoreThatRestartsOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		defer mem.Close()
		disk := store.Disk{FS: mem, Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile, SegmentSize: 16 << 10}
		if err := store.Bootstrap(disk, "c", &api.Member{RaftId: 1, NodeId: "m1", Address: "m1:1"}); err != nil {
			t.Fatal(err)
		}
		founded := time.Now()
		found := func(s *store.Store) {
			err := s.Update(t.Context(), "", func(tx store.Tx) error {
				return tx.Create(&api.Cluster{Id: "c", Spec: &api.ClusterSpec{DataKeyRotation: durationpb.New(time.Hour)}})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range 10 {
			madeAt := life(t, disk, 25*time.Minute, found)
			found = func(*store.Store) {}
			if age := time.Since(madeAt); age > time.Hour {
				t.Errorf("start %d: the data key is %v old", i+1, age)
			}
			if i == 1 && madeAt.Sub(founded) > time.Second {
				t.Errorf("the data key was changed before its time, after %v", madeAt.Sub(founded))
			}
		}
	})
}
