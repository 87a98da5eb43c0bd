package raftnet_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/raftnet"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

// objectSize is the payload of the objects that the benchmarks write.
const objectSize = 1 << 10

// benchManager is a manager as a daemon has it: its store on a real disk, sealed, and mutual TLS between managers, over loopback.
type benchManager struct {
	id       string
	identity *ca.Identity
	listener net.Listener
	disk     store.Disk
	server   *raftnet.Server
	store    *store.Store
}

func newBenchManager(b *testing.B, registry *catest.Registry) *benchManager {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	identity := ca.NewIdentity(catest.Member(b, registry, api.Role_ROLE_MANAGER))
	m := &benchManager{
		id: identity.NodeID(), identity: identity, listener: listener,
		disk: store.Disk{Dir: filepath.Join(b.TempDir(), "raft"), KEK: seal.NewKey(), Source: seal.SourceKeyFile},
	}
	m.server = raftnet.NewServer(raftnet.ServerConfig{
		NodeID: m.id, ClusterID: identity.ClusterID(), Dial: m.dial,
		Caller: certified,
	})
	server := grpc.NewServer(grpc.Creds(identity.ServerCredentials()))
	api.RegisterRaftServer(server, m.server)
	grpctest.Serve(b, server, listener)
	return m
}

// certified returns the node id in the caller's certificate.
func certified(ctx context.Context) (nodeID, address string) {
	p, _ := peer.FromContext(ctx)
	name, err := ca.NameOf(p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0])
	if err != nil {
		return "", ""
	}
	return name.NodeID, p.Addr.String()
}

func (m *benchManager) dial(nodeID, address string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts = append(opts, grpc.WithTransportCredentials(m.identity.ClientCredentials(nodeID)))
	return grpc.NewClient("passthrough:///"+address, opts...)
}

func (m *benchManager) start(b *testing.B) {
	b.Helper()
	s, err := store.Open(store.Config{Disk: m.disk, Transport: raftnet.NewTransport(raftnet.TransportConfig{Dial: m.dial, Logger: slog.New(slog.DiscardHandler)})})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // b's own ends before the clean-up
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	m.store = s
	m.server.Attach(s)
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
}

// benchGroup returns a group of n managers, the leader first.
func benchGroup(b *testing.B, n int) []*benchManager {
	b.Helper()
	registry := catest.NewRegistry(b)
	first := newBenchManager(b, registry)
	member := &api.Member{RaftId: store.NewRaftID(), NodeId: first.id, Address: first.listener.Addr().String(), Protocol: store.Protocol}
	if err := store.Bootstrap(first.disk, first.identity.ClusterID(), member); err != nil {
		b.Fatal(err)
	}
	first.start(b)
	group := []*benchManager{first}
	await := func(done func() bool) {
		for {
			_, changed := first.store.Leadership()
			if done() {
				return
			}
			<-changed
		}
	}
	await(func() bool { _, _, self := first.store.Leader(); return self })
	for i := 2; i <= n; i++ {
		m := newBenchManager(b, registry)
		joined, err := first.store.AddMember(b.Context(), m.id, m.listener.Addr().String(), store.Protocol)
		if err != nil {
			b.Fatal(err)
		}
		if err := store.Prepare(m.disk, m.identity.ClusterID(), joined); err != nil {
			b.Fatal(err)
		}
		m.start(b)
		group = append(group, m)
		await(func() bool {
			voters := 0
			for _, member := range first.store.Members() {
				if !member.Learner {
					voters++
				}
			}
			return voters == i
		})
	}
	return group
}

func benchObject() *api.Secret {
	id := object.NewID()
	return &api.Secret{Id: id, Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: id}, Data: make([]byte, objectSize)}}
}

// BenchmarkUpdate creates objects of 1 KiB, one per transaction. Beside the rate it reports, for a single writer, how its median
// compares with floors measured in the same run: one fdatasync and one round trip between managers; that of managers that share a
// disk, as these do; and that of the way which a write takes, with nothing done on it, see floorRelay.
func BenchmarkUpdate(b *testing.B) {
	for _, managers := range []int{1, 3} {
		for _, writers := range []int{1, 64} {
			b.Run(fmt.Sprintf("managers=%d/writers=%d", managers, writers), func(b *testing.B) {
				// Each manager is a process of its own elsewhere. A sync holds one of a process's processors, which are not more than these.
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(managers * runtime.NumCPU()))
				group := benchGroup(b, managers)
				leader := group[0].store
				b.ResetTimer()
				began := time.Now()
				took := writeAll(b, leader, writers)
				rate := float64(b.N) / time.Since(began).Seconds()
				b.StopTimer()
				b.ReportMetric(rate, "writes/s")
				b.ReportMetric(float64(median(took).Microseconds()), "p50-µs")
				sync, shared, trip := floorSync(b, 1), floorSync(b, managers), floorTrip(b, group[0], group[managers-1])
				b.ReportMetric(float64(sync.Microseconds()), "fdatasync-µs")
				b.ReportMetric(float64(shared.Microseconds()), "shared-fdatasync-µs")
				b.ReportMetric(float64(trip.Microseconds()), "roundtrip-µs")
				if writers == 1 {
					b.ReportMetric(float64(median(took))/float64(sync+trip), "×floor")
					b.ReportMetric(float64(median(took))/float64(shared+trip), "×shared-floor")
					if managers > 1 {
						relay := floorRelay(b, group)
						b.ReportMetric(float64(relay.Microseconds()), "relay-µs")
						b.ReportMetric(float64(median(took))/float64(relay), "×relay")
					}
				}
			})
		}
	}
}

// writeAll makes b.N writes and returns how long each took.
func writeAll(b *testing.B, to *store.Store, writers int) []time.Duration {
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				began := time.Now()
				err := to.Update(context.Background(), "", func(tx store.Tx) error { return tx.Create(benchObject()) })
				if err != nil {
					b.Error(err)
					return
				}
				took[i-1] = time.Since(began)
			}
		})
	}
	wg.Wait()
	return took
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
