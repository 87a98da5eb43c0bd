package authz

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// UserRecord is what the store knows of a user.
type UserRecord struct {
	Role api.UserRole
	// Fingerprint is that of the user's certificate, in hex, or empty for an external user.
	Fingerprint string
	Revoked     bool
}

// Users is what the store knows of users. Safe for concurrent use.
type Users interface {
	// User returns the record of a user and whether there is one. It never blocks.
	User(name string) (UserRecord, bool)
	// CatchUp returns once everything that the leader knew at the time of the call is known here, or an error where there is no store.
	CatchUp(ctx context.Context) error
}

// standing is what a manager makes of somebody who says to be a user.
type standing int

const (
	// current users are who they say to be, and count.
	current standing = iota
	// unknown users have no record, or come with another certificate than it says: perhaps the store is behind.
	unknown
	revoked
)

// standingOf is the core for users: what counts is the record of the certificate that the caller came with (A4). That it has not
// expired is for TLS to say.
func standingOf(c Caller, r UserRecord, known bool) standing {
	switch {
	case !known || r.Fingerprint != c.Fingerprint:
		return unknown
	case r.Revoked:
		return revoked
	default:
		return current
	}
}

// admitUser decides about a user, whose Kind is the most that the certificate gives. It returns the caller as the store knows it,
// or the error for the client.
func (a *Authorizer) admitUser(ctx context.Context, rule *api.Access, method string, c Caller) (Caller, error) {
	claimed := c.Kind
	c.Kind = api.Caller_CALLER_ANYONE
	if a.cfg.Users == nil {
		return c, status.Error(codes.Unavailable, noUsersText)
	}
	record, known := a.cfg.Users.User(c.User)
	s := standingOf(c, record, known)
	if s == unknown {
		bounded, cancel := context.WithTimeout(ctx, catchUpTimeout)
		defer cancel()
		if err := a.cfg.Users.CatchUp(bounded); err != nil {
			return c, status.Error(codes.Unavailable, noUsersText)
		}
		record, known = a.cfg.Users.User(c.User)
		s = standingOf(c, record, known)
	}
	if s == current {
		c.Kind = lower(claimed, userKind(record.Role))
		if allowed(rule, c.Kind) {
			return c, nil
		}
	}
	return c, a.refuse(ctx, Refusal{c, method}, codes.PermissionDenied, userText(c, s, rule))
}

// userText says who is refused, why, and what to do about it: a user may know the own role, and the rules are in the docs.
func userText(c Caller, s standing, rule *api.Access) string {
	const anew = "ask an admin for a new certificate (`skep user create %s`)"
	switch s {
	case revoked:
		return fmt.Sprintf("permission denied: user %s was revoked: "+anew, c.User, c.User)
	case unknown:
		return fmt.Sprintf("permission denied: this swarm has no user %s with this certificate: "+anew, c.User, c.User)
	}
	enough := rolesOf(rule)
	if len(enough) == 0 {
		return fmt.Sprintf("permission denied: user %s has the role %s, and this is for nodes of the swarm only", c.User, roleWord(c.Kind))
	}
	return fmt.Sprintf("permission denied: user %s has the role %s, and this needs the role %s: ask an admin to do it, "+
		"or for the role (`skep user revoke %s` and `skep user create %s --role %s`)",
		c.User, roleWord(c.Kind), strings.Join(enough, " or "), c.User, c.User, enough[0])
}

// userKinds are the kinds of callers that users are, the least first.
func userKinds() []api.Caller {
	return []api.Caller{api.Caller_CALLER_VIEWER, api.Caller_CALLER_OPERATOR, api.Caller_CALLER_ADMIN}
}

// rolesOf returns the roles that are enough for a rule, the least first.
func rolesOf(rule *api.Access) (words []string) {
	for _, kind := range userKinds() {
		if allowed(rule, kind) {
			words = append(words, roleWord(kind))
		}
	}
	return words
}

// roleWord is what people call a kind of user.
func roleWord(kind api.Caller) string {
	return strings.ToLower(strings.TrimPrefix(kind.String(), "CALLER_"))
}

// lower returns the one of two kinds that may do less; what is no user's kind may do nothing.
func lower(a, b api.Caller) api.Caller {
	rank := func(c api.Caller) int { return slices.Index(userKinds(), c) }
	least := slices.MinFunc([]api.Caller{a, b}, func(a, b api.Caller) int { return cmp.Compare(rank(a), rank(b)) })
	if rank(least) < 0 {
		return api.Caller_CALLER_ANYONE
	}
	return least
}

func userKind(r api.UserRole) api.Caller {
	switch r {
	case api.UserRole_USER_ROLE_ADMIN:
		return api.Caller_CALLER_ADMIN
	case api.UserRole_USER_ROLE_OPERATOR:
		return api.Caller_CALLER_OPERATOR
	case api.UserRole_USER_ROLE_VIEWER:
		return api.Caller_CALLER_VIEWER
	default:
		return api.Caller_CALLER_ANYONE
	}
}

// storeUsers answers from this manager's store.
type storeUsers struct{ store *store.Store }

// NewUsers returns the Users of a store.
func NewUsers(s *store.Store) Users { return storeUsers{s} }

// User implements Users.
func (u storeUsers) User(name string) (UserRecord, bool) {
	var found []*api.User
	err := u.store.View(func(tx store.ReadTx) (err error) {
		found, err = store.List[*api.User](tx, store.ByName(name))
		return err
	})
	if err != nil || len(found) != 1 {
		return UserRecord{}, false
	}
	return UserRecord{
		Role: found[0].GetSpec().GetRole(), Fingerprint: hex.EncodeToString(found[0].GetFingerprint()),
		Revoked: found[0].GetRevokedAt() != nil,
	}, true
}

// CatchUp implements Users.
func (u storeUsers) CatchUp(ctx context.Context) error { return u.store.Barrier(ctx) }
