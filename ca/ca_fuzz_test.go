package ca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

// FuzzIssue checks that whatever a request says, it gives a certificate of the profile for its own key, or nothing.
func FuzzIssue(f *testing.F) {
	root := newRoot(f)
	name := newName(api.Role_ROLE_WORKER)
	_, csr := catest.KeyAndCSR(f)
	f.Add(csr)
	block, _ := pem.Decode(csr)
	f.Add(block.Bytes)
	f.Add(append(bytes.Clone(csr), csr...))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if !bytes.HasPrefix(text, []byte("-----")) { // let mutations of the DER through the armour
			text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: text})
		}
		chain, err := root.Issue(time.Now(), text, ca.Profile{Name: name})
		if err != nil {
			if !errors.Is(err, ca.ErrBadCSR) || chain != nil {
				t.Fatalf("error that no caller can branch on: %v", err)
			}
			return
		}
		certs, err := ca.ParseBundle(chain)
		if err != nil || len(certs) != 1 {
			t.Fatal(err)
		}
		if got, err := ca.NameOf(certs[0]); err != nil || got != name {
			t.Fatalf("name %v, %v", got, err)
		}
		der, _ := pem.Decode(text)
		req, err := x509.ParseCertificateRequest(der.Bytes)
		if err != nil || !req.PublicKey.(*ecdsa.PublicKey).Equal(certs[0].PublicKey) {
			t.Fatalf("certificate for another key than was asked for: %v", err)
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	root := newRoot(f)
	leaf := catest.Credentials(f, root, newName(api.Role_ROLE_WORKER), 0)
	f.Add(root.CertificatePEM())
	f.Add(ca.EncodeBundle(leaf.Chain()))
	f.Add(append(root.CertificatePEM(), root.CertificatePEM()...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nA: b\n\n-----END CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := ca.ParseBundle(text)
		if err != nil {
			if !errors.Is(err, ca.ErrBadBundle) || certs != nil {
				t.Fatalf("error that no caller can branch on: %v", err)
			}
			return
		}
		again, err := ca.ParseBundle(ca.EncodeBundle(certs))
		if err != nil || len(again) != len(certs) {
			t.Fatalf("round trip: %d certificates became %d, %v", len(certs), len(again), err)
		}
		for i := range certs {
			if !certs[i].Equal(again[i]) {
				t.Fatal("round trip changed a certificate")
			}
		}
	})
}
