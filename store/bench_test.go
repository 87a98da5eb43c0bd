package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

// filled returns a local store with n objects of 1 KiB.
func filled(b *testing.B, n int) *store.Store {
	b.Helper()
	s, err := store.NewLocal("c1")
	if err != nil {
		b.Fatal(err)
	}
	for first := 0; first < n; first += 1000 {
		err := s.Update(b.Context(), "", func(tx store.Tx) error {
			for i := first; i < min(n, first+1000); i++ {
				if err := tx.Create(benchSecret(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func benchSecret(i int) *api.Secret {
	id := fmt.Sprintf("s%024d", i)
	return &api.Secret{Id: id, Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: id}, Data: make([]byte, 1<<10)}}
}

// BenchmarkGet reads one of 10,000 objects by its id.
func BenchmarkGet(b *testing.B) {
	s := filled(b, 10000)
	id := benchSecret(5000).GetId()
	for b.Loop() {
		err := s.View(func(tx store.ReadTx) error {
			_, err := store.Get[*api.Secret](tx, id)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAll goes through 10,000 objects, without copying them or their list.
func BenchmarkAll(b *testing.B) {
	s := filled(b, 10000)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		err := s.View(func(tx store.ReadTx) error {
			all, err := store.All[*api.Secret](tx)
			if err != nil {
				return err
			}
			for range all {
				n++
			}
			return nil
		})
		if err != nil || n != 10000 {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkWatch tells 10,000 watchers of one event; an operation ends when all of them have it. They are served by a few goroutines,
// as by a server that multiplexes its streams, or each by a goroutine that waits. Beside the latter stands its floor, measured in
// the same run: as many goroutines that wait for nothing but the end of a channel.
func BenchmarkWatch(b *testing.B) {
	const watchers = 10000
	b.Run("shared", func(b *testing.B) { watchBy(b, watchers, 16) })
	b.Run("goroutines", func(b *testing.B) {
		watchBy(b, watchers, watchers)
		b.StopTimer()
		floor := floorWake(watchers)
		b.ReportMetric(float64(floor.Microseconds()), "floor-µs")
		b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(floor), "×floor")
	})
}

// watchBy has some watchers, in so many goroutines.
func watchBy(b *testing.B, watchers, goroutines int) {
	s := filled(b, 1)
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	var told atomic.Int64
	everybody := make(chan struct{}, 1)
	tell := func(n int) {
		if told.Add(int64(n)) == int64(watchers) {
			told.Store(0)
			everybody <- struct{}{}
		}
	}
	for range goroutines {
		mine := make([]*store.Watcher, watchers/goroutines)
		for i := range mine {
			w, err := s.Watch(ctx, 0, object.KindTask)
			if err != nil {
				b.Fatal(err)
			}
			mine[i] = w
		}
		all.Go(func() {
			for {
				for _, w := range mine {
					if _, err := w.Next(ctx); err != nil {
						return
					}
				}
				tell(len(mine))
			}
		})
	}
	i := 0
	for b.Loop() {
		err := s.Update(ctx, "", func(tx store.Tx) error { return tx.Create(task(fmt.Sprint("t", i), "s", 1, "n")) })
		if err != nil {
			b.Fatal(err)
		}
		<-everybody
		i++
	}
	cancel()
	all.Wait()
}

// floorWake is the median time in which as many goroutines run that wait for a channel to be closed.
func floorWake(goroutines int) time.Duration {
	var took []time.Duration
	for range 20 {
		var ready, woken sync.WaitGroup
		event := make(chan struct{})
		ready.Add(goroutines)
		for range goroutines {
			woken.Go(func() {
				ready.Done()
				<-event
			})
		}
		ready.Wait()
		runtime.Gosched() // the last of them waits, too
		began := time.Now()
		close(event)
		woken.Wait()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// run starts a store and waits until it leads; stop ends it.
func run(b *testing.B, disk store.Disk) (s *store.Store, stop func()) {
	b.Helper()
	s, err := store.Open(store.Config{Disk: disk})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // b's own ends before the clean-up
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for leadership, changed := s.Leadership(); !leadership.Self; leadership, changed = s.Leadership() {
		<-changed
	}
	return s, func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}

// onDisk returns the disk of a store of one manager with n objects of 1 KiB.
func onDisk(b *testing.B, n int) store.Disk {
	b.Helper()
	disk := store.Disk{Dir: filepath.Join(b.TempDir(), "raft"), KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	err := store.Bootstrap(disk, "c1", &api.Member{RaftId: store.NewRaftID(), NodeId: "m1", Address: "m1:1"})
	if err != nil {
		b.Fatal(err)
	}
	s, stop := run(b, disk)
	defer stop()
	for i := 0; i < n; {
		err := s.Update(b.Context(), "", func(tx store.Tx) error {
			for range min(1000, n-i) {
				if err := tx.Create(benchSecret(i)); err != nil {
					return err
				}
				i++
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return disk
}

// BenchmarkOpen starts a manager that has 100,000 objects of 1 KiB, until it leads, and reports the most memory that the process
// had meanwhile.
func BenchmarkOpen(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as the daemon has it
	disk := onDisk(b, 100_000)
	for b.Loop() {
		b.StopTimer()
		debug.FreeOSMemory()
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // forgets the peak, see proc(5)
			b.Skip("needs root to measure memory: ", err)
		}
		b.StartTimer()
		_, stop := run(b, disk)
		b.StopTimer()
		b.ReportMetric(peakMemory(b)/(1<<20), "peak-MiB")
		stop()
		b.StartTimer()
	}
}

// peakMemory returns the most memory that the process had at once, in bytes.
func peakMemory(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib * 1024
}

// BenchmarkSnapshot writes to a manager that has 100,000 objects of 1 KiB while it makes a snapshot of them all the time, and compares
// the time of one in a hundred writes with that of quiet ones.
func BenchmarkSnapshot(b *testing.B) {
	disk := onDisk(b, 100_000)
	s, stop := run(b, disk)
	defer stop()
	next := 100_000
	writes := func(n int) time.Duration {
		took := make([]time.Duration, n)
		for i := range took {
			began := time.Now()
			if err := s.Update(b.Context(), "", func(tx store.Tx) error { return tx.Create(benchSecret(next)) }); err != nil {
				b.Fatal(err)
			}
			took[i] = time.Since(began)
			next++
		}
		slices.Sort(took)
		return took[n*99/100]
	}
	const n = 2000
	quiet := writes(n)
	s.SetSnapshotInterval(1)
	b.ResetTimer()
	var busy time.Duration
	for b.Loop() {
		busy = writes(n)
	}
	b.ReportMetric(float64(quiet.Microseconds()), "quiet-p99-µs")
	b.ReportMetric(float64(busy.Microseconds()), "busy-p99-µs")
	b.ReportMetric(float64(busy)/float64(quiet), "×quiet")
}
