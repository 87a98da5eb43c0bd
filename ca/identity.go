package ca

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"github.com/skep-io/skep/api"
)

// Identity is who this node is at the moment. Everything that speaks TLS holds one, so that a renewal reaches each new
// connection with nobody told. Safe for concurrent use.
type Identity struct {
	mu      sync.RWMutex
	current Credentials     // guarded by mu, never zero
	cert    tls.Certificate // guarded by mu, made of current
	changed chan struct{}   // guarded by mu, closed by the next Replace
	// rootsChanged is guarded by mu, and closed by the next Replace with other roots.
	rootsChanged chan struct{}

	trust trust
}

// NewIdentity returns an identity that starts with c, which must not be zero.
func NewIdentity(c Credentials) *Identity {
	return &Identity{current: c, cert: c.certificate(), changed: make(chan struct{}), rootsChanged: make(chan struct{})}
}

// Replace makes c the current credentials and wakes the watchers. It returns ErrOtherNode, and changes nothing, if c is for
// another node or cluster (C5).
func (i *Identity) Replace(c Credentials) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.current.name
	if c.IsZero() || c.name.NodeID != old.NodeID || c.name.ClusterID != old.ClusterID {
		return ErrOtherNode
	}
	former := i.current.roots
	i.current, i.cert = c, c.certificate()
	close(i.changed)
	i.changed = make(chan struct{})
	if !slices.EqualFunc(former, c.roots, (*x509.Certificate).Equal) {
		close(i.rootsChanged)
		i.rootsChanged = make(chan struct{})
	}
	return nil
}

// Watch returns a channel that is closed by the next change. Call it before reading what is to be watched:
//
//	for {
//		changed := id.Watch()
//		act(id.Role())
//		<-changed
//	}
func (i *Identity) Watch() <-chan struct{} {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.changed
}

// Current returns the credentials of this moment.
func (i *Identity) Current() Credentials {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.current
}

// NodeID returns the node's ID, which never changes.
func (i *Identity) NodeID() string { return i.Current().name.NodeID }

// ClusterID returns the cluster's ID, which never changes.
func (i *Identity) ClusterID() string { return i.Current().name.ClusterID }

// Role returns the role that the current certificate gives.
func (i *Identity) Role() api.Role { return i.Current().name.Role }

// Expiry returns when the current certificate ends.
func (i *Identity) Expiry() time.Time { return i.Current().chain[0].NotAfter }

// Roots returns the root certificates that the swarm trusts now, which the caller must not modify, and a channel that is closed when
// they become others: two during a rotation of the root, else one.
func (i *Identity) Roots() (roots []*x509.Certificate, changed <-chan struct{}) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.current.roots, i.rootsChanged
}

// RootPEM returns the trusted roots as PEM.
func (i *Identity) RootPEM() []byte { return EncodeBundle(i.Current().roots) }

func (i *Identity) tlsCertificate() (*tls.Certificate, *x509.CertPool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	cert := i.cert
	return &cert, i.current.pool
}
