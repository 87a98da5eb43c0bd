package ca

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
)

// decided is what the CA decided about a certificate that is no CA's. The applicant adds a public key, and nothing else.
type decided struct {
	subject  pkix.Name
	dnsNames []string
	uri      *url.URL
	purposes []x509.ExtKeyUsage
	validity validity
	// profile is what an external CA is asked for, or empty for its default. It has its own purposes and validity in it.
	profile string
}

// subjectOf returns the subject of a certificate of the swarm's.
func subjectOf(cluster, unit, name string) pkix.Name {
	return pkix.Name{Organization: []string{cluster}, OrganizationalUnit: []string{unit}, CommonName: name}
}

// sign returns the PEM of a certificate for the key of a request, which is DER: what was parsed, not what was sent.
func (r *Root) sign(csr []byte, key *ecdsa.PublicKey, d decided) ([]byte, error) {
	if r.key == nil {
		return r.external.sign(csr, d)
	}
	id, err := keyID(key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject: d.subject, SubjectKeyId: id, DNSNames: d.dnsNames, URIs: []*url.URL{d.uri},
		NotBefore: d.validity.notBefore, NotAfter: d.validity.notAfter,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: d.purposes,
	}, r.cert, key, r.key())
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return encodePEM(certificateType, der), nil
}

// keyID names a public key in certificates: the first 160 bits of its SHA-256 (RFC 7093, section 2, method 1). The standard library does so
// by itself for CAs alone.
func keyID(key *ecdsa.PublicKey) ([]byte, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(point)
	return digest[:20], nil
}
