package control

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// UserIssuer is the CA, as far as users need it.
type UserIssuer interface {
	// IssueUser signs a certificate for a user. It returns an error of package ca.
	IssueUser(ctx context.Context, user string, role api.UserRole, life time.Duration, csr []byte) (ca.IssuedUser, error)
}

// validateUser reports all problems of a wish for a user.
func validateUser(request *api.CreateUserRequest) error {
	p, spec := new(problems), request.GetSpec()
	p.knownFields(spec)
	if name := spec.GetAnnotations().GetName(); !ca.IsUserName(name) {
		p.add("annotations.name", "invalid name %q: 1 to %d of [a-zA-Z0-9-_.], the first [a-zA-Z0-9]", clip(name), ca.MaxUserName)
	}
	p.labels("annotations.labels", spec.GetAnnotations().GetLabels())
	switch spec.GetRole() {
	case api.UserRole_USER_ROLE_ADMIN, api.UserRole_USER_ROLE_OPERATOR, api.UserRole_USER_ROLE_VIEWER:
	default:
		p.add("role", "must be admin, operator or viewer")
	}
	p.duration("ttl", request.GetTtl())
	if spec.GetExternal() {
		if len(request.GetCsr()) > 0 || request.GetTtl() != nil {
			p.add("external", "another CA decides about the user's certificate: give no request and no time")
		}
	} else if ttl := request.GetTtl().AsDuration(); request.GetTtl() != nil && (ttl < ca.MinUserLife || ttl > ca.MaxUserLife) {
		p.add("ttl", "must be 1m to 87600h, got %s", ttl)
	}
	return p.err()
}

// CreateUser stores a user, with a certificate of the swarm's CA unless another CA vouches for the user.
func (s *Server) CreateUser(ctx context.Context, request *api.CreateUserRequest) (*api.CreateUserResponse, error) {
	id, err := requestID(ctx, "CreateUser")
	if err != nil {
		return nil, err
	}
	if err := validateUser(request); err != nil {
		return nil, err
	}
	user := &api.User{Id: id, Spec: proto.CloneOf(request.GetSpec())}
	response := &api.CreateUserResponse{}
	if !user.GetSpec().GetExternal() {
		if response.RootCertificates, err = s.certify(ctx, user, request); err != nil {
			return nil, err
		}
	}
	name := user.GetSpec().GetAnnotations().GetName()
	if err := s.update(ctx, id, func(tx store.Tx) error { return putUser(tx, proto.CloneOf(user)) }); err != nil {
		return nil, err
	}
	// Of a call that is repeated, the answer has the certificate that was stored the first time.
	err = s.Store.View(func(tx store.ReadTx) (err error) {
		response.User, err = userNamed(tx, name)
		return err
	})
	return response, storeFault(err)
}

// userNamed returns the user of a name, or nil if there is none.
func userNamed(tx store.ReadTx, name string) (*api.User, error) {
	users, err := store.List[*api.User](tx, store.ByName(name))
	if err != nil || len(users) == 0 {
		return nil, err
	}
	return users[0], nil
}

// certify gives a user a certificate, and returns the swarm's root certificates.
func (s *Server) certify(ctx context.Context, user *api.User, request *api.CreateUserRequest) (roots []byte, err error) {
	life := ca.DefaultUserLife
	if request.GetTtl() != nil {
		life = request.GetTtl().AsDuration()
	}
	issued, err := s.Users.IssueUser(ctx, user.GetSpec().GetAnnotations().GetName(), user.GetSpec().GetRole(), life, request.GetCsr())
	switch {
	case errors.Is(err, ca.ErrBadCSR), errors.Is(err, ca.ErrUserLife):
		return nil, fault.Wrap(fault.Invalid, err)
	case errors.Is(err, ca.ErrRootExpired):
		return nil, fault.Wrap(fault.Precondition, err)
	case err != nil:
		return nil, storeFault(err)
	}
	user.Certificate, user.Fingerprint = issued.Chain, ca.CertificateDigest(issued.Certificate)
	user.ExpiresAt = timestamppb.New(issued.Certificate.NotAfter)
	return issued.Roots, nil
}

// putUser stores a new user, in the place of one of the same name who doesn't count any more.
func putUser(tx store.Tx, user *api.User) error {
	name := user.GetSpec().GetAnnotations().GetName()
	former, err := userNamed(tx, name)
	switch {
	case err != nil:
		return err
	case former == nil:
		return tx.Create(user)
	case former.GetRevokedAt() == nil && (former.GetExpiresAt() == nil || time.Now().Before(former.GetExpiresAt().AsTime())):
		return fault.New(fault.AlreadyExists, "user %s already exists: end it first (`skep user revoke %s`)", name, name)
	}
	user.Id, user.Meta = former.GetId(), former.GetMeta()
	return tx.Update(user)
}

// ListUsers returns all users, also those who don't count any more.
func (s *Server) ListUsers(ctx context.Context, _ *api.ListUsersRequest) (*api.ListUsersResponse, error) {
	response := new(api.ListUsersResponse)
	return response, s.view(ctx, func(tx store.ReadTx) (err error) {
		response.Users, err = store.List[*api.User](tx)
		return err
	})
}

// RevokeUser refuses a user from now on. One who was revoked before stays so since then.
func (s *Server) RevokeUser(ctx context.Context, request *api.RevokeUserRequest) (*api.RevokeUserResponse, error) {
	id, err := requestID(ctx, "RevokeUser")
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, id, func(tx store.Tx) error {
		user, err := resolve[*api.User](tx, request.GetUser())
		if err != nil || user.GetRevokedAt() != nil {
			return err
		}
		ended := proto.CloneOf(user)
		ended.RevokedAt = timestamppb.Now()
		return tx.Update(ended)
	})
	if err != nil {
		return nil, err
	}
	user, err := current[*api.User](s, request.GetUser())
	return &api.RevokeUserResponse{User: user}, err
}
