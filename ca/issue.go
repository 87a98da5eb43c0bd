package ca

import (
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

const (
	// DefaultLife of a node certificate.
	DefaultLife = 90 * 24 * time.Hour
	// MinLife of a node certificate: less leaves no time to renew it.
	MinLife = time.Hour

	// clockSkew is how far the clock of an external CA may be from ours.
	clockSkew = time.Minute
)

// Profile is what the CA decided about a certificate; the applicant adds a public key.
type Profile struct {
	Name Name
	// Life is how long after its issue the certificate ends; 0 is DefaultLife. It ends with the root at the latest.
	Life time.Duration
}

// CheckLife returns ErrShortLife for a life that is too short. Zero is the default, and fine.
func CheckLife(d time.Duration) error {
	if d != 0 && d < MinLife {
		return ErrShortLife
	}
	return nil
}

// Issue signs a certificate for the public key in the CSR, which is PEM. It returns the chain as PEM, the node's certificate
// first. It returns ErrBadCSR, ErrBadName, ErrShortLife, ErrRootExpired or ErrExternal.
func (r *Root) Issue(now time.Time, csr []byte, p Profile) ([]byte, error) {
	der, key, err := parseCSR(csr)
	if err != nil {
		return nil, err
	}
	validity, err := r.validity(now, p)
	if err != nil {
		return nil, err
	}
	chain, err := r.sign(der, key, decided{
		subject:  subjectOf(p.Name.ClusterID, OU(p.Name.Role), p.Name.NodeID),
		dnsNames: p.Name.dnsNames(), uri: p.Name.uri(), purposes: nodePurposes(), validity: validity,
	})
	if err != nil {
		return nil, err
	}
	if err := r.lint(chain, key, p.Name, validity); err != nil {
		return nil, fmt.Errorf("check signed certificate: %w", err)
	}
	return append(chain, EncodeBundle(r.cross)...), nil
}

// validity is the life of a certificate, to the second, as X.509 has it.
type validity struct{ notBefore, notAfter time.Time }

// validity decides the life of a certificate issued now.
func (r *Root) validity(now time.Time, p Profile) (validity, error) {
	if err := p.Name.Validate(); err != nil {
		return validity{}, err
	}
	if err := CheckLife(p.Life); err != nil {
		return validity{}, err
	}
	life := p.Life
	if life == 0 {
		life = DefaultLife
	}
	return r.within(now, life)
}

// within returns the validity of a certificate issued now that lives so long, or as long as the root.
func (r *Root) within(now time.Time, life time.Duration) (validity, error) {
	v := validity{now.Add(-Backdate), now.Add(life)}
	if v.notAfter.After(r.cert.NotAfter) {
		v.notAfter = r.cert.NotAfter
	}
	if !v.notAfter.After(now) {
		return validity{}, ErrRootExpired
	}
	return validity{v.notBefore.UTC().Truncate(time.Second), v.notAfter.UTC().Truncate(time.Second)}, nil
}

// lint is the second pair of eyes (C1): a certificate that is not exactly what the profile says is never handed out, whatever
// the library that signed it made of the request.
func (r *Root) lint(chain []byte, key *ecdsa.PublicKey, want Name, v validity) error {
	cert, err := r.lintShape(chain, key, v)
	if err != nil {
		return err
	}
	got, err := NameOf(cert)
	switch {
	case err != nil:
		return err
	case got != want:
		return fmt.Errorf("%w: another name", ErrBadName)
	case !clientAndServer(cert.ExtKeyUsage):
		return fmt.Errorf("%w: other purposes", ErrBadName)
	}
	return cert.CheckSignatureFrom(r.cert)
}

// lintShape checks what all profiles have in common, and returns the one certificate of the chain.
func (r *Root) lintShape(chain []byte, key *ecdsa.PublicKey, v validity) (*x509.Certificate, error) {
	certs, err := ParseBundle(chain)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("%w: %d certificates", ErrBadName, len(certs))
	}
	cert := certs[0]
	if err := r.checkLife(cert, v); err != nil {
		return nil, err
	}
	switch {
	case !key.Equal(cert.PublicKey):
		return nil, ErrMismatch
	case !r.keyUsage(cert.KeyUsage):
		return nil, fmt.Errorf("%w: other key usages", ErrBadName)
	case len(cert.Extensions) != len(leafExtensions):
		return nil, fmt.Errorf("%w: other extensions", ErrBadName)
	}
	for _, e := range cert.Extensions {
		if !slices.Contains(leafExtensions, e.Id.String()) {
			return nil, fmt.Errorf("%w: extension %s", ErrBadName, e.Id)
		}
	}
	return cert, nil
}

// checkLife checks that a signed certificate has the life that was decided. An external CA decides by itself, within that: a node must
// be able to renew it in time, and what was taken from a removed node is remembered for no longer.
func (r *Root) checkLife(cert *x509.Certificate, v validity) error {
	issued := v.notBefore.Add(Backdate)
	switch {
	case r.key != nil && (!cert.NotBefore.Equal(v.notBefore) || !cert.NotAfter.Equal(v.notAfter)):
		return fmt.Errorf("%w: another life", ErrBadName)
	case r.key != nil:
		return nil
	case cert.NotBefore.After(issued.Add(clockSkew)):
		return fmt.Errorf("%w: it signed for the future: compare the clocks", ErrExternal)
	case cert.NotAfter.Sub(issued) < MinLife-clockSkew:
		return fmt.Errorf("%w: it signed for %s, %s is the least", ErrExternal, cert.NotAfter.Sub(issued).Round(time.Second), MinLife)
	case cert.NotAfter.After(v.notAfter.Add(clockSkew)):
		return fmt.Errorf("%w: it signed for %s, longer than the certificates of this swarm live: change its profile, or raise --cert-expiry",
			ErrExternal, cert.NotAfter.Sub(issued).Round(time.Second))
	}
	return nil
}

// keyUsage reports whether a node's key may be used for what is allowed. An external CA commonly adds what only RSA needs.
func (r *Root) keyUsage(usage x509.KeyUsage) bool {
	if r.key == nil {
		usage &^= x509.KeyUsageKeyEncipherment
	}
	return usage == x509.KeyUsageDigitalSignature
}

// nodePurposes is what the key of a node, or of a task, is for.
func nodePurposes() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}

// clientAndServer reports whether the purposes are those of a node, in any order.
func clientAndServer(purposes []x509.ExtKeyUsage) bool {
	return len(purposes) == 2 && slices.Contains(purposes, x509.ExtKeyUsageClientAuth) && slices.Contains(purposes, x509.ExtKeyUsageServerAuth)
}

// leafExtensions is what a certificate has that is no CA's, each once: key usage, extended key usage, basic constraints, subject key ID,
// authority key ID, alternative names.
var leafExtensions = []string{"2.5.29.15", "2.5.29.37", "2.5.29.19", "2.5.29.14", "2.5.29.35", "2.5.29.17"}
