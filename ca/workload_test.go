package ca_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/internal/grpctest"
)

// newSVID returns the SVID of a task of the service web, and its key.
func newSVID(t *testing.T, root *ca.Root, clusterID string) tls.Certificate {
	t.Helper()
	key, csr := catest.KeyAndCSR(t)
	chain, err := root.IssueWorkload(time.Now(), csr, ca.Workload{ClusterID: clusterID, Service: "web", Slot: 3})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ca.ParseBundle(chain)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{certs[0].Raw}, Leaf: certs[0], PrivateKey: key}
}

func TestIssueWorkload_HasTheProfileOfAnX509SVID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, cluster := newRoot(t), catest.NewID()
		cert := newSVID(t, root, cluster).Leaf
		id := "spiffe://" + cluster + "/service/web/task/3"
		if len(cert.URIs) != 1 || cert.URIs[0].String() != id || cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("URIs %v, CA %v, key usage %b", cert.URIs, cert.IsCA, cert.KeyUsage)
		}
		if now := time.Now(); !cert.NotBefore.Equal(now.Add(-time.Hour)) || !cert.NotAfter.Equal(now.Add(time.Hour)) {
			t.Errorf("valid from %v to %v, now is %v", cert.NotBefore, cert.NotAfter, now)
		}
		if w, err := ca.WorkloadOf(cert); err != nil || w.SPIFFEID() != id {
			t.Errorf("workload %v, %v", w, err)
		}
		domain := spiffeid.RequireTrustDomainFromString(cluster)
		trusted := x509bundle.FromX509Authorities(domain, []*x509.Certificate{root.Certificate()})
		got, _, err := x509svid.Verify([]*x509.Certificate{cert}, trusted)
		if err != nil || got.String() != id {
			t.Errorf("go-spiffe: %v, %v", got, err)
		}
	})
}

func TestIssueWorkload_ConvincesOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl")
	}
	root, dir := newRoot(t), t.TempDir()
	for name, cert := range map[string]*x509.Certificate{"root": root.Certificate(), "svid": newSVID(t, root, catest.NewID()).Leaf} {
		if err := atomicfile.Write(filepath.Join(dir, name), ca.EncodeBundle([]*x509.Certificate{cert}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, purpose := range []string{"sslclient", "sslserver"} {
		cmd := exec.Command(openssl, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "root", "svid")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", purpose, err, out)
		}
	}
}

func TestIssueWorkload_Refuses(t *testing.T) {
	root, cluster := newRoot(t), catest.NewID()
	_, csr := catest.KeyAndCSR(t)
	for what, w := range map[string]ca.Workload{
		"no cluster":           {Service: "web", Slot: 1},
		"a cluster's name":     {ClusterID: "example.org", Service: "web", Slot: 1},
		"no service":           {ClusterID: cluster, Slot: 1},
		"a path as a service":  {ClusterID: cluster, Service: "web/task/1", Slot: 1},
		"a parent as service":  {ClusterID: cluster, Service: "..", Slot: 1},
		"a long service":       {ClusterID: cluster, Service: strings.Repeat("a", 256), Slot: 1},
		"letters of elsewhere": {ClusterID: cluster, Service: "wéb", Slot: 1},
		"no slot":              {ClusterID: cluster, Service: "web"},
	} {
		if _, err := root.IssueWorkload(time.Now(), csr, w); !errors.Is(err, ca.ErrBadName) {
			t.Errorf("%s: %v", what, err)
		}
	}
	w := ca.Workload{ClusterID: cluster, Service: "web", Slot: 1}
	if _, err := root.IssueWorkload(time.Now(), []byte("x"), w); !errors.Is(err, ca.ErrBadCSR) {
		t.Errorf("bad request: %v", err)
	}
	if _, err := root.IssueWorkload(root.Certificate().NotAfter, csr, w); !errors.Is(err, ca.ErrRootExpired) {
		t.Errorf("expired root: %v", err)
	}
}

func TestIssueWorkload_ByAnExternalCA(t *testing.T) {
	root := outside(t, catest.NewExternalCA(t, 48*time.Hour), nil)
	cert := newSVID(t, root, catest.NewID()).Leaf
	if life := time.Until(cert.NotAfter); (life - ca.WorkloadLife).Abs() > time.Minute { // cfssl counts from a whole minute
		t.Errorf("it lives for %v", life)
	}
}

// A task whose SVID is by the root to be is believed by those who don't know that root yet.
func TestIssueWorkload_DuringARotation(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	issuer, err := ca.OpenIssuer(rotating(t, a, b), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := ca.Workload{ClusterID: catest.NewID(), Service: "web", Slot: 1}
	_, csr := catest.KeyAndCSR(t)
	chainPEM, err := issuer.IssueWorkload(time.Now(), csr, w)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.ParseBundle(chainPEM)
	if err != nil {
		t.Fatal(err)
	}
	for what, root := range map[string]*ca.Root{"the root before": a, "the root to be": b} {
		trusted := x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString(w.ClusterID), certificates(root))
		if id, _, err := x509svid.Verify(chain, trusted); err != nil || id.String() != w.SPIFFEID() {
			t.Errorf("by %s: %v, %v", what, id, err)
		}
	}
}

// TestIdentities_NoKindPassesForAnother signs with the swarm's own root, so that only the shape of a certificate can tell.
func TestIdentities_NoKindPassesForAnother(t *testing.T) {
	root := newRoot(t)
	node := newName(api.Role_ROLE_MANAGER)
	svid := newSVID(t, root, node.ClusterID)
	if name, err := ca.NameOf(svid.Leaf); !errors.Is(err, ca.ErrBadName) {
		t.Errorf("a task passes for node %v: %v", name, err)
	}
	creds := catest.Credentials(t, root, node, 0)
	if w, err := ca.WorkloadOf(creds.Chain()[0]); !errors.Is(err, ca.ErrBadName) {
		t.Errorf("a node passes for task %v: %v", w, err)
	}
	if user, err := ca.UserOf(svid.Leaf); !errors.Is(err, ca.ErrBadUser) {
		t.Errorf("a task passes for user %v: %v", user, err)
	}
	person := catest.UserCertificate(t, root, ca.UserName{ClusterID: node.ClusterID, User: "ann", Role: api.UserRole_USER_ROLE_ADMIN}, 0)
	if w, err := ca.WorkloadOf(person.Leaf); !errors.Is(err, ca.ErrBadName) {
		t.Errorf("a user passes for task %v: %v", w, err)
	}
	if w, err := ca.WorkloadOf(root.Certificate()); !errors.Is(err, ca.ErrBadName) {
		t.Errorf("the root passes for task %v: %v", w, err)
	}
	id := ca.NewIdentity(creds)
	for _, serverName := range []string{ca.OUManager, node.NodeID} {
		asClient := id.ClientTLS(serverName)
		asClient.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &svid, nil }
		if serverErr, _ := meet(t, id.ServerTLS(), asClient); !errors.Is(serverErr, ca.ErrBadName) {
			t.Errorf("a node about a task that knocks: %v", serverErr)
		}
		if serverErr, _ := meet(t, ca.PeopleTLS(func() *ca.Identity { return id }), asClient); !errors.Is(serverErr, ca.ErrBadUser) {
			t.Errorf("where people come in about a task that knocks: %v", serverErr)
		}
		asServer := id.ServerTLS()
		asServer.GetConfigForClient, asServer.Certificates = nil, []tls.Certificate{svid}
		if _, clientErr := meet(t, asServer, id.ClientTLS(serverName)); !errors.As(clientErr, new(x509.HostnameError)) {
			t.Errorf("a node about a task that answers: %v", clientErr)
		}
	}
}

// meet runs one handshake over a connection that buffers, and returns what each side made of it.
func meet(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l := grpctest.Listen()
	defer l.Close() //nolint:errcheck // nothing was to be sent
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = tls.Server(conn, server).Handshake()
		}
		done <- err
	}()
	conn, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	clientErr = tls.Client(conn, client).Handshake()
	_ = conn.Close() // a server that waits for more gets an end
	return <-done, clientErr
}

func TestWorkloadOf_TakesNoOtherShape(t *testing.T) {
	cluster := catest.NewID()
	good := "spiffe://" + cluster + "/service/web/task/3"
	for what, change := range map[string]func(*x509.Certificate){
		"nothing":         func(*x509.Certificate) {},
		"a subject":       func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "web"} },
		"a DNS name":      func(c *x509.Certificate) { c.DNSNames = []string{"web"} },
		"an address":      func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4zero} },
		"a second URI":    func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) },
		"no URI":          func(c *x509.Certificate) { c.URIs = nil },
		"another scheme":  func(c *x509.Certificate) { c.URIs[0].Scheme = "https" },
		"a port":          func(c *x509.Certificate) { c.URIs[0].Host += ":1" },
		"a user":          func(c *x509.Certificate) { c.URIs[0].User = url.User("x") },
		"a query":         func(c *x509.Certificate) { c.URIs[0].RawQuery = "x" },
		"a fragment":      func(c *x509.Certificate) { c.URIs[0].Fragment = "x" },
		"a node's path":   func(c *x509.Certificate) { c.URIs[0].Path = "/node/" + cluster },
		"a longer path":   func(c *x509.Certificate) { c.URIs[0].Path += "/x" },
		"slot 0":          func(c *x509.Certificate) { c.URIs[0].Path = "/service/web/task/0" },
		"slot 03":         func(c *x509.Certificate) { c.URIs[0].Path = "/service/web/task/03" },
		"a slot too high": func(c *x509.Certificate) { c.URIs[0].Path = "/service/web/task/18446744073709551616" },
		"a CA":            func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true },
	} {
		uri, err := url.Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{uri}}
		change(template)
		key, _ := catest.KeyAndCSR(t)
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		w, err := ca.WorkloadOf(cert)
		if (err == nil) != (what == "nothing") || err != nil && !errors.Is(err, ca.ErrBadName) {
			t.Errorf("%s: %v, %v", what, w, err)
		}
	}
}
