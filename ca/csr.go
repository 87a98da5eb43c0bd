package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
)

// MaxCSRSize in bytes bounds a certificate request; one for a P-256 key takes some 300.
const MaxCSRSize = 4 << 10

const csrType = "CERTIFICATE REQUEST"

// NewKey makes a node key.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	return key, nil
}

// NewCSR returns the PEM of a certificate request for key. It says nothing but the public key, because nothing else would be
// heard (C1).
func NewCSR(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return encodePEM(csrType, der), nil
}

// Fingerprint names a node's key for people, as OpenSSH does: SHA256: and the digest of the public key (its SubjectPublicKeyInfo) in
// base64 without padding. The two sides of an approval show it.
func Fingerprint(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("fingerprint of a key: %w", err)
	}
	return fingerprint(der), nil
}

func fingerprint(der []byte) string {
	digest := sha256.Sum256(der)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(digest[:])
}

// parseCSR reads a request and returns it in DER with its public key, which is all that may be used of it. It returns ErrBadCSR.
// ECDSA P-256 is the only kind of key: one kind is one thing to get right, and every TPM and TLS library has it.
func parseCSR(text []byte) (der []byte, key *ecdsa.PublicKey, err error) {
	if len(text) > MaxCSRSize {
		return nil, nil, fmt.Errorf("%w: over %d bytes", ErrBadCSR, MaxCSRSize)
	}
	der, rest, err := nextPEM(text, csrType)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrBadCSR, err)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, fmt.Errorf("%w: data after the request", ErrBadCSR)
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrBadCSR, err)
	}
	key, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() || req.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		return nil, nil, fmt.Errorf("%w: the key must be ECDSA P-256, signed with SHA-256", ErrBadCSR)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrBadCSR, err)
	}
	return req.Raw, key, nil
}
