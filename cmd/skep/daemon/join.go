package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
)

// joinPatience bounds a join, as Docker's: what answers at all answers sooner. A join that waits for a person is many of them.
const joinPatience = 20 * time.Second

// errLeft is why a join ends that the user does not want any more.
var errLeft = errors.New("`skep swarm leave` came in between")

// JoinSwarm makes this node a member of a swarm.
func (d *Daemon) JoinSwarm(ctx context.Context, request *api.JoinSwarmRequest) (*api.JoinSwarmResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if len(request.GetRemoteAddresses()) == 0 {
		return nil, fault.New(fault.Invalid, "at least 1 remote address is required: give HOST:PORT of a manager")
	}
	secret, err := token.Parse(request.GetToken())
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	m, listener, err := d.enter(request.GetListenAddress(), request.GetAdvertiseAddress())
	if err != nil {
		return nil, err
	}
	ctx, joined := d.joinUnderWay(ctx)
	defer joined()
	n, err := d.joinAs(ctx, m, request, secret)
	if pending := (*ca.PendingError)(nil); errors.As(err, &pending) {
		response, err := d.waiting(ctx, pending, secret)
		return response, errors.Join(err, listener.Close())
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	n.listener = listener
	if err = d.launch(ctx, n); err == nil {
		err = n.await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.undo(ctx, n))
	}
	d.endApplication()
	return &api.JoinSwarmResponse{NodeId: n.identity.NodeID(), Role: n.identity.Role()}, nil
}

// waiting is the answer of a join that a person has to allow.
func (d *Daemon) waiting(ctx context.Context, pending *ca.PendingError, secret token.Token) (*api.JoinSwarmResponse, error) {
	if err := d.keepWaiting(d.own.source(ctx)); err != nil {
		return nil, err
	}
	key, err := d.apply(secret)
	if err != nil {
		return nil, err
	}
	fingerprint, err := ca.Fingerprint(&key.PublicKey)
	return &api.JoinSwarmResponse{NodeId: pending.NodeID, Pending: true, KeyFingerprint: fingerprint}, err
}

// joinUnderWay bounds a join, and lets LeaveSwarm end it.
func (d *Daemon) joinUnderWay(ctx context.Context) (context.Context, func()) {
	ctx, cancelTime := context.WithTimeoutCause(ctx, joinPatience, errors.New("the managers did not answer in time"))
	ctx, cancel := context.WithCancelCause(ctx)
	d.setJoining(cancel)
	return ctx, func() {
		d.setJoining(nil)
		cancel(nil)
		cancelTime()
	}
}

func (d *Daemon) setJoining(cancel context.CancelCauseFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.joining = cancel
}

// joinAs gets an identity in a swarm and keeps it. From then on the node belongs to the swarm, also after a crash.
func (d *Daemon) joinAs(ctx context.Context, m membership, request *api.JoinSwarmRequest, secret token.Token) (*node, error) {
	credentials, manager, err := d.join(ctx, request, secret)
	if err != nil {
		return nil, err
	}
	m.Managers = []string{manager}
	kek, source, err := d.newKEK(ctx, false)
	keys := openKeys(d.cfg.DataDir, holdersOf(kek, source))
	if err == nil {
		err = errors.Join(keys.Save(credentials), d.disk.saveMembership(m))
	}
	if err != nil {
		return nil, errors.Join(err, d.undo(ctx, nil))
	}
	return d.newNode(m, keys, ca.NewIdentity(credentials), kek, source), nil
}

// join tries the managers in turn, again while they are only busy, and returns the credentials that one of them gave. All tries
// have one key, so that an answer that was lost makes no second node.
func (d *Daemon) join(ctx context.Context, request *api.JoinSwarmRequest, secret token.Token) (ca.Credentials, string, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return ca.Credentials{}, "", fmt.Errorf("host name: %w", err)
	}
	key, err := d.apply(secret)
	if err != nil {
		return ca.Credentials{}, "", err
	}
	for {
		var errs []error
		for _, remote := range request.GetRemoteAddresses() {
			address := withDefaultPort(remote)
			credentials, err := ca.Join(ctx, ca.JoinConfig{
				Address: address, Token: secret, Availability: request.GetAvailability(), Hostname: hostname, Key: key,
			})
			if err == nil || errors.Is(err, ca.ErrPending) {
				return credentials, address, err
			}
			errs = append(errs, fmt.Errorf("%s: %w", address, err))
		}
		err := errors.Join(errs...)
		if errors.Is(err, ca.ErrRefused) || errors.Is(err, token.ErrWrongSecret) { // the key is of no use any more
			_, forgetErr := d.forgetApplicant()
			err = errors.Join(err, forgetErr)
		}
		if !errors.Is(err, ca.ErrBusy) {
			return ca.Credentials{}, "", joinFault(ctx, err)
		}
		select {
		case <-ctx.Done():
			return ca.Credentials{}, "", joinFault(ctx, err)
		case <-time.After(rejoinPause):
		}
	}
}

// joinFault gives a refused join its kind.
func joinFault(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errLeft) || errors.Is(cause, context.Canceled) {
		return fault.New(fault.Unavailable, "the join was ended: %w", cause)
	}
	for _, row := range []struct {
		sentinel error
		kind     fault.Kind
	}{
		{token.ErrOtherRoot, fault.Invalid},
		{token.ErrWrongSecret, fault.PermissionDenied},
		{token.ErrMissing, fault.Invalid},
		{ca.ErrRefused, fault.Precondition},
		{ca.ErrTooManyTries, fault.Exhausted},
		{ca.ErrBusy, fault.Unavailable},
		{ca.ErrUnreachable, fault.Unavailable},
		{ca.ErrBadServer, fault.Invalid},
	} {
		if errors.Is(err, row.sentinel) {
			return fault.Wrap(row.kind, err)
		}
	}
	return err
}
