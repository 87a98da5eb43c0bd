package ca_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

// BenchmarkIssue signs certificates, with the checks before and after, and nothing is stored.
func BenchmarkIssue(b *testing.B) {
	root, name := newRoot(b), newName(api.Role_ROLE_WORKER)
	_, csr := catest.KeyAndCSR(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := root.Issue(time.Now(), csr, ca.Profile{Name: name}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
}

// BenchmarkIssueWorkload signs the certificates of tasks.
func BenchmarkIssueWorkload(b *testing.B) {
	root, w := newRoot(b), ca.Workload{ClusterID: catest.NewID(), Service: "web", Slot: 1}
	_, csr := catest.KeyAndCSR(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := root.IssueWorkload(time.Now(), csr, w); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
}

// BenchmarkHandshake connects two nodes over TCP by mutual TLS 1.3 with X25519MLKEM768; both ends run here.
func BenchmarkHandshake(b *testing.B) {
	root := newRoot(b)
	name := newName(api.Role_ROLE_MANAGER)
	worker := name
	worker.NodeID, worker.Role = catest.NewID(), api.Role_ROLE_WORKER
	server := ca.NewIdentity(catest.Credentials(b, root, name, 0)).ServerCredentials()
	client := ca.NewIdentity(catest.Credentials(b, root, worker, 0)).ClientCredentials(ca.OUManager)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				if conn, _, err := server.ServerHandshake(raw); err == nil {
					discard(conn)
					_ = conn.Close()
				}
			}()
		}
	}()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			raw, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				b.Error(err)
				continue
			}
			conn, _, err := client.ClientHandshake(context.Background(), ca.OUManager, raw)
			if err != nil {
				b.Error(err)
				continue
			}
			_ = conn.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handshakes/s")
	_ = listener.Close()
	<-done
}
