package ca

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/skep-io/skep/api"
)

const (
	// DefaultUserLife of a user's certificate.
	DefaultUserLife = 90 * 24 * time.Hour
	// MinUserLife and MaxUserLife bound what may be asked for.
	MinUserLife = time.Minute
	MaxUserLife = 10 * 365 * 24 * time.Hour

	// MaxUserName is the length in bytes of the longest user name: what fits into a certificate's common name.
	MaxUserName = 63
)

// UserName is what a user's certificate says about its bearer.
type UserName struct {
	ClusterID string
	User      string
	Role      api.UserRole
}

// Validate returns ErrBadUser unless n has a proper cluster ID, a user name of letters, digits, '.', '-' and '_' that starts with a
// letter or digit, and a role.
func (n UserName) Validate() error {
	switch {
	case !isID(n.ClusterID):
		return fmt.Errorf("%w: cluster ID", ErrBadUser)
	case !IsUserName(n.User):
		return fmt.Errorf("%w: name", ErrBadUser)
	case userOU(n.Role) == "":
		return fmt.Errorf("%w: role", ErrBadUser)
	default:
		return nil
	}
}

// uri is the user's SPIFFE ID.
func (n UserName) uri() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: n.ClusterID, Path: "/user/" + n.User}
}

// IsUserName reports whether s may name a user.
func IsUserName(s string) bool {
	if s == "" || len(s) > MaxUserName || slices.Contains([]byte(".-_"), s[0]) {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !slices.Contains([]byte(".-_"), c) {
			return false
		}
	}
	return true
}

// userOU is the certificate's word for a user's role, or "" for none.
func userOU(r api.UserRole) string {
	switch r {
	case api.UserRole_USER_ROLE_ADMIN:
		return "skep-admin"
	case api.UserRole_USER_ROLE_OPERATOR:
		return "skep-operator"
	case api.UserRole_USER_ROLE_VIEWER:
		return "skep-viewer"
	default:
		return ""
	}
}

func userRoleOf(ou string) api.UserRole {
	for number := range api.UserRole_name {
		if r := api.UserRole(number); ou != "" && userOU(r) == ou {
			return r
		}
	}
	return api.UserRole_USER_ROLE_UNSPECIFIED
}

// UserOf reads the name from a certificate that has been verified against a root of the swarm. It returns ErrBadUser unless the
// certificate is exactly of the shape that Root.IssueUser gives: the same root also signs nodes.
func UserOf(cert *x509.Certificate) (UserName, error) {
	s := cert.Subject
	if cert.IsCA || len(s.Organization) != 1 || len(s.OrganizationalUnit) != 1 || len(s.Names) != 3 {
		return UserName{}, ErrBadUser
	}
	n := UserName{ClusterID: s.Organization[0], User: s.CommonName, Role: userRoleOf(s.OrganizationalUnit[0])}
	if err := n.Validate(); err != nil {
		return UserName{}, err
	}
	if len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 {
		return UserName{}, fmt.Errorf("%w: alternative names", ErrBadUser)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != n.uri().String() {
		return UserName{}, fmt.Errorf("%w: SPIFFE ID", ErrBadUser)
	}
	if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || len(cert.UnknownExtKeyUsage) != 0 {
		return UserName{}, fmt.Errorf("%w: purposes", ErrBadUser)
	}
	return n, nil
}

// CertificateDigest is what tells a certificate from every other: the SHA-256 of its DER form.
func CertificateDigest(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.Raw)
	return sum[:]
}

// IssueUser signs a certificate for the public key in the CSR, which is PEM, by which a person is known to managers and can be
// neither a node nor a server. It ends with the root at the latest. It returns the chain as PEM, the user's certificate
// first, or ErrBadCSR, ErrBadUser, ErrUserLife or ErrRootExpired.
func (r *Root) IssueUser(now time.Time, csr []byte, name UserName, life time.Duration) ([]byte, error) {
	der, key, err := parseCSR(csr)
	if err != nil {
		return nil, err
	}
	if err := name.Validate(); err != nil {
		return nil, err
	}
	if life < MinUserLife || life > MaxUserLife {
		return nil, ErrUserLife
	}
	v, err := r.within(now, life)
	if err != nil {
		return nil, err
	}
	chain, err := r.sign(der, key, decided{
		subject: subjectOf(name.ClusterID, userOU(name.Role), name.User),
		uri:     name.uri(), purposes: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, validity: v, profile: userProfile,
	})
	if err != nil {
		return nil, err
	}
	if err := r.lintUser(chain, key, name, v); err != nil {
		return nil, fmt.Errorf("check signed certificate: %w", err)
	}
	return chain, nil
}

// lintUser is lint for a user's certificate (C1). UserOf checks the purposes.
func (r *Root) lintUser(chain []byte, key *ecdsa.PublicKey, want UserName, v validity) error {
	cert, err := r.lintShape(chain, key, v)
	if err != nil {
		return err
	}
	got, err := UserOf(cert)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: another name", ErrBadUser)
	}
	return cert.CheckSignatureFrom(r.cert)
}
