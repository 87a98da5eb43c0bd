package cli_test

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
)

func userNamed(u *api.User) string { return u.GetSpec().GetAnnotations().GetName() }

func (f *fake) CreateUser(_ context.Context, r *api.CreateUserRequest) (*api.CreateUserResponse, error) {
	out := &api.CreateUserResponse{}
	return out, f.change(func() error {
		name := r.GetSpec().GetAnnotations().GetName()
		if _, err := lookUp("user", f.users, userNamed, name); err == nil {
			return fault.New(fault.AlreadyExists, "user %s already exists: end it first (`skep user revoke %s`)", name, name)
		}
		user := &api.User{Id: f.id("user"), Meta: f.meta(), Spec: r.GetSpec()}
		if !r.GetSpec().GetExternal() {
			if err := f.certify(user, r); err != nil {
				return err
			}
			out.RootCertificates = f.ca.CertificatePEM()
		}
		out.User, f.users[user.GetId()] = user, user
		return nil
	})
}

// certify gives a user a real certificate: the command line looks at it.
func (f *fake) certify(user *api.User, r *api.CreateUserRequest) (err error) {
	if f.ca == nil {
		if f.ca, err = ca.NewRoot(); err != nil {
			return err
		}
	}
	life := cmp.Or(r.GetTtl().AsDuration(), ca.DefaultUserLife)
	name := ca.UserName{ClusterID: strings.Repeat("c", 25), User: userNamed(user), Role: r.GetSpec().GetRole()}
	user.Certificate, err = f.ca.IssueUser(time.Now(), r.GetCsr(), name, life)
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	user.Fingerprint, user.ExpiresAt = []byte{0xab, 0xcd}, timestamppb.New(born().Add(life))
	return nil
}

func (f *fake) ListUsers(context.Context, *api.ListUsersRequest) (*api.ListUsersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.ListUsersResponse{Users: slices.Collect(maps.Values(f.users))}, nil
}

func (f *fake) RevokeUser(_ context.Context, r *api.RevokeUserRequest) (*api.RevokeUserResponse, error) {
	out := &api.RevokeUserResponse{}
	return out, f.change(func() (err error) {
		if out.User, err = lookUp("user", f.users, userNamed, r.GetUser()); err == nil {
			out.User.RevokedAt = timestamppb.New(born())
		}
		return err
	})
}
