package caserver

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
)

// Config is what a Server needs.
type Config struct {
	// Store and Logger are required.
	Store  *store.Store
	Logger *slog.Logger
	// Identity is who asks an external CA. Nil asks as nobody.
	Identity *ca.Identity
	// OnRefusal is told each join that was refused, or nil. It must not block.
	OnRefusal func(ctx context.Context, r Refusal)
}

// Refusal is a join that was refused.
type Refusal struct {
	// Source is the address that the call came from, or the /64 of an IPv6 address.
	Source string
	// Grant is the ID of the join grant whose secret was right, or empty.
	Grant string
	// WrongToken says that the token was of no use at all, as when somebody guesses.
	WrongToken bool
	// Err is why. It repeats nothing of the token (S2).
	Err error
}

// Server is the service CA.
type Server struct {
	api.UnimplementedCAServer
	cfg       Config
	registry  registry
	authority *ca.Authority
	limiter   *limiter
	pacer     *pacer
	// renewals limits those who ask to renew expired certificates.
	renewals   *limiter
	challenges *challenges
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Logger == nil {
		return nil, errors.New("caserver: Store and Logger are required")
	}
	joins, joinsErr := newLimiter()
	renewals, renewalsErr := newLimiter()
	challenges, challengesErr := newChallenges()
	if err := errors.Join(joinsErr, renewalsErr, challengesErr); err != nil {
		return nil, err
	}
	p, err := newPacer()
	if err != nil {
		return nil, err
	}
	r := newRegistry(cfg.Store)
	r.identity = cfg.Identity
	return &Server{
		cfg: cfg, registry: r, authority: ca.NewAuthority(r), limiter: joins, renewals: renewals, challenges: challenges,
		pacer: p,
	}, nil
}

// GetRootCertificate implements api.CAServer. It reads no key: the answer is for strangers.
func (s *Server) GetRootCertificate(context.Context, *api.GetRootCertificateRequest) (*api.GetRootCertificateResponse, error) {
	c, err := s.registry.cluster()
	if err != nil {
		return nil, kinded(err)
	}
	return &api.GetRootCertificateResponse{Certificate: c.GetRootCa().GetCertificate()}, nil
}

// IssueCertificate implements api.CAServer.
func (s *Server) IssueCertificate(ctx context.Context, r *api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
	source := SourceOf(authz.FromContext(ctx).Address)
	end, err := s.limiter.begin(ctx, source)
	if err != nil {
		return nil, s.refused(ctx, r, source, err)
	}
	issued, err := s.join(ctx, r)
	end(isWrongToken(err))
	if pending := (*ca.PendingError)(nil); errors.As(err, &pending) {
		s.cfg.Logger.Info("node waits for approval", "node", pending.NodeID, "source", source)
		return &api.IssueCertificateResponse{NodeId: pending.NodeID, Pending: true}, nil
	}
	if err != nil {
		return nil, s.refused(ctx, r, source, err)
	}
	s.cfg.Logger.Info("node joined", "node", issued.Name.NodeID, "role", ca.OU(issued.Name.Role), "source", source)
	return &api.IssueCertificateResponse{
		NodeId: issued.Name.NodeID, ClusterId: issued.Name.ClusterID, Certificate: issued.Chain,
	}, nil
}

// refused reports a join that was refused, and returns its error for the joiner.
func (s *Server) refused(ctx context.Context, r *api.IssueCertificateRequest, source string, err error) error {
	refusal := Refusal{Source: source, WrongToken: isWrongToken(err), Err: err}
	if presented, parseErr := token.Parse(r.GetToken()); parseErr == nil && isGrantRefusal(err) {
		refusal.Grant = presented.SecretHash().GrantID()
	}
	s.cfg.Logger.Warn("join refused", "source", source, "grant", refusal.Grant, "error", err)
	if s.cfg.OnRefusal != nil {
		s.cfg.OnRefusal(ctx, refusal)
	}
	return kinded(err)
}

func (s *Server) join(ctx context.Context, r *api.IssueCertificateRequest) (ca.Issued, error) {
	if err := s.cfg.Store.Barrier(ctx); err != nil {
		return ca.Issued{}, err
	}
	return s.authority.Join(ctx, time.Now(), ca.JoinRequest{
		CSR: r.GetCsr(), Token: r.GetToken(), Availability: r.GetAvailability(), Hostname: r.GetHostname(), CanWait: r.GetCanWait(),
		Address: hostOf(authz.FromContext(ctx).Address),
	})
}

// RenewCertificate implements api.CAServer.
func (s *Server) RenewCertificate(ctx context.Context, r *api.RenewCertificateRequest) (*api.RenewCertificateResponse, error) {
	caller := authz.FromContext(ctx)
	if caller.NodeID == "" || r.GetNodeId() != caller.NodeID {
		return nil, fault.New(fault.PermissionDenied, "a node renews its own certificate only")
	}
	if err := s.cfg.Store.Barrier(ctx); err != nil {
		return nil, kinded(err)
	}
	issued, err := s.authority.Renew(ctx, time.Now(), caller.NodeID, r.GetCsr())
	if err != nil {
		s.cfg.Logger.Warn("renewal refused", "node", caller.NodeID, "error", err)
		return nil, kinded(err)
	}
	s.cfg.Logger.Info("certificate issued", "node", caller.NodeID, "role", ca.OU(issued.Name.Role))
	return &api.RenewCertificateResponse{Certificate: issued.Chain}, nil
}

// isWrongToken reports whether err is one that somebody who guesses gets.
func isWrongToken(err error) bool {
	return errors.Is(err, token.ErrWrongSecret) || errors.Is(err, token.ErrOtherRoot) ||
		errors.Is(err, token.ErrMalformed) || errors.Is(err, token.ErrMissing)
}

// isGrantRefusal reports whether err is one that somebody gets whose token is that of a join grant.
func isGrantRefusal(err error) bool {
	return errors.Is(err, ca.ErrGrantAddress) || errors.Is(err, ca.ErrGrantExpired) || errors.Is(err, ca.ErrGrantUsed) ||
		errors.Is(err, ca.ErrDenied) || errors.Is(err, ca.ErrCannotWait)
}

// kinded gives an error its kind for clients. The texts of what they did wrong are theirs to read, others stay here.
func kinded(err error) error {
	var notLeader *store.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		return fault.NewNotLeader(notLeader.LeaderAddr)
	case isWrongToken(err), errors.Is(err, ca.ErrNodeNotFound), errors.Is(err, ca.ErrPending),
		errors.Is(err, ca.ErrBadProof), errors.Is(err, errNonce):
		return fault.Wrap(fault.PermissionDenied, err)
	case isGrantRefusal(err):
		return fault.Wrap(fault.Precondition, err)
	case errors.Is(err, ca.ErrBadCSR):
		return fault.Wrap(fault.Invalid, err)
	case errors.Is(err, ca.ErrTooManyTries):
		return fault.Wrap(fault.Exhausted, err)
	case errors.Is(err, ca.ErrRootExpired), errors.Is(err, ca.ErrGraceOver), errors.Is(err, store.ErrOutdated):
		return fault.Wrap(fault.Precondition, err)
	case errors.Is(err, errNoCluster), errors.Is(err, ca.ErrExternal), errors.Is(err, store.ErrStopped), errors.Is(err, store.ErrConflict),
		errors.Is(err, store.ErrBusy):
		return fault.Wrap(fault.Unavailable, err)
	default:
		return err
	}
}
