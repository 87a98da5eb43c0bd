package keymanager_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/keymanager"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
)

// disk is what a manager has of its data key, which outlives the loop.
type disk struct {
	mu         sync.Mutex
	madeAt     time.Time // guarded by mu
	generation uint64    // guarded by mu
	rotations  int       // guarded by mu
	failures   int       // guarded by mu; how many of the next changes fail
}

func (d *disk) RotateDataKey(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failures > 0 {
		d.failures--
		return errors.New("disk full")
	}
	d.madeAt = time.Now()
	d.rotations++
	return nil
}

func (d *disk) DataKey() (time.Time, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.madeAt, d.generation
}

func (d *disk) DataKeyServed(generation uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.generation = generation
	return nil
}

func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rotations
}

// boot runs a manager on a disk until the function that it returns is called.
func boot(t *testing.T, s *store.Store, d *disk, report func(*api.DataKeyStatus) error) (stop func()) {
	t.Helper()
	m, err := keymanager.New(keymanager.Config{
		NodeID: "m1", Store: s, DataKey: d, Logger: slog.New(slog.DiscardHandler),
		Reseal:   func(seal.Key, seal.Source) error { return nil },
		LocalKey: func(context.Context) (seal.Key, seal.Source, error) { return seal.NewKey(), seal.SourceKeyFile, nil },
		Report:   func(_ context.Context, key *api.DataKeyStatus) error { return report(key) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func silent(*api.DataKeyStatus) error { return nil }

func newCluster(t *testing.T, every time.Duration) *store.Store {
	t.Helper()
	s := storetest.New(t)
	storetest.Create(t, s, &api.Cluster{Id: "c", Spec: &api.ClusterSpec{DataKeyRotation: durationpb.New(every)}}, &api.Node{Id: "m1"})
	return s
}

func change(t *testing.T, s *store.Store, fn func(*api.Cluster)) {
	t.Helper()
	cluster := proto.CloneOf(storetest.Get[*api.Cluster](t, s, "c"))
	fn(cluster)
	if err := s.Update(t.Context(), "", func(tx store.Tx) error { return tx.Update(cluster) }); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// A manager that restarts twice a day changes its data key each month all the same. (K1)
func TestRotation_OnScheduleAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const month = 720 * time.Hour
		s, d := newCluster(t, month), &disk{madeAt: time.Now()}
		for day := range 90 {
			for range 2 {
				stop := boot(t, s, d, silent)
				time.Sleep(12 * time.Hour)
				synctest.Wait()
				stop()
			}
			if want := (day + 1) / 30; d.count() != want {
				t.Fatalf("%d changes after %d days, want %d", d.count(), day+1, want)
			}
		}
	})
}

func TestRotation_FollowsTheSetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newCluster(t, 0), &disk{} // a key of unknown age
		stop := boot(t, s, d, silent)
		defer stop()
		expect := func(want int) {
			t.Helper()
			synctest.Wait()
			if d.count() != want {
				t.Fatalf("%d changes, want %d", d.count(), want)
			}
		}
		time.Sleep(10000 * time.Hour)
		expect(0)
		change(t, s, func(c *api.Cluster) { c.Spec.DataKeyRotation = durationpb.New(90 * time.Minute) })
		expect(1)
		time.Sleep(90*time.Minute - time.Second)
		expect(1)
		time.Sleep(time.Second)
		expect(2)
		change(t, s, func(c *api.Cluster) { c.Spec.DataKeyRotation = durationpb.New(0) })
		time.Sleep(10000 * time.Hour)
		expect(2)
	})
}

// A clock that was years ahead when the key was made does not keep it for years.
func TestRotation_AfterAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newCluster(t, 720*time.Hour), &disk{madeAt: time.Now().Add(10 * 8760 * time.Hour)}
		stop := boot(t, s, d, silent)
		defer stop()
		if d.count() != 1 {
			t.Errorf("%d changes", d.count())
		}
	})
}

// What people asked for while a manager was down, or could not, is done once it can, and once.
func TestRotation_OnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newCluster(t, 0), &disk{madeAt: time.Now()}
		var reported []*api.DataKeyStatus
		unreachable := 2
		report := func(key *api.DataKeyStatus) error {
			if unreachable > 0 {
				unreachable--
				return errors.New("no leader")
			}
			reported = append(reported, key)
			return nil
		}
		change(t, s, func(c *api.Cluster) { c.DataKeyGeneration = 2 })
		d.failures = 3
		stop := boot(t, s, d, report)
		time.Sleep(time.Minute)
		stop()
		stop = boot(t, s, d, report)
		defer stop()
		madeAt, generation := d.DataKey()
		if d.count() != 1 || generation != 2 {
			t.Errorf("%d changes, up to %d", d.count(), generation)
		}
		last := reported[len(reported)-1]
		if last.GetGeneration() != 2 || !last.GetChangedAt().AsTime().Equal(madeAt) {
			t.Errorf("reported %v", last)
		}
	})
}
