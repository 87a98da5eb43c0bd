package identity

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/internal/grpctest"
)

// client returns go-spiffe's client of a task's socket.
func (b *bench) client(t *testing.T, h *shelf) *workloadapi.Client {
	t.Helper()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return h.listener.DialContext(ctx) }
	c, err := workloadapi.New(t.Context(), workloadapi.WithAddr("unix:///shelf"), workloadapi.WithDialOptions(grpc.WithContextDialer(dial)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// raw returns a client without the standard's manners.
func (b *bench) raw(t *testing.T, h *shelf) workload.SpiffeWorkloadAPIClient {
	t.Helper()
	return workload.NewSpiffeWorkloadAPIClient(grpctest.Dial(t, h.listener))
}

func TestWorkloadAPI_EachSocketIsOneTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for _, id := range []string{"web", "db"} {
			c := b.client(t, b.provide(t, id))
			all, err := c.FetchX509SVIDs(t.Context())
			if err != nil || len(all) != 1 || all[0].ID.String() != "spiffe://"+b.clusterID+"/service/"+id+"/task/1" {
				t.Errorf("%s: %v, %v", id, all, err)
			}
			bundles, err := c.FetchX509Bundles(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			bundle, err := bundles.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(b.clusterID))
			if err != nil || len(bundle.X509Authorities()) != 1 || !bundle.HasX509Authority(b.root.Certificate()) || bundles.Len() != 1 {
				t.Errorf("%s: bundle %v, %v", id, bundle, err)
			}
		}
	})
}

// watcher takes in what a stream of SVIDs says.
type watcher chan *workloadapi.X509Context

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (w watcher) OnX509ContextUpdate(c *workloadapi.X509Context) { w <- c }

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher.
func (w watcher) OnX509ContextWatchError(error) {}

func TestWorkloadAPI_PushesRenewalsAndRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.client(t, b.provide(t, "web"))
		ctx, cancel := context.WithCancel(t.Context())
		seen, done := make(watcher), make(chan error, 1)
		go func() { done <- c.WatchX509Context(ctx, seen) }()
		first := (<-seen).DefaultSVID()
		second := (<-seen).DefaultSVID()
		if !second.Certificates[0].NotAfter.After(first.Certificates[0].NotAfter) {
			t.Error("what was pushed is no renewal")
		}
		b.rotate(t)
		for {
			now := <-seen
			bundle, _ := now.Bundles.Get(spiffeid.RequireTrustDomainFromString(b.clusterID))
			if now.DefaultSVID().Certificates[0].CheckSignatureFrom(b.root.Certificate()) == nil && len(bundle.X509Authorities()) == 2 {
				break
			}
		}
		cancel()
		<-done
	})
}

func TestWorkloadAPI_Refuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.raw(t, b.provide(t, "web"))
		for what, header := range map[string]metadata.MD{
			"no header": {}, "another value": metadata.Pairs(securityHeader, "yes"),
			"two values": metadata.Pairs(securityHeader, "true", securityHeader, "true"),
		} {
			ctx := metadata.NewOutgoingContext(t.Context(), header)
			stream, err := c.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s: %v", what, err)
			}
			if _, err := c.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{}); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s, unary: %v", what, err)
			}
		}
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs(securityHeader, "true"))
		if _, err := c.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("a JWT: %v", err)
		}
		if _, err := c.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("the check of a JWT: %v", err)
		}
	})
}
