package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
)

const (
	// Renewal begins at a random moment between these shares of a certificate's life, so that the nodes of a swarm that was
	// made in one minute don't all come back in one minute, and a manager that is away for a fifth of it harms nobody.
	renewFrom = 0.5
	renewTo   = 0.8

	// The first retry of a failed renewal comes after backoffBase; each wait doubles, up to backoffMax.
	backoffBase = 5 * time.Second
	backoffMax  = time.Hour
	// While the certificate lives, no wait is longer than this share of what is left: with an expired one nobody talks to the node.
	backoffShare = 4
)

// RenewAt returns when a certificate is to be renewed. Random is in [0, 1). Its life counts from its issue, Backdate after
// notBefore, because the backdated hour of a certificate for an hour would be half of it.
func RenewAt(notBefore, notAfter time.Time, random float64) time.Time {
	issued := notBefore.Add(Backdate)
	if issued.After(notAfter) {
		issued = notBefore
	}
	share := renewFrom + random*(renewTo-renewFrom)
	return issued.Add(time.Duration(float64(notAfter.Sub(issued)) * share))
}

// Backoff returns how long to wait after so many failures in a row, at least one. Random in [0, 1) takes away up to half,
// so that the nodes that one failure met don't come back together.
func Backoff(failures int, random float64) time.Duration {
	wait := backoffMax
	if shift := failures - 1; shift < 10 { // 5 s * 2^10 is over an hour
		wait = min(backoffBase<<shift, backoffMax)
	}
	return wait - time.Duration(random*float64(wait)/2)
}

// renewal is the core of Renewer: it decides when to try next.
type renewal struct {
	failures int
	next     time.Time // of the next try
}

// becomeCurrent takes note of a certificate in use.
func (r *renewal) becomeCurrent(leaf *x509.Certificate, random float64) {
	r.failures = 0
	r.next = RenewAt(leaf.NotBefore, leaf.NotAfter, random)
}

// becomeFailed takes note of a try that failed, while the certificate in use ends at notAfter.
func (r *renewal) becomeFailed(now, notAfter time.Time, random float64) {
	r.failures++
	wait := Backoff(r.failures, random)
	if left := notAfter.Sub(now); left > 0 {
		wait = min(wait, max(left/backoffShare, backoffBase))
	}
	r.next = now.Add(wait)
}

// becomeWanted takes note of a wish for a new certificate at once. After a failure the wait goes on: wishes come in bursts.
func (r *renewal) becomeWanted(now time.Time) {
	if r.failures == 0 && r.next.After(now) {
		r.next = now
	}
}

// RenewerConfig are the parts of a Renewer, all of them needed.
type RenewerConfig struct {
	Identity *Identity
	// Renew asks a manager for new credentials, usually RenewOver a connection.
	Renew func(ctx context.Context) (Credentials, error)
	// Save makes credentials durable. They are not used before: a node must not come back from a restart as who it was.
	Save   func(Credentials) error
	Logger *slog.Logger
}

// Renewer keeps an identity current.
type Renewer struct {
	cfg  RenewerConfig
	wish chan struct{}
	// wanted is the last wish of a rotation, and asked a signal that there is another one.
	wanted atomic.Pointer[api.RenewalRequest]
	asked  chan struct{}
	// unsaved are roots that could not be saved, and again a signal that there are some.
	unsaved atomic.Pointer[[]*x509.Certificate]
	again   chan struct{}
	// changing orders changes of the identity, so that neither a new certificate nor new roots are lost to the other.
	changing sync.Mutex
	// version is that of the roots heard of last; owned by Follow.
	version uint64
}

// NewRenewer returns a Renewer; Run makes it work.
func NewRenewer(cfg RenewerConfig) *Renewer {
	return &Renewer{cfg: cfg, wish: make(chan struct{}, 1), asked: make(chan struct{}, 1), again: make(chan struct{}, 1)}
}

// RenewNow asks for a renewal at once, as when a manager says that this node's role has changed. It doesn't block.
func (r *Renewer) RenewNow() { wake(r.wish) }

// Run renews the identity each time that its moment comes, until ctx ends, and returns nil then. A failed try is logged and
// tried again, also after the certificate has expired: clocks are wrong at times, and then mended.
func (r *Renewer) Run(ctx context.Context) error {
	var plan renewal
	plan.becomeCurrent(r.cfg.Identity.Current().chain[0], rand.Float64())
	timer := time.NewTimer(time.Until(plan.next))
	defer timer.Stop()
	var unsaved <-chan time.Time
	for ctx.Err() == nil { // a try that ctx ended leaves the timer due
		select {
		case <-ctx.Done():
		case <-r.wish:
			plan.becomeWanted(time.Now())
		case <-r.asked:
			if !r.meet() {
				plan.becomeWanted(time.Now())
			}
		case <-r.again:
			unsaved = time.After(backoffBase)
		case <-unsaved:
			if !r.saveAgain() {
				unsaved = time.After(backoffBase)
			}
		case <-timer.C:
			r.try(ctx, &plan)
		}
		timer.Reset(time.Until(plan.next))
	}
	return nil
}

// try renews once and enters the outcome into the plan.
func (r *Renewer) try(ctx context.Context, plan *renewal) {
	err := r.renew(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		current := r.cfg.Identity.Current()
		plan.becomeCurrent(current.chain[0], rand.Float64())
		r.meet()
		r.cfg.Logger.Info("certificate renewed", "role", OU(current.name.Role), "expires", r.cfg.Identity.Expiry(), "next", plan.next)
		return
	}
	plan.becomeFailed(time.Now(), r.cfg.Identity.Expiry(), rand.Float64())
	level := slog.LevelWarn
	if !time.Now().Before(r.cfg.Identity.Expiry()) {
		level = slog.LevelError // a person must act: check the clock, or leave the swarm and join again
	}
	r.cfg.Logger.Log(ctx, level, "certificate not renewed", "error", err, "expires", r.cfg.Identity.Expiry(), "next", plan.next)
}

func (r *Renewer) renew(ctx context.Context) error {
	fresh, err := r.cfg.Renew(ctx)
	if err != nil {
		return err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if fresh, err = fresh.Trusting(r.cfg.Identity.Current().roots); err != nil {
		return fmt.Errorf("the roots changed meanwhile: %w", err)
	}
	return r.replace(fresh)
}

// Trust makes roots those that this node trusts, durably and then for every new connection. It does nothing when they are so already.
// It returns ErrMismatch, and keeps those that it has, when the node's own certificate leads to none of them.
func (r *Renewer) Trust(roots []*x509.Certificate) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	current := r.cfg.Identity.Current()
	if sameRoots(current.roots, roots) {
		return nil
	}
	fresh, err := current.Trusting(roots)
	if err != nil {
		return fmt.Errorf("trust other roots: %w", err)
	}
	return r.replace(fresh)
}

func (r *Renewer) replace(fresh Credentials) error {
	if err := r.cfg.Save(fresh); err != nil {
		return fmt.Errorf("save renewed credentials: %w", err)
	}
	return r.cfg.Identity.Replace(fresh)
}

// RenewOver asks the manager behind conn, a connection that was made with ClientCredentials, for a certificate for a new key. It
// returns ErrOtherNode if the answer is for somebody else. The caller saves and uses what it returns.
func RenewOver(ctx context.Context, conn grpc.ClientConnInterface, id *Identity) (Credentials, error) {
	return RenewBy(ctx, id, func(ctx context.Context, r *api.RenewCertificateRequest) (*api.RenewCertificateResponse, error) {
		return api.NewCAClient(conn).RenewCertificate(ctx, r)
	})
}

// RenewBy is RenewOver by a way to ask that may be none over the network, as on the leader itself.
func RenewBy(
	ctx context.Context, id *Identity,
	ask func(context.Context, *api.RenewCertificateRequest) (*api.RenewCertificateResponse, error),
) (Credentials, error) {
	key, csr, err := newKeyAndCSR()
	if err != nil {
		return Credentials{}, err
	}
	old := id.Current()
	resp, err := ask(ctx, &api.RenewCertificateRequest{Csr: csr, NodeId: old.name.NodeID})
	if err != nil {
		return Credentials{}, fmt.Errorf("ask for a new certificate: %w", err)
	}
	return old.renewed(resp.GetCertificate(), key)
}

func newKeyAndCSR() (*ecdsa.PrivateKey, []byte, error) {
	key, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	csr, err := NewCSR(key)
	return key, csr, err
}

// renewed returns what a manager's answer to a node with the credentials c makes of them, or ErrOtherNode.
func (c Credentials) renewed(chainPEM []byte, key *ecdsa.PrivateKey) (Credentials, error) {
	chain, err := ParseBundle(chainPEM)
	if err != nil {
		return Credentials{}, err
	}
	fresh, err := NewCredentials(c.roots, chain, key)
	if err != nil {
		return Credentials{}, err
	}
	if fresh.name.NodeID != c.name.NodeID || fresh.name.ClusterID != c.name.ClusterID {
		return Credentials{}, ErrOtherNode
	}
	return fresh, nil
}
