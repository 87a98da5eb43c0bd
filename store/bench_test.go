package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

// wire connects stores on real disks by calls that encode, as a network would.
type wire struct {
	mu     sync.Mutex
	stores map[uint64]*store.Store // by raft id
	nodes  map[uint64]string
}

type wireEnd struct {
	w   *wire
	id  string
	out chan []*raftpb.Message
}

func (e wireEnd) SetMembers(members []*api.Member) {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	for _, m := range members {
		e.w.nodes[m.RaftId] = m.NodeId
	}
}
func (e wireEnd) Send(messages []*raftpb.Message) { e.out <- messages }
func (e wireEnd) Run(ctx context.Context, sink store.Sink) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case messages := <-e.out:
			for _, m := range messages {
				encoded, err := proto.Marshal(m)
				if err != nil {
					return err
				}
				received := &raftpb.Message{}
				if err := proto.Unmarshal(encoded, received); err != nil {
					return err
				}
				e.w.mu.Lock()
				to := e.w.stores[m.GetTo()]
				e.w.mu.Unlock()
				if to != nil {
					_ = to.Deliver(ctx, e.id, received) // lost, as messages may be
				}
				if m.GetType() == raftpb.MsgSnap {
					sink.SnapshotSent(m.GetTo(), to != nil)
				}
			}
		}
	}
}

// startBench returns the leader of a group of n managers on real disks.
func startBench(b *testing.B, n int) *store.Store {
	b.Helper()
	w := &wire{stores: map[uint64]*store.Store{}, nodes: map[uint64]string{}}
	start := func(disk store.Disk, raftID uint64, id string) *store.Store {
		s, err := store.Open(store.Config{Disk: disk, Transport: wireEnd{w, id, make(chan []*raftpb.Message, 4096)}})
		if err != nil {
			b.Fatal(err)
		}
		w.mu.Lock()
		w.stores[raftID] = s
		w.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		b.Cleanup(func() { cancel(); <-ended })
		return s
	}
	disk := func() store.Disk {
		return store.Disk{Dir: b.TempDir() + "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	}
	first := &api.Member{RaftId: store.NewRaftID(), NodeId: "m1", Address: "m1:1"}
	d := disk()
	if err := store.Bootstrap(d, "c1", first); err != nil {
		b.Fatal(err)
	}
	leader := start(d, first.RaftId, "m1")
	for leadership, changed := leader.Leadership(); !leadership.Self; leadership, changed = leader.Leadership() {
		<-changed
	}
	for i := 2; i <= n; i++ {
		id := fmt.Sprint("m", i)
		joined, err := leader.AddMember(context.Background(), id, id+":1", store.Protocol)
		if err != nil {
			b.Fatal(err)
		}
		d := disk()
		if err := store.Prepare(d, "c1", joined); err != nil {
			b.Fatal(err)
		}
		start(d, joined.RaftId, id)
		for {
			voters := 0
			_, changed := leader.Leadership()
			for _, m := range leader.Members() {
				if !m.Learner {
					voters++
				}
			}
			if voters == i {
				break
			}
			<-changed
		}
	}
	return leader
}

// BenchmarkUpdate creates objects: one per operation, from 1 or 64 writers, on 1 or 3 managers that share this machine's disk.
func BenchmarkUpdate(b *testing.B) {
	for _, managers := range []int{1, 3} {
		for _, writers := range []int{1, 64} {
			b.Run(fmt.Sprintf("managers=%d/writers=%d", managers, writers), func(b *testing.B) {
				leader := startBench(b, managers)
				b.ResetTimer()
				var next atomic.Int64
				var wg sync.WaitGroup
				began := time.Now()
				for range writers {
					wg.Go(func() {
						for next.Add(1) <= int64(b.N) {
							err := leader.Update(context.Background(), "", func(tx store.Tx) error {
								return tx.Create(task(object.NewID(), "s", 1, "n"))
							})
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "writes/s")
			})
		}
	}
}

// BenchmarkView reads one of 10,000 objects.
func BenchmarkView(b *testing.B) {
	s, err := store.NewLocal("c1")
	if err != nil {
		b.Fatal(err)
	}
	err = s.Update(b.Context(), "", func(tx store.Tx) error {
		for i := range 10000 {
			if err := tx.Create(task(fmt.Sprint("t", i), "s", uint64(i), "n")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		err := s.View(func(tx store.ReadTx) error {
			_, err := store.Get[*api.Task](tx, "t5000")
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
