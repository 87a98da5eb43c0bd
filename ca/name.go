package ca

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"

	"github.com/skep-io/skep/api"
)

// The OUs of node certificates, which are also DNS names in them: a client that wants any manager of its swarm verifies the
// server name OUManager, one that wants a certain node verifies the node's ID.
const (
	OUManager = "swarm-manager"
	OUWorker  = "swarm-worker"
)

// idLen is the length of every ID in characters: 128 bits in base 36.
const idLen = 25

// OU returns the certificate's word for a role, or "" for none.
func OU(r api.Role) string {
	switch r {
	case api.Role_ROLE_MANAGER:
		return OUManager
	case api.Role_ROLE_WORKER:
		return OUWorker
	default:
		return ""
	}
}

// Name is what a node certificate says about its bearer.
type Name struct {
	ClusterID string
	NodeID    string
	Role      api.Role
}

// Validate returns ErrBadName unless n has proper IDs and a role.
func (n Name) Validate() error {
	switch {
	case !isID(n.ClusterID):
		return fmt.Errorf("%w: cluster ID", ErrBadName)
	case !isID(n.NodeID):
		return fmt.Errorf("%w: node ID", ErrBadName)
	case OU(n.Role) == "":
		return fmt.Errorf("%w: role", ErrBadName)
	default:
		return nil
	}
}

// uri is the node's SPIFFE ID.
func (n Name) uri() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: n.ClusterID, Path: "/node/" + n.NodeID}
}

// dnsNames are the names under which TLS clients verify the node.
func (n Name) dnsNames() []string { return []string{n.NodeID, OU(n.Role)} }

// NameOf reads the name from a certificate that has been verified against a root. It returns ErrBadName unless the certificate
// is exactly of the shape that Root.Issue gives: the same root also signs what is no node.
func NameOf(cert *x509.Certificate) (Name, error) {
	s := cert.Subject
	if cert.IsCA || len(s.Organization) != 1 || len(s.OrganizationalUnit) != 1 || len(s.Names) != 3 {
		return Name{}, ErrBadName
	}
	n := Name{ClusterID: s.Organization[0], NodeID: s.CommonName, Role: roleOf(s.OrganizationalUnit[0])}
	if err := n.Validate(); err != nil {
		return Name{}, err
	}
	if !slices.Equal(cert.DNSNames, n.dnsNames()) || len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 {
		return Name{}, fmt.Errorf("%w: alternative names", ErrBadName)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != n.uri().String() {
		return Name{}, fmt.Errorf("%w: SPIFFE ID", ErrBadName)
	}
	return n, nil
}

func roleOf(ou string) api.Role {
	switch ou {
	case OUManager:
		return api.Role_ROLE_MANAGER
	case OUWorker:
		return api.Role_ROLE_WORKER
	default:
		return api.Role_ROLE_UNSPECIFIED
	}
}

func isID(s string) bool {
	if len(s) != idLen {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
