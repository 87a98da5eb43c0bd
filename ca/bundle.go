package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

const (
	// MaxBundleSize in bytes bounds what is read as a certificate bundle: MaxCertificates P-256 certificates take less than half.
	MaxBundleSize = 32 << 10
	// MaxCertificates in a bundle: a root rotation has three at once.
	MaxCertificates = 8
)

const certificateType = "CERTIFICATE"

// ParseBundle reads PEM that holds one to MaxCertificates certificates and nothing else, in order. It returns ErrBadBundle.
func ParseBundle(text []byte) ([]*x509.Certificate, error) {
	if len(text) > MaxBundleSize {
		return nil, fmt.Errorf("%w: over %d bytes", ErrBadBundle, MaxBundleSize)
	}
	var certs []*x509.Certificate
	for rest := text; len(bytes.TrimSpace(rest)) > 0; {
		der, next, err := nextPEM(rest, certificateType)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadBundle, err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadBundle, err)
		}
		if len(certs) == MaxCertificates {
			return nil, fmt.Errorf("%w: over %d certificates", ErrBadBundle, MaxCertificates)
		}
		certs, rest = append(certs, cert), next
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: empty", ErrBadBundle)
	}
	return certs, nil
}

// ParseRoots reads a bundle of root certificates, each of which must be a CA that signed itself. It returns ErrBadBundle.
func ParseRoots(text []byte) ([]*x509.Certificate, error) {
	roots, err := ParseBundle(text)
	if err != nil {
		return nil, err
	}
	for _, r := range roots {
		if err := checkRoot(r); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadBundle, err)
		}
	}
	return roots, nil
}

// EncodeBundle is the inverse of ParseBundle.
func EncodeBundle(certs []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		out.Write(encodePEM(certificateType, c.Raw))
	}
	return out.Bytes()
}

func checkRoot(c *x509.Certificate) error {
	if !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("%w: not a CA certificate", ErrBadRoot)
	}
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return fmt.Errorf("%w: the key must be ECDSA P-256", ErrBadRoot)
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		return fmt.Errorf("%w: %w", ErrBadRoot, err)
	}
	return nil
}

// nextPEM takes one PEM block of the given type from the front of text. Go's decoder skips text before, between and after
// blocks, and headers carry data that nobody reads; neither has a place in what we parse.
func nextPEM(text []byte, kind string) (der, rest []byte, err error) {
	text = bytes.TrimSpace(text)
	if !bytes.HasPrefix(text, []byte("-----BEGIN "+kind+"-----")) {
		return nil, nil, fmt.Errorf("no PEM block of type %s", kind)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(block.Headers) != 0 {
		return nil, nil, fmt.Errorf("malformed PEM block of type %s", kind)
	}
	// A damaged block is skipped by the decoder in favour of the next whole one: then more than one BEGIN was eaten.
	if bytes.Count(text[:len(text)-len(rest)], []byte("-----BEGIN ")) != 1 {
		return nil, nil, fmt.Errorf("malformed PEM block of type %s", kind)
	}
	return block.Bytes, rest, nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
