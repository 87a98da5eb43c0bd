package ca

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"slices"

	"github.com/skep-io/skep/api"
)

// Target is where a rotation of the root leads: each node gets a certificate by it, and trusts it.
type Target struct {
	// Certificate is the root to be, PEM.
	Certificate []byte
	// RootDigest and KeyDigest are the SHA-256 of the certificate and of its public key.
	RootDigest, KeyDigest []byte
}

// TargetOf returns where the rotation leads that is under way, or else the root that nodes have. An aborted one leads back to that. It
// returns ErrBadBundle.
func TargetOf(stored *api.RootCA) (Target, error) {
	certPEM := stored.GetRotation().GetCertificate()
	if len(certPEM) == 0 {
		certPEM = stored.GetCertificate()
	}
	certs, err := ParseRoots(certPEM)
	if err != nil {
		return Target{}, err
	}
	return Target{certPEM, digest(certs[0].Raw), digest(certs[0].RawSubjectPublicKeyInfo)}, nil
}

// Issued reports whether a node has a certificate by the target.
func (t Target) Issued(node *api.NodeTLS) bool {
	return bytes.Equal(node.GetIssuerKeyDigest(), t.KeyDigest)
}

// Trusting reports whether a node trusts the target.
func (t Target) Trusting(node *api.NodeTLS) bool {
	return slices.ContainsFunc(node.GetTrustedRootDigests(), func(d []byte) bool { return bytes.Equal(d, t.RootDigest) })
}

// Done reports whether a node, its tasks included, is where the rotation leads, and will stay there: of no earlier wish a certificate may
// still come.
func (t Target) Done(n *api.Node) bool {
	return t.Issued(n.GetTls()) && t.Trusting(n.GetTls()) && n.GetTls().GetMetRotationId() == n.GetRenewal().GetRotationId() &&
		!slices.ContainsFunc(n.GetTls().GetWorkloadIssuerKeyDigests(), func(d []byte) bool { return !bytes.Equal(d, t.KeyDigest) })
}

// Certified reports whether a node has a certificate that counts: one that waits for approval has none yet, and one that somebody else
// may control has none any more.
func Certified(n *api.Node) bool {
	return n.GetApproval().GetState() != api.ApprovalState_APPROVAL_STATE_PENDING && n.GetCompromise() == nil
}

// tls is what a node with these credentials says of them to its managers.
func (c Credentials) tls() *api.NodeTLS {
	said := &api.NodeTLS{IssuerKeyDigest: c.issuerKeyDigest()}
	for _, root := range c.roots {
		said.TrustedRootDigests = append(said.TrustedRootDigests, digest(root.Raw))
	}
	return said
}

// issuerKeyDigest returns the SHA-256 of the key that signed the node's certificate.
func (c Credentials) issuerKeyDigest() []byte { return IssuerKeyDigest(c.chain, c.roots) }

// IssuerKeyDigest returns the SHA-256 of the key that signed the first certificate of a chain, which is that of another one in it or of
// a root; nil if it is none of theirs.
func IssuerKeyDigest(chain, roots []*x509.Certificate) []byte {
	for _, issuer := range slices.Concat(chain[1:], roots) {
		if chain[0].CheckSignatureFrom(issuer) == nil {
			return digest(issuer.RawSubjectPublicKeyInfo)
		}
	}
	return nil
}

func digest(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// sameRoots reports whether two lists of roots are the same.
func sameRoots(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}
