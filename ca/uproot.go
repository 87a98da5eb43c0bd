package ca

import "crypto/x509"

// uproot closes the live connections whose peer's certificate leads to no root of the pool, now and when a handshake ends that began
// before (C7). gRPC connects again by itself, and the peer shows the certificate that it has by then.
func (t *trust) uproot(pool *x509.CertPool) {
	t.mu.Lock()
	t.pool = pool
	t.mu.Unlock()
	t.live.Cut(func(peer peerConn) bool { return !peer.rootedIn(pool) })
}

// rootedIn reports whether the peer's certificate leads to a root of the pool; nil is any.
func (p peerConn) rootedIn(pool *x509.CertPool) bool {
	if pool == nil {
		return true
	}
	_, err := p.certificates[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: poolOf(p.certificates[1:]), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}
