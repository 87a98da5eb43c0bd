package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
)

const (
	// maxGrace bounds how long after its end a certificate can be renewed; see Grace.
	maxGrace = 30 * 24 * time.Hour
	// expiredContext keeps a signature for this use from being one for another.
	expiredContext = "skep renewal of an expired certificate 1"
)

// Grace returns how long after its end a certificate can still be renewed by proof of its key: as long as it lived, 30 days at most. A
// machine that was off for a holiday comes back by itself; a key from a disk that was thrown away long ago is worth nothing.
func Grace(cert *x509.Certificate) time.Duration {
	return min(cert.NotAfter.Sub(issuedAt(cert)), maxGrace)
}

// ExpiredProof returns the digest that the key of an expired certificate signs: over a nonce of the manager, the certificate (DER) and
// the request for the new one (PEM). So a proof counts once, for one key.
func ExpiredProof(nonce, cert, csr []byte) []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(expiredContext), nonce, cert, csr} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	return h.Sum(nil)
}

// ExpiredRequest is what a node says whose certificate has expired. All of it is the word of a stranger.
type ExpiredRequest struct {
	CSR, Chain       []byte // PEM
	Nonce, Signature []byte
}

// RenewExpired gives a node a new certificate that proves itself by the key of one that has expired. Whether the nonce was given out,
// and to this request only, the caller has checked. It returns ErrBadProof, ErrGraceOver, ErrNodeNotFound or ErrBadCSR.
func (a *Authority) RenewExpired(ctx context.Context, now time.Time, req ExpiredRequest) (Issued, error) {
	c, err := a.registry.Cluster(ctx)
	if err != nil {
		return Issued{}, err
	}
	leaf, name, err := c.prove(req)
	if err != nil {
		return Issued{}, err
	}
	if now.After(leaf.NotAfter.Add(Grace(leaf))) {
		return Issued{}, ErrGraceOver
	}
	return a.issue(ctx, c, now, name.NodeID, req.CSR)
}

// prove returns the certificate that the request proves to have the key of, and whose it is.
func (c Cluster) prove(req ExpiredRequest) (*x509.Certificate, Name, error) {
	chain, err := ParseBundle(req.Chain)
	if err != nil {
		return nil, Name{}, fmt.Errorf("%w: %w", ErrBadProof, err)
	}
	leaf := chain[0]
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: poolOf(c.trusted()), Intermediates: poolOf(chain[1:]), CurrentTime: issuedAt(leaf), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, Name{}, fmt.Errorf("%w: %w", ErrBadProof, err)
	}
	name, err := NameOf(leaf)
	if err != nil || name.ClusterID != c.ID {
		return nil, Name{}, fmt.Errorf("%w: not a node of this swarm", ErrBadProof)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(key, ExpiredProof(req.Nonce, leaf.Raw, req.CSR), req.Signature) {
		return nil, Name{}, fmt.Errorf("%w: the signature is not by the certificate's key", ErrBadProof)
	}
	return leaf, name, nil
}

// trusted returns the roots that nodes trust now.
func (c Cluster) trusted() []*x509.Certificate {
	roots := []*x509.Certificate{c.Root.cert}
	if c.Next != nil {
		roots = append(roots, c.Next.cert)
	}
	return roots
}

// RenewExpired asks the manager behind conn, a connection that was made with ExpiredCredentials, for a certificate for a new key, by
// proof of the old one. The caller saves and uses what it returns.
func RenewExpired(ctx context.Context, conn grpc.ClientConnInterface, id *Identity) (Credentials, error) {
	old := id.Current()
	client := api.NewCAClient(conn)
	begun, err := client.BeginExpiredRenewal(ctx, &api.BeginExpiredRenewalRequest{})
	if err != nil {
		return Credentials{}, fmt.Errorf("ask to renew an expired certificate: %w", err)
	}
	key, csr, err := newKeyAndCSR()
	if err != nil {
		return Credentials{}, err
	}
	proof := ExpiredProof(begun.GetNonce(), old.chain[0].Raw, csr)
	signature, err := ecdsa.SignASN1(rand.Reader, old.key(), proof)
	if err != nil {
		return Credentials{}, fmt.Errorf("prove the key of an expired certificate: %w", err)
	}
	resp, err := client.RenewExpiredCertificate(ctx, &api.RenewExpiredCertificateRequest{
		Csr: csr, Certificate: EncodeBundle(old.chain), Nonce: begun.GetNonce(), Signature: signature,
	})
	if err != nil {
		return Credentials{}, fmt.Errorf("ask to renew an expired certificate: %w", err)
	}
	return old.renewed(resp.GetCertificate(), key)
}
