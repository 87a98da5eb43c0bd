package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc/credentials"

	"github.com/skep-io/skep/api"
)

// ErrRevoked is returned when a connection would lead to a node that is not to be believed any more.
var ErrRevoked = errors.New("the node was removed from the swarm, or its certificate is of a role that it lost")

// trust is what a node knows of others beside their certificates, and the connections that it has with them.
type trust struct {
	live Connections[peerConn]

	mu      sync.Mutex
	version uint64              // guarded by mu
	revoked map[string]api.Role // guarded by mu: what is left of a node's role, see Distrust
	pool    *x509.CertPool      // guarded by mu: the roots since they last changed, or nil
}

// peerConn is what is known of a live connection.
type peerConn struct {
	name         Name
	transport    string
	certificates []*x509.Certificate // that the peer showed, its own first
}

// Transports returns what was negotiated for the live connections with other nodes, each kind once, such as "TLS 1.3, X25519MLKEM768".
func (i *Identity) Transports() []string {
	kinds := map[string]bool{}
	for _, peer := range i.trust.live.Peers() {
		kinds[peer.transport] = true
	}
	return slices.Sorted(maps.Keys(kinds))
}

// Distrust replaces what is known of nodes whose certificates say more than they may: by id, the role that they still have,
// unspecified for none. Live connections with such nodes are closed at once; a node that was demoted connects again with its new
// certificate. What is older than what is known already, by its version, changes nothing.
func (i *Identity) Distrust(version uint64, revoked map[string]api.Role) {
	if i.trust.replace(version, revoked) {
		i.trust.live.Cut(func(peer peerConn) bool { return i.trust.believed(peer.name) != peer.name.Role })
	}
}

// replace reports whether what is known is of that version now.
func (t *trust) replace(version uint64, revoked map[string]api.Role) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if version < t.version {
		return false
	}
	t.version, t.revoked = version, revoked
	return true
}

// Revoked returns the role that is left to a node that Distrust was told of, or false.
func (i *Identity) Revoked(nodeID string) (api.Role, bool) {
	i.trust.mu.Lock()
	defer i.trust.mu.Unlock()
	role, known := i.trust.revoked[nodeID]
	return role, known
}

// believed returns the role that a node with a certificate may act in: that of the certificate, or less.
func (t *trust) believed(name Name) api.Role {
	t.mu.Lock()
	defer t.mu.Unlock()
	role, known := t.revoked[name.NodeID]
	if !known {
		return name.Role
	}
	return min(role, name.Role)
}

// keep notes a connection with a node, over raw, until it is closed. It returns the connection to use, and the role that the node is
// believed to have. What changes while it does so is either seen here, or finds the connection noted.
func (t *trust) keep(raw, conn net.Conn, info credentials.AuthInfo) (net.Conn, api.Role) {
	tlsInfo, ok := info.(credentials.TLSInfo)
	if t == nil || !ok || len(tlsInfo.State.PeerCertificates) == 0 {
		return conn, api.Role_ROLE_UNSPECIFIED
	}
	name, err := NameOf(tlsInfo.State.PeerCertificates[0])
	if err != nil {
		return conn, api.Role_ROLE_UNSPECIFIED
	}
	peer := peerConn{name, tls.VersionName(tlsInfo.State.Version) + ", " + tlsInfo.State.CurveID.String(), tlsInfo.State.PeerCertificates}
	kept := t.live.Keep(raw, conn, peer)
	t.mu.Lock()
	pool := t.pool
	t.mu.Unlock()
	if !peer.rootedIn(pool) {
		_ = raw.Close() // see Connections.Cut
	}
	return kept, t.believed(name)
}
