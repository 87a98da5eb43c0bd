package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/token"
)

const (
	// joinTimeout bounds each of the two requests of a join.
	joinTimeout = 10 * time.Second
	// maxJoinReply in bytes: a bundle and some IDs. What answers the first request is a stranger.
	maxJoinReply = MaxBundleSize + 4<<10
)

// JoinConfig says how a machine joins a swarm.
type JoinConfig struct {
	// Address of a manager, host:port.
	Address string
	Token   token.Token
	// Availability that the new node starts with.
	Availability api.Availability
	// Hostname of this machine, for people.
	Hostname string
	// Key of the new node, from NewKey, or nil for a fresh one. A caller that tries again after a lost answer gives the same
	// key, so that it becomes one node and not two.
	Key *ecdsa.PrivateKey
	// Dial opens a connection to Address, or nil for TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Join makes this machine a node: it fetches the root from the manager, compares it with the token's digest, and only then, over
// a connection verified with that root, sends the secret with a request for a certificate (C3). The caller saves what it
// returns. One call is one try.
//
// It returns token.ErrMissing, token.ErrOtherRoot, token.ErrWrongSecret, ErrUnreachable, ErrBadServer, ErrBusy, ErrTooManyTries or
// ErrRefused with the manager's words, all wrapped. While a person has to let the node in, it returns a *PendingError: the same
// again, with the same Key, goes on.
func Join(ctx context.Context, cfg JoinConfig) (Credentials, error) {
	if cfg.Token.IsZero() {
		return Credentials{}, token.ErrMissing
	}
	roots, err := fetchRoots(ctx, cfg)
	if err != nil {
		return Credentials{}, fmt.Errorf("join %s: %w", cfg.Address, err)
	}
	creds, err := requestNode(ctx, cfg, roots)
	if err != nil {
		return Credentials{}, fmt.Errorf("join %s: %w", cfg.Address, err)
	}
	return creds, nil
}

// fetchRoots asks a server that nothing is known of for its root, and believes the token's digest alone.
func fetchRoots(ctx context.Context, cfg JoinConfig) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, hs, err := cfg.connect(joinTLS(nil))
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing was left to send
	resp, err := api.NewCAClient(conn).GetRootCertificate(ctx, &api.GetRootCertificateRequest{})
	if err != nil {
		return nil, serverError(err, hs)
	}
	roots, err := ParseRoots(resp.GetCertificate())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadServer, err)
	}
	if token.DigestOf(roots) != cfg.Token.Digest() {
		return nil, token.ErrOtherRoot
	}
	return roots, nil
}

// requestNode sends token and CSR to a manager that proves itself with a root of roots.
func requestNode(ctx context.Context, cfg JoinConfig, roots []*x509.Certificate) (Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	key, csr, err := cfg.csr()
	if err != nil {
		return Credentials{}, err
	}
	conn, hs, err := cfg.connect(joinTLS(poolOf(roots)))
	if err != nil {
		return Credentials{}, err
	}
	defer conn.Close() //nolint:errcheck // nothing was left to send
	resp, err := api.NewCAClient(conn).IssueCertificate(ctx, &api.IssueCertificateRequest{
		Csr: csr, Token: cfg.Token.Reveal(), Availability: cfg.Availability, Hostname: cfg.Hostname, CanWait: true,
	})
	if err != nil {
		return Credentials{}, joinError(err, hs)
	}
	if resp.GetPending() {
		return Credentials{}, &PendingError{NodeID: resp.GetNodeId()}
	}
	chain, err := ParseBundle(resp.GetCertificate())
	if err != nil {
		return Credentials{}, fmt.Errorf("%w: %w", ErrBadServer, err)
	}
	creds, err := NewCredentials(roots, chain, key)
	if err != nil {
		return Credentials{}, fmt.Errorf("%w: %w", ErrBadServer, err)
	}
	if creds.name.NodeID != resp.GetNodeId() || creds.name.ClusterID != resp.GetClusterId() {
		return Credentials{}, fmt.Errorf("%w: %w", ErrBadServer, ErrOtherNode)
	}
	return creds, nil
}

// csr returns the node's key and a request for a certificate for it.
func (cfg JoinConfig) csr() (*ecdsa.PrivateKey, []byte, error) {
	key := cfg.Key
	if key == nil {
		var err error
		if key, err = NewKey(); err != nil {
			return nil, nil, err
		}
	}
	csr, err := NewCSR(key)
	return key, csr, err
}

// connect returns a connection that gRPC opens with the first request, and what becomes of its TLS handshakes.
func (cfg JoinConfig) connect(t *tls.Config) (*grpc.ClientConn, *handshakes, error) {
	creds := &handshakes{TransportCredentials: boundedCreds{TransportCredentials: credentials.NewTLS(t)}}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxJoinReply)),
		grpc.WithDisableServiceConfig(),
	}
	if cfg.Dial != nil {
		opts = append(opts, grpc.WithContextDialer(cfg.Dial))
	}
	conn, err := grpc.NewClient("passthrough:///"+cfg.Address, opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return conn, creds, nil
}

// handshakes remembers whether a server proved itself or failed to, which gRPC only reports as text.
type handshakes struct {
	credentials.TransportCredentials
	proved, refused atomic.Bool
}

// ClientHandshake implements credentials.TransportCredentials.
func (h *handshakes) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, raw)
	var (
		unverified *tls.CertificateVerificationError
		alert      tls.AlertError
		notTLS     tls.RecordHeaderError
	)
	if errors.As(err, &unverified) || errors.As(err, &alert) || errors.As(err, &notTLS) {
		h.refused.Store(true)
	}
	h.proved.Store(err == nil)
	return conn, info, err
}

// Clone implements credentials.TransportCredentials. gRPC clones once, before it connects; the clone must remain this one.
func (h *handshakes) Clone() credentials.TransportCredentials { return h }

// joinError says what a refused request with a token means to the one who joins.
func joinError(err error, h *handshakes) error {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return token.ErrWrongSecret // the server's words are the same
	case codes.ResourceExhausted:
		return ErrTooManyTries
	case codes.InvalidArgument, codes.FailedPrecondition:
		return fmt.Errorf("%w: %s", ErrRefused, status.Convert(err).Message()) // the manager's own words say what to do
	}
	if h.proved.Load() && status.Code(err) == codes.Unavailable {
		return fmt.Errorf("%w: %s", ErrBusy, status.Convert(err).Message())
	}
	return serverError(err, h)
}

// serverError says why a server gave no answer that is of use.
func serverError(err error, h *handshakes) error {
	meaning := ErrBadServer
	code := status.Code(err)
	if (code == codes.Unavailable || code == codes.DeadlineExceeded) && !h.refused.Load() {
		meaning = ErrUnreachable
	}
	return fmt.Errorf("%w: %w", meaning, errors.New(status.Convert(err).Message()))
}
