package caserver

import (
	"context"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/manager/authz"
)

// BeginExpiredRenewal implements api.CAServer. Each nonce is counted as a failure until it was used well (S1).
func (s *Server) BeginExpiredRenewal(ctx context.Context, _ *api.BeginExpiredRenewalRequest) (*api.BeginExpiredRenewalResponse, error) {
	source := SourceOf(authz.FromContext(ctx).Address)
	end, err := s.renewals.begin(ctx, source)
	if err != nil {
		s.cfg.Logger.Warn("renewal of an expired certificate refused", "source", source, "error", err)
		return nil, kinded(err)
	}
	end(true)
	return &api.BeginExpiredRenewalResponse{Nonce: s.challenges.give(time.Now())}, nil
}

// RenewExpiredCertificate implements api.CAServer.
func (s *Server) RenewExpiredCertificate(
	ctx context.Context, r *api.RenewExpiredCertificateRequest,
) (*api.RenewExpiredCertificateResponse, error) {
	source := SourceOf(authz.FromContext(ctx).Address)
	issued, err := s.renewExpired(ctx, r)
	if err != nil {
		s.cfg.Logger.Warn("renewal of an expired certificate refused", "source", source, "error", err)
		return nil, kinded(err)
	}
	s.renewals.forgive(source)
	s.cfg.Logger.Info("certificate issued in place of an expired one", "node", issued.Name.NodeID, "role", ca.OU(issued.Name.Role), "source", source)
	return &api.RenewExpiredCertificateResponse{Certificate: issued.Chain}, nil
}

func (s *Server) renewExpired(ctx context.Context, r *api.RenewExpiredCertificateRequest) (ca.Issued, error) {
	if !s.challenges.take(time.Now(), r.GetNonce()) {
		return ca.Issued{}, errNonce
	}
	if err := s.cfg.Store.Barrier(ctx); err != nil {
		return ca.Issued{}, err
	}
	return s.authority.RenewExpired(ctx, time.Now(), ca.ExpiredRequest{
		CSR: r.GetCsr(), Chain: r.GetCertificate(), Nonce: r.GetNonce(), Signature: r.GetSignature(),
	})
}
