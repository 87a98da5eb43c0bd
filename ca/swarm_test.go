package ca_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/grpctest"
)

// manager serves the CA of one swarm over real gRPC and TLS on connections in memory, as manager/caserver does over the
// network.
type manager struct {
	api.UnimplementedCAServer
	registry  *catest.Registry
	authority *ca.Authority
	listener  *memListener
	id        *ca.Identity
}

// newManager starts a manager that shows the identity id, or a member of the swarm's own if nil.
func newManager(t *testing.T, r *catest.Registry, id *ca.Identity) *manager {
	t.Helper()
	if id == nil {
		id = ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_MANAGER))
	}
	m := &manager{registry: r, authority: ca.NewAuthority(r), listener: newMemListener(), id: id}
	s := grpc.NewServer(grpc.Creds(id.ServerCredentials()))
	api.RegisterCAServer(s, m)
	grpctest.Serve(t, s, m.listener)
	return m
}

func (m *manager) GetRootCertificate(ctx context.Context, _ *api.GetRootCertificateRequest) (*api.GetRootCertificateResponse, error) {
	pem, err := m.authority.RootPEM(ctx)
	return &api.GetRootCertificateResponse{Certificate: pem}, err
}

func (m *manager) IssueCertificate(ctx context.Context, r *api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
	got, err := m.authority.Join(ctx, time.Now(), ca.JoinRequest{CSR: r.GetCsr(), Token: r.GetToken(), Hostname: r.GetHostname()})
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return &api.IssueCertificateResponse{NodeId: got.Name.NodeID, ClusterId: got.Name.ClusterID, Certificate: got.Chain}, nil
}

func (m *manager) RenewCertificate(ctx context.Context, r *api.RenewCertificateRequest) (*api.RenewCertificateResponse, error) {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	name, err := ca.NameOf(info.State.PeerCertificates[0])
	if err != nil || name.NodeID != r.GetNodeId() {
		return nil, status.Error(codes.PermissionDenied, "not yours")
	}
	got, err := m.authority.Renew(ctx, time.Now(), name.NodeID, r.GetCsr())
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return &api.RenewCertificateResponse{Certificate: got.Chain}, nil
}

// client returns a gRPC connection to m with the identity id, or without a certificate if id is nil.
func (m *manager) client(t *testing.T, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///manager", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(m.listener.dial), grpc.WithIdleTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// memListener counts the connections to it.
type memListener struct {
	*grpctest.Listener
	open atomic.Int32
}

func newMemListener() *memListener { return &memListener{Listener: grpctest.Listen()} }

func (l *memListener) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := l.DialContext(ctx)
	if err == nil {
		l.open.Add(1)
	}
	return conn, err
}

func (l *memListener) dialled() int { return int(l.open.Load()) }
