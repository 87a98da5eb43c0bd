package catest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudflare/cfssl/api/signhandler"
	"github.com/cloudflare/cfssl/config"
	cflog "github.com/cloudflare/cfssl/log"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"

	"github.com/skep-io/skep/ca"
)

// ExternalCA is cfssl's own signing server, with a root of its own, on a loopback address.
type ExternalCA struct {
	// URL and RootPEM are what a swarm is told of it.
	URL     string
	RootPEM []byte
	// Instead answers instead of the server, unless it is nil. It is set before the first request.
	Instead http.HandlerFunc
	// Asked counts the requests, Known those whose client showed a certificate.
	Asked, Known atomic.Int64
}

// quiet has cfssl log no certificates that it signs.
var quiet = sync.OnceFunc(func() { cflog.Level = cflog.LevelError })

// NewExternalCA starts a server that signs as cfssl does by default, but for a life; with the profile "CA" it cross-signs, with
// "user" it signs for people, with "workload" for tasks.
func NewExternalCA(t testing.TB, life time.Duration) *ExternalCA {
	t.Helper()
	quiet()
	root, key := externalRoot(t)
	s, err := local.NewSigner(key, root, signer.DefaultSigAlgo(key), externalPolicy(life))
	if err != nil {
		t.Fatal(err)
	}
	handler, err := signhandler.NewHandlerFromSigner(s)
	if err != nil {
		t.Fatal(err)
	}
	e := &ExternalCA{RootPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/cfssl/sign", func(w http.ResponseWriter, r *http.Request) {
		e.Asked.Add(1)
		if len(r.TLS.PeerCertificates) > 0 {
			e.Known.Add(1)
		}
		if e.Instead != nil {
			e.Instead(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	})
	server := httptest.NewUnstartedServer(mux)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{serverCertificate(t, root, key)}, ClientAuth: tls.RequestClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that refuse it, as some should
	server.StartTLS()
	t.Cleanup(server.Close)
	e.URL = server.URL
	return e
}

// externalPolicy is how an external CA signs.
func externalPolicy(life time.Duration) *config.Signing {
	const workload = ca.Backdate + ca.WorkloadLife
	return &config.Signing{
		Default: &config.SigningProfile{
			Usage: []string{"signing", "key encipherment", "server auth", "client auth"}, Expiry: life, ExpiryString: life.String(),
		},
		Profiles: map[string]*config.SigningProfile{"CA": {
			Usage: []string{"cert sign", "crl sign"}, Expiry: life, ExpiryString: life.String(),
			CAConstraint: config.CAConstraint{IsCA: true, MaxPathLenZero: true},
		}, "user": {
			Usage: []string{"digital signature", "client auth"}, Expiry: life, ExpiryString: life.String(),
		}, "workload": {
			Usage: []string{"digital signature", "client auth", "server auth"}, Expiry: workload, ExpiryString: workload.String(),
			Backdate: ca.Backdate,
		}},
	}
}

// externalRoot makes a root as an organization has one.
func externalRoot(t testing.TB) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example Root", Organization: []string{"Example"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return sign(t, template, template, key, key), key
}

func serverCertificate(t testing.TB, root *x509.Certificate, rootKey *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ca.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return tls.Certificate{Certificate: [][]byte{sign(t, template, root, key, rootKey).Raw}, PrivateKey: key}
}

func sign(t testing.TB, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
