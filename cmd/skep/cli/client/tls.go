package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/skep-io/skep/internal/fault"
)

// managerName is the name that every manager's certificate of the swarm's CA has, and no worker's.
const managerName = "swarm-manager"

var (
	// ErrTLS is returned when certificate, key and CA can't be used.
	ErrTLS = errors.New("invalid TLS credentials")
	// ErrServer is returned when what answers can't prove that it is a manager.
	ErrServer = errors.New("not a manager that can be trusted")
)

// TLS is what a user proves to be somebody with, and knows managers by. All three are PEM; the zero value is none.
type TLS struct {
	// CA are the certificates of the CA that signs for managers.
	CA []byte
	// Cert is the user's certificate, and those between it and the CA.
	Cert []byte
	// Key is the private key of Cert.
	Key []byte
}

// IsZero reports whether t is none.
func (t TLS) IsZero() bool { return len(t.CA)+len(t.Cert)+len(t.Key) == 0 }

// Format prints "[redacted]" for every verb.
func (t TLS) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// LogValue returns "[redacted]".
func (t TLS) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON returns "[redacted]" as a JSON string.
func (t TLS) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// Expires returns when the user's certificate ends, or the zero time when there is none.
func (t TLS) Expires() time.Time {
	block, _ := pem.Decode(t.Cert)
	if block == nil {
		return time.Time{}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}
	}
	return cert.NotAfter
}

// Check returns an ErrTLS that says what is wrong with t, and nil when it can be used now.
func (t TLS) Check() error {
	_, err := t.config("")
	return err
}

// config returns the client's side of mutual TLS with host.
func (t TLS) config(host string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(t.CA) {
		return nil, fault.New(fault.Invalid, "%w: the CA file holds no certificate", ErrTLS)
	}
	pair, err := tls.X509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w: certificate and key: %w", ErrTLS, err)
	}
	if end := t.Expires(); !time.Now().Before(end) {
		return nil, fault.New(fault.Unauthenticated, "%w: the certificate of user %s expired on %s: ask an admin for a new one (`skep user create`)",
			ErrTLS, pair.Leaf.Subject.CommonName, end.UTC().Format(time.DateTime))
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		ServerName:           host,
		NextProtos:           []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		// A manager's certificate has no host name: so the library's check is replaced by one that also takes the name that only
		// managers have.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies
		VerifyConnection:   func(s tls.ConnectionState) error { return verifyServer(s, roots, host) },
	}, nil
}

// verifyServer returns ErrServer unless the CA vouches for a server with the host's name, or for a manager of the swarm.
func verifyServer(s tls.ConnectionState, roots *x509.CertPool, host string) error {
	leaf, between := s.PeerCertificates[0], x509.NewCertPool()
	for _, cert := range s.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrServer, err)
	case leaf.VerifyHostname(managerName) != nil && leaf.VerifyHostname(host) != nil:
		return fmt.Errorf("%w: its certificate is neither a manager's nor for the name %s: is it a worker?", ErrServer, host)
	}
	return nil
}

// notedCreds remember why a handshake failed, because gRPC keeps only a text.
type notedCreds struct {
	credentials.TransportCredentials
	note func(error)
}

// ClientHandshake implements credentials.TransportCredentials.
func (n notedCreds) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := n.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err == nil {
		conn, err = greeted(ctx, conn)
	}
	if err != nil {
		n.note(err)
		return nil, nil, err
	}
	return conn, info, nil
}

// greeted waits for the first byte of the server, which greets first in HTTP/2. In TLS 1.3 that is when a client hears whether its
// certificate was taken: one that writes before may only hear that the connection broke.
func greeted(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	g := &greetedConn{Conn: conn}
	if _, err := io.ReadFull(conn, g.first[:]); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return g, nil
}

// greetedConn is a connection whose first byte was read.
type greetedConn struct {
	net.Conn
	first [1]byte
	taken bool
}

// Read implements net.Conn. It is called by one goroutine at a time.
func (g *greetedConn) Read(p []byte) (int, error) {
	if g.taken || len(p) == 0 {
		return g.Conn.Read(p)
	}
	g.taken = true
	return copy(p, g.first[:]), nil
}

// Clone implements credentials.TransportCredentials.
func (n notedCreds) Clone() credentials.TransportCredentials {
	return notedCreds{n.TransportCredentials.Clone(), n.note}
}

// notReadyAlert is what a daemon says in TLS that has no identity to show.
const notReadyAlert = "remote error: tls: internal error"

// refusedByServer reports whether the text of an error says that the server did not take the certificate.
func refusedByServer(text string) bool {
	_, alert, found := strings.Cut(text, "remote error: tls: ")
	return found && strings.Contains(alert, "certificate")
}
