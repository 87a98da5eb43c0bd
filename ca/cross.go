package ca

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// CrossLife is how long a cross-signed root can stand in for its root: longer than any rotation should wait for a node, and short,
// because the root that signed it can't take it back when the rotation is aborted.
const CrossLife = 365 * 24 * time.Hour

// CheckNext returns ErrBadRoot unless next can follow r as the swarm's root.
func (r *Root) CheckNext(now time.Time, next *Root) error {
	cert := next.cert
	switch {
	case string(cert.RawSubjectPublicKeyInfo) == string(r.cert.RawSubjectPublicKeyInfo):
		return fmt.Errorf("%w: it has the key of the present root: give another one", ErrBadRoot)
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%w: it is valid only from %s on", ErrBadRoot, cert.NotBefore.UTC().Format(time.RFC3339))
	case cert.NotAfter.Before(now.Add(DefaultLife)):
		return fmt.Errorf("%w: it ends at %s: the root must live for %d days at least", ErrBadRoot,
			cert.NotAfter.UTC().Format(time.RFC3339), DefaultLife/(24*time.Hour))
	case cert.MaxPathLen == 0 && cert.MaxPathLenZero:
		return fmt.Errorf("%w: its path length is 0, so that it could never sign the root that follows it: 1 is needed", ErrBadRoot)
	case r.key == nil && next.key == nil:
		return fmt.Errorf("%w: from one external CA to another there is no way but by a root of the swarm's own: "+
			"rotate to that first, without --external-ca", ErrBadRoot)
	}
	return nil
}

// CrossSign returns the subject and key of next in a certificate by r, as PEM: whoever trusts r trusts by it what next signs. It
// returns ErrExternal.
func (r *Root) CrossSign(now time.Time, next *Root) ([]byte, error) {
	der, err := r.crossSign(now, next)
	if err != nil {
		return nil, fmt.Errorf("cross-sign the next root: %w", err)
	}
	cross, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cross-sign the next root: %w", err)
	}
	if err := r.lintCross(cross, next); err != nil {
		return nil, fmt.Errorf("check the cross-signed root: %w", err)
	}
	return encodePEM(certificateType, der), nil
}

func (r *Root) crossSign(now time.Time, next *Root) ([]byte, error) {
	if r.key == nil {
		return r.crossSignOutside(next)
	}
	end := now.Add(CrossLife)
	for _, root := range []*x509.Certificate{r.cert, next.cert} {
		if root.NotAfter.Before(end) {
			end = root.NotAfter
		}
	}
	template := &x509.Certificate{
		RawSubject: next.cert.RawSubject, SubjectKeyId: next.cert.SubjectKeyId,
		AuthorityKeyId: r.cert.SubjectKeyId, // all roots of ours have one name: without it, OpenSSL takes this for one that signed itself
		NotBefore:      now.Add(-Backdate), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return x509.CreateCertificate(rand.Reader, template, r.cert, next.cert.PublicKey, r.key())
}

// crossSignOutside asks an external CA for the signature.
func (r *Root) crossSignOutside(next *Root) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: next.cert.RawSubject}, next.key())
	if err != nil {
		return nil, err
	}
	signed, err := r.external.ask(externalRequest{Request: string(encodePEM(csrType, csr)), Profile: crossProfile})
	if err != nil {
		return nil, err
	}
	der, _, err := nextPEM(signed, certificateType)
	return der, err
}

// lintCross checks that a cross-signed root does what it is for.
func (r *Root) lintCross(cross *x509.Certificate, next *Root) error {
	key, ok := cross.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || !key.Equal(next.cert.PublicKey):
		return ErrMismatch
	case string(cross.RawSubject) != string(next.cert.RawSubject):
		return fmt.Errorf("%w: another subject", ErrBadRoot)
	case !cross.IsCA || !cross.BasicConstraintsValid || cross.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.Join(ErrBadRoot, fmt.Errorf("not a CA certificate: an external CA needs a signing profile %q for that", crossProfile))
	}
	return cross.CheckSignatureFrom(r.cert)
}

// following returns a copy of r whose certificates lead to an older root, too, by cross, the PEM that CrossSign of that returned.
func (r *Root) following(cross []byte) (*Root, error) {
	certs, err := ParseBundle(cross)
	if err != nil {
		return nil, err
	}
	copied := *r
	copied.cross = certs
	return &copied, nil
}
