package view

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/skep-io/skep/api"
)

// User is a person who may talk to managers from afar.
type User struct {
	Meta
	Spec UserSpec
	// Fingerprint is the SHA-256 of the user's certificate in hex, or empty for an external user.
	Fingerprint string     `json:",omitempty"`
	ExpiresAt   *time.Time `json:",omitempty"`
	RevokedAt   *time.Time `json:",omitempty"`
}

// UserSpec says who a user is and what the user may do.
type UserSpec struct {
	Name     string
	Labels   map[string]string
	Role     string
	External bool
}

// NewUser shows a user.
func NewUser(u *api.User) User {
	annotations := u.GetSpec().GetAnnotations()
	out := User{
		Meta: metaOf(u.GetId(), u.GetMeta()),
		Spec: UserSpec{
			Name: annotations.GetName(), Labels: labelsOf(annotations.GetLabels()),
			Role: UserRole(u.GetSpec().GetRole()), External: u.GetSpec().GetExternal(),
		},
		Fingerprint: hex.EncodeToString(u.GetFingerprint()),
	}
	if u.GetExpiresAt() != nil {
		expires := timeOf(u.GetExpiresAt())
		out.ExpiresAt = &expires
	}
	if u.GetRevokedAt() != nil {
		revoked := timeOf(u.GetRevokedAt())
		out.RevokedAt = &revoked
	}
	return out
}

// Status says whether the user counts at a time: "active", "expired" or "revoked".
func (u User) Status(now time.Time) string {
	switch {
	case u.RevokedAt != nil:
		return "revoked"
	case u.ExpiresAt != nil && !now.Before(*u.ExpiresAt):
		return "expired"
	}
	return "active"
}

// UserRole is what people call a role.
func UserRole(r api.UserRole) string {
	if r == api.UserRole_USER_ROLE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(r.String(), "USER_ROLE_"))
}
