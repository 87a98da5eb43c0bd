package ca

import "errors"

var (
	// ErrBadCSR is returned when a certificate request is malformed, too large, not signed by its own key, or for a key
	// other than ECDSA P-256.
	ErrBadCSR = errors.New("certificate request refused")
	// ErrBadName is returned when an issuance names no proper node, or a certificate is no node's.
	ErrBadName = errors.New("not a node certificate")
	// ErrBadUser is returned when an issuance names no proper user, or a certificate is no user's.
	ErrBadUser = errors.New("not a user certificate")
	// ErrUserLife is returned when a user's certificate is asked for that would live too short or too long.
	ErrUserLife = errors.New("a user's certificate lives from 1m to 87600h")
	// ErrBadBundle is returned when PEM holds something else than the certificates expected, or too much.
	ErrBadBundle = errors.New("invalid certificate bundle")
	// ErrBadRoot is returned when a root certificate or its key can't serve as a CA.
	ErrBadRoot = errors.New("invalid root CA")
	// ErrMismatch is returned when a key, a certificate and a root don't belong together.
	ErrMismatch = errors.New("key, certificate and root CA do not belong together")
	// ErrOtherNode is returned when an identity would be replaced by that of another node or cluster.
	ErrOtherNode = errors.New("certificate is for another node or swarm")
	// ErrShortLife is returned when certificates are asked for that live for less than MinLife.
	ErrShortLife = errors.New("minimum certificate expiry time is: 1h0m0s")
	// ErrRootExpired is returned when the root certificate has ended, so that nothing can be signed.
	ErrRootExpired = errors.New("the root CA certificate has expired: the swarm must be created anew")
	// ErrExternal is returned when an external CA does not answer, or refuses.
	ErrExternal = errors.New("the external CA did not sign")
	// ErrNodeNotFound is returned when the node was removed or never existed; it is told no difference.
	ErrNodeNotFound = errors.New("this node is not part of the swarm: leave it with `skep swarm leave` and join again")
	// ErrBadProof is returned when somebody does not prove to be the node that an expired certificate is for.
	ErrBadProof = errors.New("renewal of an expired certificate refused")
	// ErrGraceOver is returned when a certificate expired too long ago.
	ErrGraceOver = errors.New("the certificate expired too long ago to be renewed: run `skep swarm leave --force` on this machine, and join it " +
		"again with a token from `skep swarm join-token`; the node that it was can be removed with `skep node rm`")
	// ErrUnreachable is returned when no manager answered at the address given.
	ErrUnreachable = errors.New("manager does not answer: check the address, that port 2377 is open, and that the daemon runs there")
	// ErrBadServer is returned when what answered is no manager of the swarm that the token belongs to.
	ErrBadServer = errors.New("what answers at this address is not a manager of this swarm")
	// ErrBusy is returned when the managers can't add a node at the moment, as without a leader.
	ErrBusy = errors.New("the swarm can't add a node at the moment: try again soon")
	// ErrRefused is returned when the managers refuse a join for a reason that they give, in words for people.
	ErrRefused = errors.New("the swarm refuses this machine")
	// ErrGrantExpired is returned when the time of a join grant is over.
	ErrGrantExpired = errors.New("the join token has expired: make another one with `skep swarm join-token create` on a manager")
	// ErrGrantUsed is returned when as many nodes as may have joined by a grant.
	ErrGrantUsed = errors.New("the join token is used up: make another one with `skep swarm join-token create` on a manager, " +
		"and see there with `skep swarm join-token ls` who used this one")
	// ErrGrantAddress is returned when a grant does not allow joins from where the call came from.
	ErrGrantAddress = errors.New("the join token must not be used from this address")
	// ErrDenied is returned when a person has denied the node that waited.
	ErrDenied = errors.New("the join was denied on a manager")
	// ErrCannotWait is returned when a grant needs a person's approval and the joiner's program can't wait for it.
	ErrCannotWait = errors.New("the join token needs a person's approval, for which this machine's version of skep is too old to wait: update it")
	// ErrPending is returned when a person has to let the node in; the error is a *PendingError of those that join.
	ErrPending = errors.New("the node waits for approval")
	// ErrTooManyTries is returned when joins from this address failed too often of late.
	ErrTooManyTries = errors.New("too many failed tries from this address: wait a minute and try again")
)

// PendingError says which node waits. It matches ErrPending.
type PendingError struct{ NodeID string }

// Error implements error.
func (e *PendingError) Error() string { return "node " + e.NodeID + ": " + ErrPending.Error() }

// Is makes the error match ErrPending.
func (*PendingError) Is(target error) bool { return target == ErrPending }
