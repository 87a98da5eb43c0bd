package ca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
)

// TestLint shows that a library that signs something else than it was told does no harm (C1).
func TestLint(t *testing.T) {
	root, err := NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	name := Name{strings.Repeat("c", idLen), strings.Repeat("n", idLen), api.Role_ROLE_WORKER}
	now := time.Now().Truncate(time.Second)
	v := validity{now.Add(-Backdate), now.Add(DefaultLife)}
	for what, spoil := range map[string]func(*x509.Certificate){
		"nothing": nil,
		"role": func(c *x509.Certificate) {
			c.Subject.OrganizationalUnit, c.DNSNames[1] = []string{OUManager}, OUManager
		},
		"surplus OU":   func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{OUWorker, OUManager} },
		"country":      func(c *x509.Certificate) { c.Subject.Country = []string{"XX"} },
		"surplus name": func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, OUManager) },
		"address":      func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4zero} },
		"other URI":    func(c *x509.Certificate) { c.URIs[0].Path = "/node/x" },
		"longer life":  func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Second) },
		"earlier":      func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(-time.Second) },
		"CA":           func(c *x509.Certificate) { c.IsCA = true },
		"may sign":     func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
		"code signing": func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) },
		"other key":    func(c *x509.Certificate) { c.PublicKey = &other.PublicKey },
		"extension": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
		},
	} {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: v.notBefore, NotAfter: v.notAfter, PublicKey: &key.PublicKey,
			Subject: pkix.Name{
				CommonName: name.NodeID, Organization: []string{name.ClusterID}, OrganizationalUnit: []string{OUWorker},
			},
			DNSNames: name.dnsNames(), URIs: []*url.URL{name.uri()}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
			BasicConstraintsValid: true, SubjectKeyId: []byte{1},
		}
		if spoil != nil {
			spoil(c)
		}
		der, err := x509.CreateCertificate(rand.Reader, c, root.cert, c.PublicKey, root.key())
		if err != nil {
			t.Fatal(err)
		}
		err = root.lint(encodePEM(certificateType, der), &key.PublicKey, name, v)
		if (err == nil) != (spoil == nil) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && !errors.Is(err, ErrBadName) && !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: an error that no caller can branch on: %v", what, err)
		}
	}
}
