package caserver

import (
	"context"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
)

// IssueUser signs a certificate for a user. The caller records it: without a record it opens no door.
func (s *Server) IssueUser(ctx context.Context, user string, role api.UserRole, life time.Duration, csr []byte) (ca.IssuedUser, error) {
	if err := s.cfg.Store.Barrier(ctx); err != nil {
		return ca.IssuedUser{}, kinded(err)
	}
	issued, err := s.authority.IssueUser(ctx, time.Now(), user, role, life, csr)
	if err != nil {
		s.cfg.Logger.Warn("user's certificate refused", "user", user, "error", err)
		return ca.IssuedUser{}, kinded(err)
	}
	s.cfg.Logger.Info("user's certificate issued", "user", user, "expires", issued.Certificate.NotAfter)
	return issued, nil
}
