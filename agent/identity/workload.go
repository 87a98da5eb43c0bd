package identity

import (
	"context"
	"crypto/x509"
	"net"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// What one container can take of this process: it connects to a server of root's.
const (
	maxConnections = 32
	maxStreams     = 8
	maxRequest     = 4 << 10 // bytes; requests are empty
	maxHeaders     = 8 << 10 // bytes
	ioBuffer       = 4 << 10 // bytes
	connectTimeout = 10 * time.Second
)

// securityHeader is what the standard demands of every request, so that no web page can be made to send one.
const securityHeader = "workload.spiffe.io"

// newServer returns the server of a task's socket.
func (k *Keeper) newServer(t *task) *grpc.Server {
	s := grpc.NewServer(grpc.Creds(insecure.NewCredentials()), grpc.UnaryInterceptor(unarySecurity), grpc.StreamInterceptor(streamSecurity),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxRecvMsgSize(maxRequest), grpc.MaxHeaderListSize(maxHeaders),
		grpc.ReadBufferSize(ioBuffer), grpc.WriteBufferSize(ioBuffer), grpc.ConnectionTimeout(connectTimeout))
	workload.RegisterSpiffeWorkloadAPIServer(s, &server{k: k, t: t})
	return s
}

// limit bounds the connections to a task's socket.
func limit(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConnections) }

func unarySecurity(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := checkSecurity(ctx); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func streamSecurity(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := checkSecurity(s.Context()); err != nil {
		return err
	}
	return handler(srv, s)
}

func checkSecurity(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get(securityHeader), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "security header missing from request: send the metadata "+securityHeader+": true")
	}
	return nil
}

// server is the SPIFFE Workload API of one task (W2). What is not X.509 is not implemented.
type server struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	k *Keeper
	t *task
}

// state is what a task is to know at one time.
type state struct {
	svid    svid
	roots   []*x509.Certificate
	changed <-chan struct{}
}

func (s *server) state() state {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return state{s.t.svid, s.k.roots, s.t.changed}
}

// FetchX509SVID implements the Workload API. A caller that comes before there is an SVID waits for it.
func (s *server) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	return s.follow(stream.Context(), func(now state) error {
		if !now.svid.valid(time.Now()) {
			return nil
		}
		key, err := now.svid.revealKey()
		if err != nil {
			return status.Error(codes.Internal, "the SVID's key can't be encoded")
		}
		return stream.Send(&workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
			SpiffeId: now.svid.name.SPIFFEID(), X509Svid: rawChain(now.svid.chain), X509SvidKey: key, Bundle: rawChain(now.roots),
		}}})
	})
}

// FetchX509Bundles implements the Workload API.
func (s *server) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	var sent []*x509.Certificate
	return s.follow(stream.Context(), func(now state) error {
		if slices.EqualFunc(sent, now.roots, (*x509.Certificate).Equal) {
			return nil
		}
		sent = now.roots
		return stream.Send(&workload.X509BundlesResponse{Bundles: map[string][]byte{"spiffe://" + s.k.cfg.ClusterID: rawChain(now.roots)}})
	})
}

// follow calls send now and after each change, until ctx ends.
func (s *server) follow(ctx context.Context, send func(state) error) error {
	for {
		now := s.state()
		if err := send(now); err != nil {
			return err
		}
		select {
		case <-now.changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}
