package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/token"
)

// Registry is what the CA has to remember. manager/caserver keeps it in the store; catest has a fake, and the contract that both
// pass. Safe for concurrent use. No method keeps anything that it returned or was given.
type Registry interface {
	// Cluster returns the CA's part of the cluster as it is now: a token is rotated as soon as this says so.
	Cluster(ctx context.Context) (Cluster, error)
	// GrantRole returns the role of the join grant whose secret has the hash, or token.ErrWrongSecret.
	GrantRole(ctx context.Context, hash token.SecretHash) (api.Role, error)
	// NodeRole returns the role that the node is to have in its certificate, or ErrNodeNotFound, or ErrPending while a person has to
	// let it in.
	NodeRole(ctx context.Context, nodeID string) (api.Role, error)
	// AddNode records a new node and returns its ID, which was never used before. The same Request again returns the ID of the
	// first time and changes nothing. By a grant, what Claim decides is done whole or not at all, also if others claim it on other
	// managers at the same time, and Claim's errors are returned, or token.ErrWrongSecret when there is no such grant any more.
	AddNode(ctx context.Context, n NewNode) (nodeID string, err error)
}

// Cluster is the CA's part of a cluster.
type Cluster struct {
	ID string
	// Root is what join tokens pin.
	Root *Root
	// Next signs instead of Root during a rotation; nil else. See Issuer.
	Next *Root
	// The standing join tokens.
	Worker, Manager token.Token
	// Life of node certificates; 0 is DefaultLife.
	Life time.Duration
}

// NewNode is what is known of a node when it joins.
type NewNode struct {
	// Request identifies the wish: at most 64 characters, equal for equal key and role. A joiner whose answer was lost tries
	// again with the same key, and must not be two nodes.
	Request      string
	Role         api.Role
	Availability api.Availability
	Hostname     string
	// Grant is the ID of the join grant, or empty for a standing token. The rest is for grants.
	Grant string
	// KeyFingerprint is that of the node's public key, whose private part it has proved to have.
	KeyFingerprint string
	// Address that the call came from, or the zero value if it has none.
	Address netip.Addr
	// CanWait says that the joiner's program can wait for approval.
	CanWait bool
}

// MaxHostname is the length in bytes of the longest host name that DNS allows.
const MaxHostname = 253

// JoinRequest is what a joiner says. All of it but the token is the word of a stranger.
type JoinRequest struct {
	CSR []byte // PEM
	// Token as it was sent.
	Token        string
	Availability api.Availability
	Hostname     string
	CanWait      bool
	// Address that the call came from, by the managers' word.
	Address netip.Addr
}

// Issued is an answer of the CA.
type Issued struct {
	Name Name
	// Chain is PEM, the node's certificate first.
	Chain []byte
}

// Authority decides who gets which certificate. It keeps nothing; safe for concurrent use.
type Authority struct{ registry Registry }

// NewAuthority returns an Authority that remembers in r.
func NewAuthority(r Registry) *Authority { return &Authority{r} }

// RootPEM returns the root certificate, which is public.
func (a *Authority) RootPEM(ctx context.Context) ([]byte, error) {
	c, err := a.registry.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	return c.Root.CertificatePEM(), nil
}

// Join makes a node of the bearer of a valid token, with the token's role (C2). It returns an error of package token, of Claim,
// ErrBadCSR, or a *PendingError. The token is looked at first, so that a stranger learns nothing else and costs nothing more.
func (a *Authority) Join(ctx context.Context, now time.Time, req JoinRequest) (Issued, error) {
	presented, err := token.Parse(req.Token)
	if err != nil {
		return Issued{}, err
	}
	c, err := a.registry.Cluster(ctx)
	if err != nil {
		return Issued{}, err
	}
	role, err := c.roleOf(presented)
	hash := presented.SecretHash()
	granted := errors.Is(err, token.ErrWrongSecret)
	if granted {
		role, err = a.registry.GrantRole(ctx, hash)
	}
	if err != nil {
		return Issued{}, err
	}
	_, key, err := parseCSR(req.CSR)
	if err != nil {
		return Issued{}, err
	}
	n, err := newNode(req, role, key)
	if err != nil {
		return Issued{}, err
	}
	if granted {
		n.Grant = hash.GrantID()
	}
	id, err := a.registry.AddNode(ctx, n)
	if err != nil {
		return Issued{}, fmt.Errorf("add node: %w", err)
	}
	issued, err := a.issue(ctx, c, now, id, req.CSR)
	if errors.Is(err, ErrPending) {
		err = &PendingError{NodeID: id}
	}
	return issued, err
}

// Renew gives a node, whose identity the caller has proved, a certificate with the role that the Registry says now (C2). It
// returns ErrNodeNotFound for a removed node, or ErrBadCSR.
func (a *Authority) Renew(ctx context.Context, now time.Time, nodeID string, csr []byte) (Issued, error) {
	c, err := a.registry.Cluster(ctx)
	if err != nil {
		return Issued{}, err
	}
	return a.issue(ctx, c, now, nodeID, csr)
}

func (a *Authority) issue(ctx context.Context, c Cluster, now time.Time, nodeID string, csr []byte) (Issued, error) {
	role, err := a.registry.NodeRole(ctx, nodeID)
	if err != nil {
		return Issued{}, err
	}
	name := Name{ClusterID: c.ID, NodeID: nodeID, Role: role}
	chain, err := c.Issuer().Issue(now, csr, Profile{Name: name, Life: c.Life})
	if err != nil {
		return Issued{}, fmt.Errorf("issue certificate of node %s: %w", nodeID, err)
	}
	return Issued{Name: name, Chain: chain}, nil
}

// Issuer returns the root that signs now, whatever for.
func (c Cluster) Issuer() *Root {
	if c.Next != nil {
		return c.Next
	}
	return c.Root
}

// roleOf returns the role that a presented token gives. Both standing tokens are compared, whatever the first comparison says (T2).
func (c Cluster) roleOf(presented token.Token) (api.Role, error) {
	worker, manager := c.Worker.Check(presented), c.Manager.Check(presented)
	switch {
	case worker == nil:
		return api.Role_ROLE_WORKER, nil
	case manager == nil:
		return api.Role_ROLE_MANAGER, nil
	case presented.Digest() != c.Root.Digest():
		return 0, token.ErrOtherRoot
	default:
		return 0, token.ErrWrongSecret
	}
}

// newNode decides what is recorded of a joiner.
func newNode(req JoinRequest, role api.Role, key *ecdsa.PublicKey) (NewNode, error) {
	n := NewNode{Role: role, Availability: req.Availability, Hostname: req.Hostname, Address: req.Address, CanWait: req.CanWait}
	switch n.Availability {
	case api.Availability_AVAILABILITY_UNSPECIFIED:
		n.Availability = api.Availability_AVAILABILITY_ACTIVE
	case api.Availability_AVAILABILITY_ACTIVE, api.Availability_AVAILABILITY_PAUSE, api.Availability_AVAILABILITY_DRAIN:
	default:
		return NewNode{}, fmt.Errorf("%w: unknown availability", ErrBadCSR)
	}
	if !isHostname(n.Hostname) {
		return NewNode{}, fmt.Errorf("%w: host name", ErrBadCSR)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return NewNode{}, fmt.Errorf("%w: %w", ErrBadCSR, err)
	}
	n.KeyFingerprint = fingerprint(der)
	digest := sha256.Sum256(append(der, OU(role)...))
	n.Request = "join-" + new(big.Int).SetBytes(digest[:]).Text(36)
	return n, nil
}

// isHostname reports whether s is safe to print: kernels take any bytes for a host name, terminals should not get them.
func isHostname(s string) bool {
	if len(s) > MaxHostname {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
