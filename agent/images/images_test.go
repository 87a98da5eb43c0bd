package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/image/archive"
	"github.com/skep-io/skep/image/unpack"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
)

func TestMain(m *testing.M) {
	if code, ok := unpack.Child(os.Args); ok {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

func openStore(t *testing.T) *image.Store {
	t.Helper()
	s, err := image.Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// load puts an image with a layer of size random bytes into a store and returns its digest.
func load(t *testing.T, s *image.Store, name string, size int) string {
	t.Helper()
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "data", Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	i, err := s.Import(t.Context(), &layer, name, archive.RootfsConfig{Config: ocispec.ImageConfig{Cmd: []string{"/x"}}})
	if err != nil {
		t.Fatal(err)
	}
	return i.Digest.String()
}

// holder is a node that hands out images, with a way of its own to misbehave.
type holder struct {
	api.UnimplementedAgentServer
	server *Server
	// misbehave, if not nil, takes part in every chunk that is sent.
	misbehave func(*api.GetBlobResponse) error

	mu sync.Mutex
	// sent is the number of bytes sent; guarded by mu.
	sent int
}

func (h *holder) GetBlob(r *api.GetBlobRequest, stream grpc.ServerStreamingServer[api.GetBlobResponse]) error {
	return fault.Status(h.server.Send(stream.Context(), r, func(m *api.GetBlobResponse) error {
		if h.misbehave != nil {
			if err := h.misbehave(m); err != nil {
				return err
			}
		}
		h.mu.Lock()
		h.sent += len(m.GetData())
		h.mu.Unlock()
		return stream.Send(m)
	}))
}

// swarm is a peer with the nodes that it can reach, by their ids.
type swarm struct {
	*Peer
	t     *testing.T
	conns map[string]*grpctest.Listener
	all   []*api.ImageHolder
}

func newSwarm(t *testing.T) *swarm {
	s := &swarm{t: t, conns: map[string]*grpctest.Listener{}}
	s.Peer = &Peer{
		Store: openStore(t), NodeID: "self", Logger: slog.New(slog.DiscardHandler),
		Locate: func(context.Context, string) ([]*api.ImageHolder, error) { return s.all, nil },
		Dial: func(nodeID, _ string) (*grpc.ClientConn, error) {
			return grpctest.NewClient(func(ctx context.Context) (net.Conn, error) { return s.conns[nodeID].DialContext(ctx) })
		},
	}
	return s
}

func (s *swarm) add(nodeID string, h *holder) {
	l := grpctest.Listen()
	g := grpc.NewServer()
	api.RegisterAgentServer(g, h)
	grpctest.Serve(s.t, g, l)
	s.conns[nodeID] = l
	s.all = append(s.all, &api.ImageHolder{NodeId: nodeID, PeerAddress: nodeID + ":1"})
}

// fetched gets the image, without unpacking it, which needs root.
func (s *swarm) fetched(t *testing.T, name, digest string) error {
	t.Helper()
	d, tag, err := s.identify(t.Context(), name+"@"+digest)
	if err != nil {
		t.Fatal(err)
	}
	return s.fetch(t.Context(), d, tag, name)
}

const layerSize = 3 << 20

func TestPeer_GoesOnWithTheNextNode(t *testing.T) {
	source := openStore(t)
	digest := load(t, source, "app:1", layerSize)
	s := newSwarm(t)
	left := 2 << 20
	broken := &holder{server: NewServer(source), misbehave: func(m *api.GetBlobResponse) error {
		if left -= len(m.GetData()); left < 0 {
			return errors.New("power cut")
		}
		return nil
	}}
	liar := &holder{server: NewServer(source), misbehave: func(m *api.GetBlobResponse) error {
		m.Data = bytes.Repeat([]byte{'x'}, len(m.GetData()))
		return nil
	}}
	good := &holder{server: NewServer(source)}
	s.add("broken", broken)
	s.add("good", good)
	if err := s.fetched(t, "app:1", digest); err != nil {
		t.Fatal(err)
	}
	if good.sent > layerSize*2/3 {
		t.Errorf("M2: the second node sent %d bytes of what the first had sent already", good.sent)
	}
	if d, err := s.Store.Resolve(t.Context(), "app:1"); d.String() != digest {
		t.Errorf("the tag leads to %s, %v", d, err)
	}

	other := newSwarm(t)
	other.add("liar", liar)
	if err := other.fetched(t, "app:1", digest); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("M1: from a node that lies: %v", err)
	}
	other.add("good", good)
	if err := other.fetched(t, "app:1", digest); err != nil {
		t.Errorf("after the liar: %v", err)
	}
}

func TestPeer_LeavesATagToTheImageThatHasIt(t *testing.T) {
	source := openStore(t)
	digest := load(t, source, "app:1", 10)
	s := newSwarm(t)
	mine := load(t, s.Store, "app:1", 20)
	s.add("good", &holder{server: NewServer(source)})
	if err := s.fetched(t, "app:1", digest); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Store.Resolve(t.Context(), "app:1"); d.String() != mine {
		t.Errorf("the tag leads to %s, %v", d, err)
	}
}

func TestPeer_SaysWhatIsMissing(t *testing.T) {
	s := newSwarm(t)
	digest := "sha256:" + strings.Repeat("0", 64)
	if err := s.fetched(t, "app:1", digest); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "skep image load") {
		t.Errorf("no holder: %v", err)
	}
	s.Locate = func(context.Context, string) ([]*api.ImageHolder, error) {
		return nil, fault.New(fault.Unavailable, "no manager")
	}
	if err := s.fetched(t, "app:1", digest); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("no manager: %v", err)
	}
	for name, want := range map[string]fault.Kind{"UPPER:1": fault.Invalid, "app:none": fault.NotFound} {
		if _, err := s.Acquire(t.Context(), name); fault.KindOf(err) != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

func TestServer_ServesABoundedNumber(t *testing.T) {
	store := openStore(t)
	digest := load(t, store, "app:1", 10)
	s := NewServer(store)
	hold, holding := make(chan struct{}), make(chan struct{})
	var sending sync.WaitGroup
	send := func(*api.GetBlobResponse) error {
		holding <- struct{}{}
		<-hold
		return nil
	}
	for range maxPeers {
		sending.Go(func() {
			if err := s.Send(t.Context(), &api.GetBlobRequest{Digest: digest}, send); err != nil {
				t.Error(err)
			}
		})
		<-holding
	}
	if err := s.Send(t.Context(), &api.GetBlobRequest{Digest: digest}, send); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("M3: one more: %v", err)
	}
	close(hold)
	sending.Wait()
	if err := s.Send(t.Context(), &api.GetBlobRequest{Digest: digest}, func(*api.GetBlobResponse) error { return nil }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// silent is a stream that never sends.
type silent struct {
	grpc.ServerStreamingClient[api.GetBlobResponse]
	ended <-chan struct{}
}

func (s silent) Recv() (*api.GetBlobResponse, error) {
	<-s.ended
	return nil, io.ErrUnexpectedEOF
}

func TestBlobReader_GivesUpAPeerThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		r := &blobReader{ctx: func() error { return context.Cause(ctx) }, cancel: cancel, stream: silent{ended: ctx.Done()}}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, errStalled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSummaries_AreTheNewest(t *testing.T) {
	store := openStore(t)
	load(t, store, "old:1", 1)
	newest := load(t, store, "new:1", 2)
	got, err := Summaries(t.Context(), store)
	if err != nil || len(got) != 2 || got[0].GetDigest() != newest || got[0].GetReferences()[0] != "docker.io/library/new:1" {
		t.Errorf("got %v, %v", got, err)
	}
}
