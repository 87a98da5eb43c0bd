package ca

import (
	"bytes"
	"crypto/x509"
	"fmt"

	"github.com/skep-io/skep/api"
)

// OpenRoot returns the root that join tokens pin, of a cluster as the store has it. Id is who asks an external CA, or nil. It returns
// ErrBadRoot or ErrBadBundle.
func OpenRoot(stored *api.RootCA, id *Identity) (*Root, error) {
	return MakeRoot(stored.GetCertificate(), stored.GetKey(), stored.GetExternal(), id)
}

// OpenIssuer returns the root that signs: during a rotation the root to be, whose certificates those who trust the former one only
// believe as well.
func OpenIssuer(stored *api.RootCA, id *Identity) (*Root, error) {
	rotation := stored.GetRotation()
	if len(rotation.GetCertificate()) == 0 { // none, or an aborted one
		return OpenRoot(stored, id)
	}
	next, err := MakeRoot(rotation.GetCertificate(), rotation.GetKey(), rotation.GetExternal(), id)
	if err != nil {
		return nil, fmt.Errorf("the root to be: %w", err)
	}
	return next.following(rotation.GetCrossCertificate())
}

// MakeRoot reads a root and what signs for it: a key, or an external CA.
func MakeRoot(certPEM, keyPEM []byte, external *api.ExternalCA, id *Identity) (*Root, error) {
	if external == nil {
		return ParseRoot(certPEM, keyPEM)
	}
	certs, err := ParseRoots(certPEM)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("%w: %d certificates instead of one", ErrBadRoot, len(certs))
	}
	server, err := NewExternal(external.GetUrl(), certs[0], id)
	if err != nil {
		return nil, err
	}
	return &Root{cert: certs[0], external: server}, nil
}

// TrustedPEM returns the roots that nodes trust now: the present one and, during a rotation, the one to be.
func TrustedPEM(stored *api.RootCA) []byte {
	return append(bytes.Clone(stored.GetCertificate()), stored.GetRotation().GetCertificate()...)
}

// Trusted returns what TrustedPEM does, parsed. It returns ErrBadBundle.
func Trusted(stored *api.RootCA) ([]*x509.Certificate, error) { return ParseRoots(TrustedPEM(stored)) }
