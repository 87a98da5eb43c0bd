package authz

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// UserPeer is the user at the other end of a connection over TCP, as the certificate says that a CA for people signed.
type UserPeer struct {
	credentials.TLSInfo
	// Name of the user.
	Name string
	// Fingerprint of the certificate in hex if the swarm's CA signed it, or empty for an external user.
	Fingerprint string
	// Most is what the user may be at most: the record says what the user is.
	Most api.Caller
	// expires is when the certificate does.
	expires time.Time
}

// People is the server's side of listeners for people. It knows the connections of users, so that one who may not come any more can
// be shown out. Safe for concurrent use.
type People struct{ open ca.Connections[UserPeer] }

// NewPeople returns a People without connections.
func NewPeople() *People { return &People{} }

// Credentials makes users of the peers of TLS, which has verified their certificates: those of the swarm's CA, or, if external, of
// another.
func (p *People) Credentials(tls credentials.TransportCredentials, external bool) credentials.TransportCredentials {
	return peopleCreds{tls, p, external}
}

// Recheck ends the connections of users who were revoked, or have another certificate by now, whatever is under way on them.
func (p *People) Recheck(users Users) {
	p.open.Cut(func(peer UserPeer) bool {
		record, known := users.User(peer.Name)
		return standingOf(peer.caller(), record, known) != current
	})
}

// Follow keeps to what a store says of users until ctx ends, and then returns nil.
func (p *People) Follow(ctx context.Context, s *store.Store) error {
	err := store.Follow(ctx, func(ctx context.Context) error { return p.follow(ctx, s) })
	if err != nil && !errors.Is(err, store.ErrStopped) {
		return fmt.Errorf("follow users: %w", err)
	}
	return nil
}

func (p *People) follow(ctx context.Context, s *store.Store) error {
	users := NewUsers(s)
	watch, err := s.Watch(ctx, 0, object.KindUser)
	for err == nil {
		p.Recheck(users)
		_, err = watch.Next(ctx)
	}
	return err
}

// caller is who the peer is at most, without an address.
func (u UserPeer) caller() Caller {
	return Caller{Kind: u.Most, User: u.Name, Fingerprint: u.Fingerprint}
}

type peopleCreds struct {
	credentials.TransportCredentials
	people   *People
	external bool
}

// ServerHandshake implements credentials.TransportCredentials.
func (c peopleCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	peer, err := c.identify(info)
	if err != nil {
		_ = conn.Close() // the first error is the one that matters
		return nil, nil, err
	}
	return c.people.open.Keep(raw, conn, peer), peer, nil
}

// identify reads the user from a verified certificate.
func (c peopleCreds) identify(info credentials.AuthInfo) (UserPeer, error) {
	tls, ok := info.(credentials.TLSInfo)
	if !ok || len(tls.State.VerifiedChains) == 0 {
		return UserPeer{}, ca.ErrBadUser
	}
	leaf := tls.State.PeerCertificates[0]
	peer := UserPeer{TLSInfo: tls, expires: leaf.NotAfter}
	if c.external {
		peer.Name, peer.Most = leaf.Subject.CommonName, api.Caller_CALLER_ADMIN
		return peer, nil
	}
	name, err := ca.UserOf(leaf)
	peer.Name, peer.Most, peer.Fingerprint = name.User, userKind(name.Role), hex.EncodeToString(ca.CertificateDigest(leaf))
	return peer, err
}

// Clone implements credentials.TransportCredentials.
func (c peopleCreds) Clone() credentials.TransportCredentials {
	return peopleCreds{c.TransportCredentials.Clone(), c.people, c.external}
}
