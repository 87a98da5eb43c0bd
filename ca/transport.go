package ca

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/skep-io/skep/api"
)

// HandshakeTimeout bounds a TLS handshake, so that a peer that stalls holds no place for long.
const HandshakeTimeout = 5 * time.Second

// ServerCredentials returns ServerTLS for a gRPC server. It also bounds the handshakes of TLS and HTTP/2 by HandshakeTimeout and closes a
// connection when the certificate that opened it expires, or its root is trusted no more (C7): gRPC clients then connect again by
// themselves, with the renewed one.
func (i *Identity) ServerCredentials() credentials.TransportCredentials {
	return boundedCreds{TransportCredentials: credentials.NewTLS(i.ServerTLS()), trust: &i.trust}
}

// ClientCredentials returns ClientTLS(serverName) for gRPC clients, with the same bounds as ServerCredentials. Handshakes with a node
// that Distrust was told of return ErrRevoked.
func (i *Identity) ClientCredentials(serverName string) credentials.TransportCredentials {
	least := api.Role_ROLE_WORKER
	if serverName == OUManager {
		least = api.Role_ROLE_MANAGER
	}
	return boundedCreds{credentials.NewTLS(i.ClientTLS(serverName)), &i.trust, least}
}

// ExpiredCredentials are for gRPC clients whose own certificate has expired, which no server accepts: they show none, and verify that the
// server is a manager. See RenewExpired.
func (i *Identity) ExpiredCredentials() credentials.TransportCredentials {
	c := i.ClientTLS(OUManager)
	c.GetClientCertificate = nil
	return boundedCreds{credentials.NewTLS(c), &i.trust, api.Role_ROLE_MANAGER}
}

// boundedCreds adds limits of time to TLS, and notes the connections, for Distrust.
type boundedCreds struct {
	credentials.TransportCredentials
	trust *trust   // or nil
	least api.Role // that a server must have
}

// ClientHandshake implements credentials.TransportCredentials.
func (b boundedCreds) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	conn, info, err := b.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	conn, role := b.trust.keep(raw, untilExpiry(conn, info), info)
	if role < b.least {
		return nil, nil, errors.Join(ErrRevoked, conn.Close())
	}
	return conn, info, nil
}

// ServerHandshake implements credentials.TransportCredentials.
func (b boundedCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := raw.SetDeadline(time.Now().Add(HandshakeTimeout)); err != nil {
		return nil, nil, err
	}
	conn, info, err := b.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	// The deadline stays for the peer's first words of HTTP/2: gRPC lifts it after them.
	conn, _ = b.trust.keep(raw, untilExpiry(conn, info), info) // whoever is not believed may still hear why
	return conn, info, nil
}

// Clone implements credentials.TransportCredentials.
func (b boundedCreds) Clone() credentials.TransportCredentials {
	return boundedCreds{b.TransportCredentials.Clone(), b.trust, b.least}
}

// untilExpiry makes conn close itself when the peer's certificate expires, if it showed one.
func untilExpiry(conn net.Conn, info credentials.AuthInfo) net.Conn {
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok || len(tlsInfo.State.PeerCertificates) == 0 {
		return conn
	}
	life := time.Until(tlsInfo.State.PeerCertificates[0].NotAfter)
	return &mortalConn{conn, time.AfterFunc(life, func() { _ = conn.Close() })}
}

// mortalConn is a connection that a timer closes, or its owner before that.
type mortalConn struct {
	net.Conn
	end *time.Timer
}

// Close implements net.Conn.
func (c *mortalConn) Close() error {
	c.end.Stop()
	return c.Conn.Close()
}
