package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

func newRoot(t testing.TB) *ca.Root {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func newName(role api.Role) ca.Name {
	return ca.Name{ClusterID: catest.NewID(), NodeID: catest.NewID(), Role: role}
}

func TestNewRoot_HasTheProfileOfARoot(t *testing.T) {
	root := newRoot(t)
	c := root.Certificate()
	if c.Subject.String() != "CN=skep-ca" || !c.IsCA || c.MaxPathLen != 1 {
		t.Errorf("subject %s, CA %v, path length %d", c.Subject, c.IsCA, c.MaxPathLen)
	}
	if got := c.NotAfter.Sub(c.NotBefore); got != ca.RootLife {
		t.Errorf("life %v, want %v", got, ca.RootLife)
	}
	if since := time.Since(c.NotBefore); since < 59*time.Minute || since > 61*time.Minute {
		t.Errorf("backdated by %v, want an hour", since)
	}
	if c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		t.Errorf("algorithm %v", c.SignatureAlgorithm)
	}
	if newRoot(t).Digest() == root.Digest() {
		t.Error("two roots with one digest")
	}
}

func TestParseRoot(t *testing.T) {
	root, other := newRoot(t), newRoot(t)
	key, err := root.RevealKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ca.ParseRoot(root.CertificatePEM(), key)
	if err != nil || again.Digest() != root.Digest() {
		t.Fatalf("round trip: %v", err)
	}
	leaf := catest.Credentials(t, root, newName(api.Role_ROLE_MANAGER), 0)
	cases := map[string]struct {
		cert, key []byte
	}{
		"another's key":    {other.CertificatePEM(), key},
		"no key":           {root.CertificatePEM(), nil},
		"a node's":         {ca.EncodeBundle(leaf.Chain()), key},
		"two certificates": {append(root.CertificatePEM(), other.CertificatePEM()...), key},
	}
	for name, c := range cases {
		if _, err := ca.ParseRoot(c.cert, c.key); !errors.Is(err, ca.ErrBadRoot) && !errors.Is(err, ca.ErrBadBundle) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIssue_HasTheProfileOfANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newRoot(t)
		for _, role := range []api.Role{api.Role_ROLE_WORKER, api.Role_ROLE_MANAGER} {
			name := newName(role)
			cert := catest.Credentials(t, root, name, 0).Chain()[0]
			got, err := ca.NameOf(cert)
			if err != nil || got != name {
				t.Errorf("name %v, %v; want %v", got, err, name)
			}
			now := time.Now()
			if !cert.NotBefore.Equal(now.Add(-time.Hour)) || !cert.NotAfter.Equal(now.Add(90*24*time.Hour)) {
				t.Errorf("valid from %v to %v, now is %v", cert.NotBefore, cert.NotAfter, now)
			}
			want := []string{name.NodeID, ca.OU(role), "spiffe://" + name.ClusterID + "/node/" + name.NodeID}
			if diff := cmp.Diff(want, []string{cert.DNSNames[0], cert.DNSNames[1], cert.URIs[0].String()}); diff != "" {
				t.Error(diff)
			}
			if cert.Subject.String() != "CN="+name.NodeID+",OU="+ca.OU(role)+",O="+name.ClusterID {
				t.Errorf("subject %s", cert.Subject)
			}
		}
	})
}

func TestIssue_Life(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newRoot(t)
		name := newName(api.Role_ROLE_WORKER)
		_, csr := catest.KeyAndCSR(t)
		_, err := root.Issue(time.Now(), csr, ca.Profile{Name: name, Life: 59 * time.Minute})
		if !errors.Is(err, ca.ErrShortLife) || err.Error() != "minimum certificate expiry time is: 1h0m0s" {
			t.Errorf("59 minutes: %v", err)
		}
		cert := catest.Credentials(t, root, name, time.Hour).Chain()[0]
		if got := time.Until(cert.NotAfter); got != time.Hour {
			t.Errorf("an hour became %v", got)
		}
		<-time.After(ca.RootLife - 2*time.Hour) // an hour before the root ends
		cert = catest.Credentials(t, root, name, 0).Chain()[0]
		if !cert.NotAfter.Equal(root.Certificate().NotAfter) {
			t.Errorf("certificate ends %v, root %v", cert.NotAfter, root.Certificate().NotAfter)
		}
		<-time.After(2 * time.Hour)
		if _, err := root.Issue(time.Now(), csr, ca.Profile{Name: name}); !errors.Is(err, ca.ErrRootExpired) {
			t.Errorf("expired root: %v", err)
		}
	})
}

func TestIssue_TakesNothingButTheKeyFromARequest(t *testing.T) {
	root := newRoot(t)
	name := newName(api.Role_ROLE_WORKER)
	for what, forge := range forgeries(t) {
		t.Run(what, func(t *testing.T) {
			key, err := ca.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			var req x509.CertificateRequest
			forge(&req)
			chain, err := root.Issue(time.Now(), sign(t, &req, key), ca.Profile{Name: name})
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			cert := catest.Assemble(t, root, chain, key).Chain()[0]
			plain := catest.Credentials(t, root, name, 0).Chain()[0]
			if diff := cmp.Diff(shape(plain), shape(cert)); diff != "" {
				t.Errorf("the request changed the certificate (-want +got):\n%s", diff)
			}
		})
	}
}

// forgeries are requests that ask for more than a node gets.
func forgeries(t *testing.T) map[string]func(*x509.CertificateRequest) {
	t.Helper()
	evil, err := url.Parse("spiffe://evil/node/root")
	if err != nil {
		t.Fatal(err)
	}
	extension := func(critical bool, value []byte, oid ...int) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) {
			r.ExtraExtensions = append(r.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: value})
		}
	}
	isCA, err := asn1.Marshal(struct {
		IsCA       bool
		MaxPathLen int
	}{true, 5})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func(*x509.CertificateRequest){
		"nothing": func(*x509.CertificateRequest) {},
		"manager's subject": func(r *x509.CertificateRequest) {
			r.Subject = pkix.Name{
				CommonName: "root", OrganizationalUnit: []string{ca.OUManager}, Organization: []string{"other"},
				Country: []string{"XX"}, Locality: []string{"L"}, Province: []string{"P"}, SerialNumber: "1",
			}
		},
		"own attributes": func(r *x509.CertificateRequest) {
			r.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: "x"}}
		},
		"names": func(r *x509.CertificateRequest) {
			r.DNSNames, r.URIs = []string{ca.OUManager, "example.com"}, []*url.URL{evil}
			r.IPAddresses, r.EmailAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"a@b.c"}
		},
		"to be a CA":        extension(true, isCA, 2, 5, 29, 19),
		"to sign":           extension(true, []byte{3, 2, 1, 6}, 2, 5, 29, 15),
		"other purposes":    extension(false, []byte{0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0}, 2, 5, 29, 37),
		"its own extension": extension(true, []byte{5, 0}, 1, 2, 3, 4),
		"delegation":        extension(false, []byte{5, 0}, 1, 3, 6, 1, 4, 1, 44363, 44),
	}
}

// shape is all of a certificate that does not differ from one to the next.
func shape(c *x509.Certificate) x509.Certificate {
	s := x509.Certificate{
		Subject: c.Subject, IsCA: c.IsCA, MaxPathLen: c.MaxPathLen, KeyUsage: c.KeyUsage, ExtKeyUsage: c.ExtKeyUsage,
		UnknownExtKeyUsage: c.UnknownExtKeyUsage, DNSNames: c.DNSNames, URIs: c.URIs, IPAddresses: c.IPAddresses,
		EmailAddresses: c.EmailAddresses, SignatureAlgorithm: c.SignatureAlgorithm,
	}
	for _, e := range c.Extensions {
		s.Extensions = append(s.Extensions, pkix.Extension{Id: e.Id, Critical: e.Critical})
	}
	return s
}

func TestIssue_RefusesBadRequests(t *testing.T) {
	root := newRoot(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, good := catest.KeyAndCSR(t)
	block, _ := pem.Decode(good)
	broken := append([]byte{}, block.Bytes...)
	broken[len(broken)-1] ^= 1
	encode := func(kind string, headers map[string]string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Headers: headers, Bytes: der})
	}
	huge := &x509.CertificateRequest{DNSNames: []string{strings.Repeat("a", 5000)}}
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{
		"nothing":          nil,
		"no PEM":           []byte("hello"),
		"DER":              block.Bytes,
		"a certificate":    root.CertificatePEM(),
		"other type":       encode("NEW CERTIFICATE REQUEST", nil, block.Bytes),
		"headers":          encode("CERTIFICATE REQUEST", map[string]string{"A": "b"}, block.Bytes),
		"two":              append(append([]byte{}, good...), good...),
		"text before":      append([]byte("x\n"), good...),
		"text after":       append(append([]byte{}, good...), 'x'),
		"broken signature": encode("CERTIFICATE REQUEST", nil, broken),
		"trailing DER":     encode("CERTIFICATE REQUEST", nil, append(append([]byte{}, block.Bytes...), 0)),
		"huge":             sign(t, huge, key),
		"padded":           append(append([]byte{}, good...), make([]byte, ca.MaxCSRSize)...),
		"P-384":            sign(t, &x509.CertificateRequest{}, p384),
		"RSA":              sign(t, &x509.CertificateRequest{}, weak),
		"Ed25519":          sign(t, &x509.CertificateRequest{}, ed),
		"SHA-512":          sign(t, &x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA512}, key),
	}
	for name, csr := range cases {
		t.Run(name, func(t *testing.T) {
			chain, err := root.Issue(time.Now(), csr, ca.Profile{Name: newName(api.Role_ROLE_WORKER)})
			if !errors.Is(err, ca.ErrBadCSR) || chain != nil {
				t.Errorf("Issue: %v, want %v", err, ca.ErrBadCSR)
			}
		})
	}
}

func TestIssue_RefusesBadNames(t *testing.T) {
	root := newRoot(t)
	_, csr := catest.KeyAndCSR(t)
	good := newName(api.Role_ROLE_WORKER)
	for what, spoil := range map[string]func(*ca.Name){
		"no role":            func(n *ca.Name) { n.Role = api.Role_ROLE_UNSPECIFIED },
		"unknown role":       func(n *ca.Name) { n.Role = 99 },
		"no node":            func(n *ca.Name) { n.NodeID = "" },
		"role as node":       func(n *ca.Name) { n.NodeID = ca.OUManager },
		"upper case":         func(n *ca.Name) { n.NodeID = strings.Repeat("A", 25) },
		"path in cluster ID": func(n *ca.Name) { n.ClusterID = strings.Repeat("/", 25) },
	} {
		bad := good
		spoil(&bad)
		if _, err := root.Issue(time.Now(), csr, ca.Profile{Name: bad}); !errors.Is(err, ca.ErrBadName) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func sign(t testing.TB, req *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
