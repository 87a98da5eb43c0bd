package caserver

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
)

// onDisk starts the store of a new swarm of one manager, which syncs each write to a disk.
func onDisk(b *testing.B) (*store.Store, Founding) {
	b.Helper()
	f, err := Found(time.Now(), FoundConfig{Spec: &api.ClusterSpec{}})
	if err != nil {
		b.Fatal(err)
	}
	disk := store.Disk{Dir: b.TempDir(), KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	self := &api.Member{RaftId: store.NewRaftID(), NodeId: f.Node.GetId(), Address: "127.0.0.1:1", Protocol: store.Protocol}
	if err := store.Bootstrap(disk, f.Cluster.GetId(), self); err != nil {
		b.Fatal(err)
	}
	s, err := store.Open(store.Config{Disk: disk, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	for leads := false; !leads; {
		leadership, changed := s.Leadership()
		if leads = leadership.Self; !leads {
			<-changed
		}
	}
	err = s.Update(b.Context(), "", func(tx store.Tx) error {
		if err := tx.Create(f.Cluster); err != nil {
			return err
		}
		return tx.Create(f.Node)
	})
	if err != nil {
		b.Fatal(err)
	}
	return s, f
}

func benchServer(b *testing.B) (*Server, Founding) {
	b.Helper()
	s, f := onDisk(b)
	server, err := New(Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return server, f
}

// BenchmarkIssueCertificate makes nodes and their certificates on one manager, for 64 joiners at a time from as many addresses.
func BenchmarkIssueCertificate(b *testing.B) {
	server, f := benchServer(b)
	tok := f.Cluster.GetJoinTokens().GetWorker()
	csrs := make([][]byte, 1000)
	for i := range csrs {
		_, csrs[i] = catest.KeyAndCSR(b)
	}
	b.SetParallelism(32)
	var mu sync.Mutex
	next := 0
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			i := next
			next++
			mu.Unlock()
			csr := csrs[i%len(csrs)]
			if i >= len(csrs) { // a key of its own makes it a node of its own
				_, csr = catest.KeyAndCSR(b)
			}
			address := net.JoinHostPort(net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)).String(), "1")
			ctx := authz.NewContext(b.Context(), authz.Caller{Kind: api.Caller_CALLER_ANYONE, Address: address})
			if _, err := server.IssueCertificate(ctx, &api.IssueCertificateRequest{Csr: csr, Token: tok}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
}

// BenchmarkRenewCertificate gives a node one certificate after the other, on one manager.
func BenchmarkRenewCertificate(b *testing.B) {
	server, f := benchServer(b)
	_, csr := catest.KeyAndCSR(b)
	ctx := authz.NewContext(b.Context(), authz.Caller{Kind: api.Caller_CALLER_MANAGER, NodeID: f.Node.GetId()})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := server.RenewCertificate(ctx, &api.RenewCertificateRequest{Csr: csr, NodeId: f.Node.GetId()}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
}

// BenchmarkJoin100 lets 100 machines join at the same time from one address, over TCP and TLS, by a standing token or by one join
// grant for all. All of them run here too, keys and handshakes included.
func BenchmarkJoin100(b *testing.B) {
	const machines = 100
	for _, granted := range []bool{false, true} {
		b.Run(map[bool]string{false: "token", true: "grant"}[granted], func(b *testing.B) {
			server, f := benchServer(b)
			address := serveTCP(b, server, f)
			tok, err := token.Parse(f.Cluster.GetJoinTokens().GetWorker())
			if err != nil {
				b.Fatal(err)
			}
			var took []time.Duration
			for b.Loop() {
				if granted {
					tok = benchGrant(b, server.cfg.Store, tok.Digest(), machines)
				}
				took = append(took, joinAtOnce(b, machines, ca.JoinConfig{Address: address, Token: tok})...)
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
			b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
		})
	}
}

func benchGrant(b *testing.B, s *store.Store, d token.Digest, uses uint32) token.Token {
	b.Helper()
	tok, g := catest.NewGrant(d, &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: uses})
	if err := s.Update(b.Context(), "", func(tx store.Tx) error { return tx.Create(g) }); err != nil {
		b.Fatal(err)
	}
	return tok
}

func joinAtOnce(b *testing.B, n int, cfg ca.JoinConfig) []time.Duration {
	b.Helper()
	took := make([]time.Duration, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			start := time.Now()
			if _, err := ca.Join(b.Context(), cfg); err != nil {
				b.Error(err)
			}
			took[i] = time.Since(start)
		})
	}
	wg.Wait()
	return took
}

func serveTCP(b *testing.B, server *Server, f Founding) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	a := authz.New(authz.Config{ClusterID: func() string { return f.Cluster.GetId() }, Nodes: authz.NewNodes(server.cfg.Store)})
	g := grpc.NewServer(append(a.ServerOptions(), grpc.Creds(ca.NewIdentity(f.Credentials).ServerCredentials()), grpc.ChainUnaryInterceptor(edge))...)
	api.RegisterCAServer(g, server)
	grpctest.Serve(b, g, listener)
	return listener.Addr().String()
}
