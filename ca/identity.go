package ca

import (
	"crypto/tls"
	"crypto/x509"
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
	met          string // guarded by mu, see setMet

	trust trust
}

// NewIdentity returns an identity that starts with c, which must not be zero.
func NewIdentity(c Credentials) *Identity {
	return &Identity{current: c, cert: c.certificate(), changed: make(chan struct{}), rootsChanged: make(chan struct{})}
}

// Replace makes c the current credentials, wakes the watchers, and closes the connections to those whom it does not trust any more.
// It returns ErrOtherNode, and changes nothing, if c is for another node or cluster (C5).
func (i *Identity) Replace(c Credentials) error {
	other, err := i.replace(c)
	if other {
		i.trust.uproot(c.pool)
	}
	return err
}

// replace reports whether the roots are others than before.
func (i *Identity) replace(c Credentials) (otherRoots bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.current.name
	if c.IsZero() || c.name.NodeID != old.NodeID || c.name.ClusterID != old.ClusterID {
		return false, ErrOtherNode
	}
	former := i.current.roots
	i.current, i.cert = c, c.certificate()
	close(i.changed)
	i.changed = make(chan struct{})
	if sameRoots(former, c.roots) {
		return false, nil
	}
	close(i.rootsChanged)
	i.rootsChanged = make(chan struct{})
	return true, nil
}

// TLS is what this node says of itself to its managers.
func (i *Identity) TLS() *api.NodeTLS {
	i.mu.RLock()
	c, met := i.current, i.met
	i.mu.RUnlock()
	said := c.tls()
	said.MetRotationId = met
	return said
}

// setMet notes the rotation whose wish this node has met, and wakes the watchers, also when managers missed it the first time.
func (i *Identity) setMet(rotation string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.met = rotation
	close(i.changed)
	i.changed = make(chan struct{})
}

// Watch returns a channel that is closed by the next change, of the credentials or of what TLS says. Call it before reading what is to be watched:
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
