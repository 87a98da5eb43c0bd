package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

// shake runs one handshake over a pipe and returns what both sides made of it. The client reads one byte, because in TLS 1.3
// that is when it hears what the server thinks of its certificate.
func shake(t *testing.T, server, client *tls.Config) (s tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	srv, cli := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := srv.Handshake()
		if err == nil {
			_, err = srv.Write([]byte{1})
		}
		done <- err
		_ = a.Close()
	}()
	clientErr = cli.Handshake()
	if clientErr == nil {
		_, clientErr = io.ReadFull(cli, make([]byte, 1))
	}
	_ = b.Close()
	return cli.ConnectionState(), <-done, clientErr
}

func TestTLS_OnlyTheNewest(t *testing.T) {
	r := catest.NewRegistry(t)
	manager := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_MANAGER))
	worker := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_WORKER))
	s, serverErr, clientErr := shake(t, manager.ServerTLS(), worker.ClientTLS(ca.OUManager))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if s.Version != tls.VersionTLS13 || s.CurveID != tls.X25519MLKEM768 || s.NegotiatedProtocol != "h2" || s.DidResume {
		t.Errorf("version %x, key exchange %v, protocol %q, resumed %v", s.Version, s.CurveID, s.NegotiatedProtocol, s.DidResume)
	}
	for what, spoil := range map[string]func(*tls.Config){
		"TLS 1.2":            func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"X25519 alone":       func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} },
		"P-256 alone":        func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256, tls.CurveP384} },
		"an unverified name": func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") } },
	} {
		client, server := worker.ClientTLS(ca.OUManager), manager.ServerTLS()
		spoil(client)
		if _, _, err := shake(t, server, client); err == nil {
			t.Errorf("client with %s was served", what)
		}
	}
	for what, spoil := range map[string]func(*tls.Config){
		"TLS 1.2": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"X25519":  func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} },
	} {
		old := &tls.Config{Certificates: []tls.Certificate{tlsCertificate(manager.Current())}}
		spoil(old)
		if _, _, err := shake(t, old, worker.ClientTLS(ca.OUManager)); err == nil {
			t.Errorf("server with %s was accepted", what)
		}
	}
}

// What keeps the promises twice over can't be seen from outside, and is looked at instead.
func TestTLS_Policy(t *testing.T) {
	id := ca.NewIdentity(catest.Member(t, catest.NewRegistry(t), api.Role_ROLE_MANAGER))
	perClient, err := id.ServerTLS().GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]*tls.Config{
		"server": id.ServerTLS(), "server, per client": perClient, "client": id.ClientTLS(ca.OUManager),
	} {
		if c.MinVersion != tls.VersionTLS13 || !c.SessionTicketsDisabled || c.Renegotiation != tls.RenegotiateNever ||
			!slices.Equal(c.CurvePreferences, []tls.CurveID{tls.X25519MLKEM768}) {
			t.Errorf("%s: version %x, no tickets %v, curves %v", what, c.MinVersion, c.SessionTicketsDisabled, c.CurvePreferences)
		}
	}
}

func TestTLS_NoSessionIsResumed(t *testing.T) {
	r := catest.NewRegistry(t)
	manager := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_MANAGER))
	client := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_WORKER)).ClientTLS(ca.OUManager)
	client.SessionTicketsDisabled, client.ClientSessionCache = false, tls.NewLRUClientSessionCache(8)
	for range 3 {
		s, _, err := shake(t, manager.ServerTLS(), client)
		if err != nil || s.DidResume {
			t.Fatalf("resumed %v, %v", s.DidResume, err)
		}
	}
}

func TestClientTLS_VerifiesWhoItIsThatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, other := catest.NewRegistry(t), catest.NewRegistry(t)
		worker := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_WORKER))
		c, err := r.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		peer := catest.Member(t, r, api.Role_ROLE_MANAGER)
		expired := catest.Credentials(t, c.Root, ca.Name{ClusterID: c.ID, NodeID: catest.NewID(), Role: api.Role_ROLE_MANAGER}, time.Hour)
		<-time.After(2 * time.Hour)
		for what, tc := range map[string]struct {
			server ca.Credentials
			name   string
			ok     bool
		}{
			"a manager":                     {peer, ca.OUManager, true},
			"that very node":                {peer, peer.Name().NodeID, true},
			"another node":                  {peer, catest.NewID(), false},
			"a worker as a manager":         {catest.Member(t, r, api.Role_ROLE_WORKER), ca.OUManager, false},
			"no name":                       {peer, "", false},
			"another swarm's manager":       {catest.Member(t, other, api.Role_ROLE_MANAGER), ca.OUManager, false},
			"an expired manager":            {expired, ca.OUManager, false},
			"same root, other cluster's ID": {catest.Credentials(t, c.Root, newName(api.Role_ROLE_MANAGER), 0), ca.OUManager, false},
		} {
			_, _, err := shake(t, ca.NewIdentity(tc.server).ServerTLS(), worker.ClientTLS(tc.name))
			if (err == nil) != tc.ok {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestServerTLS_VerifiesAClientThatShowsACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, other := catest.NewRegistry(t), catest.NewRegistry(t)
		c, err := r.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		key, err := c.Root.RevealKey()
		if err != nil {
			t.Fatal(err)
		}
		worker := catest.Member(t, r, api.Role_ROLE_WORKER)
		expired := catest.Credentials(t, c.Root, ca.Name{ClusterID: c.ID, NodeID: catest.NewID(), Role: api.Role_ROLE_WORKER}, time.Hour)
		<-time.After(2 * time.Hour)
		manager := ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_MANAGER))
		forge := func(change func(*x509.Certificate)) tls.Certificate { return forged(t, c.Root, key, worker, change) }
		for what, tc := range map[string]struct {
			cert tls.Certificate
			ok   bool
		}{
			"none, to join":   {tls.Certificate{}, true},
			"a worker":        {tlsCertificate(worker), true},
			"another swarm's": {tlsCertificate(catest.Member(t, other, api.Role_ROLE_WORKER)), false},
			"expired":         {tlsCertificate(expired), false},
			"a faithful copy": {forge(func(*x509.Certificate) {}), true},
			"not yet valid":   {forge(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), false},
			"server only": {forge(func(c *x509.Certificate) {
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			}), false},
			"a CA": {forge(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }), false},
			"two roles": {forge(func(c *x509.Certificate) {
				c.Subject.OrganizationalUnit = []string{ca.OUManager, ca.OUWorker}
			}), false},
			"a role that is none": {forge(func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"root"} }), false},
			"a manager's name":    {forge(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, ca.OUManager) }), false},
			"a task's": {forge(func(c *x509.Certificate) {
				c.URIs = []*url.URL{{Scheme: "spiffe", Host: c.Subject.Organization[0], Path: "/service/web/task/1"}}
			}), false},
		} {
			client := manager.ClientTLS(ca.OUManager)
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tc.cert, nil }
			_, serverErr, _ := shake(t, manager.ServerTLS(), client)
			if (serverErr == nil) != tc.ok {
				t.Errorf("%s: %v", what, serverErr)
			}
		}
	})
}

func TestServerCredentials_BoundTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := ca.NewIdentity(catest.Member(t, catest.NewRegistry(t), api.Role_ROLE_MANAGER))
		const many = 200
		results := make(chan error, many)
		start := time.Now()
		for range many {
			client, server := net.Pipe()
			go func() {
				defer func() { _ = client.Close() }()
				_, _, err := id.ServerCredentials().ServerHandshake(server)
				results <- err
			}()
		}
		for range many {
			if err := <-results; err == nil {
				t.Error("a handshake with nobody succeeded")
			}
		}
		if took := time.Since(start); took != ca.HandshakeTimeout {
			t.Errorf("stalled handshakes ended after %v", took)
		}
		client, server := net.Pipe()
		go discard(server)
		_, _, err := id.ClientCredentials(ca.OUManager).ClientHandshake(context.Background(), "m", client)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("client: %v", err)
		}
		_ = server.Close()
	})
}

func TestIdentity_ReplaceKeepsNodeAndCluster(t *testing.T) {
	root := newRoot(t)
	name := newName(api.Role_ROLE_WORKER)
	id := ca.NewIdentity(catest.Credentials(t, root, name, time.Hour))
	changed := id.Watch()
	otherNode, otherCluster := name, name
	otherNode.NodeID, otherCluster.ClusterID = catest.NewID(), catest.NewID()
	for _, n := range []ca.Name{otherNode, otherCluster} {
		if err := id.Replace(catest.Credentials(t, root, n, 0)); !errors.Is(err, ca.ErrOtherNode) {
			t.Errorf("replaced by %v: %v", n, err)
		}
	}
	if err := id.Replace(ca.Credentials{}); !errors.Is(err, ca.ErrOtherNode) {
		t.Errorf("replaced by nothing: %v", err)
	}
	select {
	case <-changed:
		t.Error("refused changes woke a watcher")
	default:
	}
	name.Role = api.Role_ROLE_MANAGER
	if err := id.Replace(catest.Credentials(t, root, name, 0)); err != nil {
		t.Fatal(err)
	}
	<-changed
	if id.Role() != api.Role_ROLE_MANAGER || id.NodeID() != name.NodeID || id.ClusterID() != name.ClusterID {
		t.Errorf("identity is %v %v %v", id.NodeID(), id.ClusterID(), id.Role())
	}
	if got := time.Until(id.Expiry()); got < 89*24*time.Hour {
		t.Errorf("expires in %v", got)
	}
}

func tlsCertificate(c ca.Credentials) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.Chain()[0].Raw}, PrivateKey: c.RevealKey()}
}

// forged is what somebody with the root key could make of a node's certificate.
func forged(t *testing.T, root *ca.Root, keyPEM []byte, like ca.Credentials, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := parsePrivate(t, keyPEM)
	c := like.Chain()[0]
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{
			CommonName: c.Subject.CommonName, Organization: c.Subject.Organization, OrganizationalUnit: c.Subject.OrganizationalUnit,
		},
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, KeyUsage: c.KeyUsage, ExtKeyUsage: c.ExtKeyUsage,
		BasicConstraintsValid: true, DNSNames: c.DNSNames, URIs: c.URIs,
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, root.Certificate(), c.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: like.RevealKey()}
}

func parsePrivate(t *testing.T, text []byte) *ecdsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode(text)
	key, err := ca.ParseKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
