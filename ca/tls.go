package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// alpn is HTTP/2, which is all that nodes speak.
const alpn = "h2"

// policy is what every connection has in common (C7). X25519MLKEM768 is the only key exchange: traffic that is recorded today
// stays secret when elliptic curves fall, and there is nothing to downgrade to.
func policy() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		SessionTicketsDisabled: true, // a resumed session would outlive a rotated root or a changed role
		NextProtos:             []string{alpn},
	}
}

// ServerTLS returns a configuration for a listener. Each handshake uses the credentials of its moment. A client may come without
// a certificate, to join; one that it shows must be a current node certificate of this cluster.
func (i *Identity) ServerTLS() *tls.Config {
	outer := policy()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		cert, pool := i.tlsCertificate()
		c := policy()
		c.Certificates = []tls.Certificate{*cert}
		c.ClientAuth = tls.VerifyClientCertIfGiven
		c.ClientCAs = pool
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil
			}
			return i.checkPeer(s.PeerCertificates[0])
		}
		return c, nil
	}
	return outer
}

// ClientTLS returns a configuration for connections to a node of this cluster: serverName is OUManager for any manager, or the
// ID of a certain node. Each handshake uses the credentials of its moment.
func (i *Identity) ClientTLS(serverName string) *tls.Config {
	c := policy()
	c.ServerName = serverName
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, _ := i.tlsCertificate()
		return cert, nil
	}
	// RootCAs is fixed in a configuration, while the roots change during a rotation: so the library's check is replaced by
	// the same one against the roots of the moment.
	c.InsecureSkipVerify = true //nolint:gosec // VerifyConnection verifies, and tests show that it refuses
	c.VerifyConnection = func(s tls.ConnectionState) error {
		_, pool := i.tlsCertificate()
		if err := verifyServer(s, pool, serverName); err != nil {
			return err
		}
		return i.checkPeer(s.PeerCertificates[0])
	}
	return c
}

// checkPeer returns an error unless cert, which has been verified, is a node's of this cluster.
func (i *Identity) checkPeer(cert *x509.Certificate) error {
	name, err := NameOf(cert)
	if err != nil {
		return err
	}
	if name.ClusterID != i.ClusterID() {
		return ErrOtherNode
	}
	return nil
}

// verifyServer is what crypto/tls does for a client, against a given pool.
func verifyServer(s tls.ConnectionState, pool *x509.CertPool, serverName string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("server showed no certificate")
	}
	if serverName == "" { // which x509 takes for "any"
		return errors.New("no server name to verify")
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots:         pool,
		Intermediates: poolOf(s.PeerCertificates[1:]),
		DNSName:       serverName,
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("verify server certificate: %w", err)
	}
	return nil
}

// joinTLS is the client side before there is an identity. With a nil pool the server is not verified at all: only the
// root certificate may be asked for, which is then compared with the token's digest (C3).
func joinTLS(pool *x509.CertPool) *tls.Config {
	c := policy()
	c.ServerName = OUManager
	c.RootCAs = pool
	c.InsecureSkipVerify = pool == nil //nolint:gosec // see above
	return c
}
