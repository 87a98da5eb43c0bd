package keymanager_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/keymanager"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
)

func TestRun_FollowsTheClustersKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := storetest.New(t), seal.NewKey()
		var sealedBy seal.Key
		var source seal.Source
		failures := 0
		m, err := keymanager.New(keymanager.Config{
			NodeID: "m1", Store: s, DataKey: s, Logger: slog.New(slog.DiscardHandler),
			LocalKey: func(context.Context) (seal.Key, seal.Source, error) { return local, seal.SourceTPM2, nil },
			Report:   func(context.Context, *api.DataKeyStatus) error { return nil },
			Reseal: func(kek seal.Key, from seal.Source) error {
				if failures > 0 {
					failures--
					return errors.New("disk full")
				}
				sealedBy, source = kek, from
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		check := func(want seal.Key, from seal.Source) {
			t.Helper()
			if !sealedBy.Equal(want) || source != from {
				t.Errorf("sealed by the right key: %v, source %v, want %v", sealedBy.Equal(want), source, from)
			}
		}
		synctest.Wait()
		check(seal.Key{}, 0) // no cluster, no change
		storetest.Create(t, s, &api.Cluster{Id: "c"})
		synctest.Wait()
		check(local, seal.SourceTPM2)
		for range 2 { // turned on, rotated
			key := seal.NewKey()
			setKey(t, s, key.UnlockKey())
			synctest.Wait()
			check(key, seal.SourceUnlockKey)
		}
		failures = 3
		setKey(t, s, "")
		time.Sleep(time.Minute)
		synctest.Wait()
		check(local, seal.SourceTPM2)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func setKey(t *testing.T, s *store.Store, key string) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[*api.Cluster](tx, "c")
		if err != nil {
			return err
		}
		cluster := proto.CloneOf(old)
		cluster.UnlockKey = key
		return tx.Update(cluster)
	})
	if err != nil {
		t.Fatal(err)
	}
}
