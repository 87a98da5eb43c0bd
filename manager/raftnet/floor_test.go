package raftnet_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/grpctest"
)

// What a floor of the disk is measured with.
const (
	syncs    = 200
	syncSize = 2 << 10
)

// relayQueue is more than what is on its way to anybody in a relay.
const relayQueue = 5 * syncs

// floorSync is the median of writing and syncing 2 KiB in place in a majority of n files like the logs', all at once: the managers
// of a benchmark have one disk.
func floorSync(b *testing.B, n int) time.Duration {
	b.Helper()
	var files []*os.File
	for i := range n {
		f, err := os.Create(filepath.Join(b.TempDir(), fmt.Sprintf("floor-%d", i)))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, syncs*syncSize)); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		files = append(files, f)
	}
	var took []time.Duration
	for i := range syncs {
		began := time.Now()
		done := make(chan error, n)
		for _, f := range files {
			go func() {
				_, err := f.WriteAt(make([]byte, syncSize), int64(i*syncSize))
				done <- errors.Join(err, unix.Fdatasync(int(f.Fd())))
			}()
		}
		for answered := range n {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			if answered == n/2 {
				took = append(took, time.Since(began))
			}
		}
	}
	return median(took)
}

// floorTrip is the median of a round trip between two managers: the smallest RPC, over the transport that they have.
func floorTrip(b *testing.B, from, to *benchManager) time.Duration {
	b.Helper()
	conn, err := from.dial(to.id, to.listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	client := api.NewRaftClient(conn)
	var took []time.Duration
	for range 500 {
		began := time.Now()
		if _, err := client.Probe(b.Context(), &api.ProbeRequest{}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return median(took)
}

// relay is a manager without a store: the goroutines and channels that a write passes, and a disk.
type relay struct {
	api.UnimplementedRaftServer

	leads    bool
	file     *os.File
	received chan []byte
	toDisk   chan []byte
	fromDisk chan []byte
	to       []chan []byte // those that it sends to
}

// Send gives the loop what arrives.
func (r *relay) Send(stream grpc.ClientStreamingServer[api.SendRequest, api.SendResponse]) error {
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case r.received <- request.GetMessage():
		case <-stream.Context().Done():
			return nil
		}
	}
}

// disk writes in place and syncs, like floorSync.
func (r *relay) disk(ctx context.Context) {
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case b := <-r.toDisk:
			if r.leads {
				runtime.Gosched() // as the store's does
			}
			if _, err := r.file.WriteAt(b, int64(i%syncs*syncSize)); err != nil {
				return
			}
			if err := unix.Fdatasync(int(r.file.Fd())); err != nil {
				return
			}
			r.fromDisk <- b
		}
	}
}

// follow has the disk keep what it receives, and answers then.
func (r *relay) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-r.received:
			r.toDisk <- b
		case b := <-r.fromDisk:
			r.to[0] <- b[:8] // which write it was
		}
	}
}

// lead sends what is proposed to all, has the disk keep it, and answers once that and half of the others are done.
func (r *relay) lead(ctx context.Context, proposals chan chan struct{}) {
	var done chan struct{}
	var number uint64
	missing := 0
	for {
		var durable []byte
		select {
		case <-ctx.Done():
			return
		case done = <-proposals:
			number++
			b := make([]byte, syncSize)
			binary.BigEndian.PutUint64(b, number)
			for _, to := range r.to {
				to <- b
			}
			r.toDisk <- b
			missing = 1 + (len(r.to)+1)/2
			continue
		case durable = <-r.fromDisk:
		case durable = <-r.received:
		}
		if binary.BigEndian.Uint64(durable) != number {
			continue // from the slower of the others, of an earlier one
		}
		if missing--; missing == 0 {
			close(done)
		}
	}
}

// serve starts a relay at an address, with the certificate of a manager.
func (r *relay) serve(b *testing.B, m *benchManager) string {
	b.Helper()
	var err error
	if r.file, err = os.Create(filepath.Join(b.TempDir(), "relay-"+m.id)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.file.Close() })
	if _, err := r.file.Write(make([]byte, syncs*syncSize)); err != nil {
		b.Fatal(err)
	}
	if err := r.file.Sync(); err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(m.identity.ServerCredentials()))
	api.RegisterRaftServer(server, r)
	grpctest.Serve(b, server, listener)
	return listener.Addr().String()
}

// send sends what is in a queue to a relay at an address.
func send(b *testing.B, ctx context.Context, from, to *benchManager, address string, queue chan []byte) {
	b.Helper()
	conn, err := from.dial(to.id, address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	stream, err := api.NewRaftClient(conn).Send(ctx)
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case message := <-queue:
				if err := stream.Send(&api.SendRequest{Message: message}); err != nil {
					return
				}
			}
		}
	}()
}

// floorRelay is the median of the way of a write with nothing done on it: from the writer to a loop, to a sender for each of the
// others, over a stream of gRPC, to their loop, to their disk, and back the same way, while the leader's disk does as much; it ends when a
// majority has it. There is no Raft, no seal, no state and no answer that says what is committed.
func floorRelay(b *testing.B, group []*benchManager) time.Duration {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	relays := make([]*relay, len(group))
	addresses := make([]string, len(group))
	for i, m := range group {
		r := &relay{
			leads: i == 0, received: make(chan []byte, relayQueue), toDisk: make(chan []byte, relayQueue), fromDisk: make(chan []byte, relayQueue),
		}
		relays[i], addresses[i] = r, r.serve(b, m)
	}
	connect := func(from, to int) {
		queue := make(chan []byte, relayQueue)
		relays[from].to = append(relays[from].to, queue)
		send(b, ctx, group[from], group[to], addresses[to], queue)
	}
	for i := 1; i < len(group); i++ {
		connect(0, i)
		connect(i, 0)
	}
	for i, r := range relays {
		go r.disk(ctx)
		if i > 0 {
			go r.follow(ctx)
		}
	}
	proposals := make(chan chan struct{}, 1)
	go relays[0].lead(ctx, proposals)
	var took []time.Duration
	for range 5 * syncs {
		began := time.Now()
		done := make(chan struct{})
		proposals <- done
		<-done
		took = append(took, time.Since(began))
	}
	return median(took)
}
