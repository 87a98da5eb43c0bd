package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/authz"
)

func TestMetricsAddress(t *testing.T) {
	tls := peopleConfig{Authorities: "ca.pem"}
	for _, test := range []struct {
		text   string
		people peopleConfig
		want   string
		err    string
	}{
		{"", tls, "", ""},
		{"127.0.0.1:9323", peopleConfig{}, "127.0.0.1:9323", ""},
		{"127.0.0.1", peopleConfig{}, "127.0.0.1:9323", ""},
		{"[::1]:1", peopleConfig{}, "[::1]:1", ""},
		{"10.0.0.1:9323", tls, "10.0.0.1:9323", ""},
		{"10.0.0.1:9323", peopleConfig{}, "", "mutual TLS only: add --tlsverify"},
		{"0.0.0.0:9323", peopleConfig{Hosts: []string{"10.0.0.1:2376"}}, "", "mutual TLS only"},
		{"localhost:9323", peopleConfig{}, "", "want ADDRESS[:PORT]"},
		{":9323", peopleConfig{}, "", "want ADDRESS[:PORT]"},
	} {
		got, err := metricsAddress(test.text, test.people)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q: %q, %v; want %q, %q", test.text, got, err, test.want, test.err)
		}
	}
}

// serveTestMetrics serves the metrics of a daemon that is in no swarm, and returns where.
func serveTestMetrics(t *testing.T, d *Daemon) string {
	t.Helper()
	listener, err := d.listenMetrics()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- d.serveMetrics(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func TestServeMetrics_AnswersPrometheusAndNobodyElse(t *testing.T) {
	d := newTestDaemon(t)
	d.cfg.MetricsAddress = "127.0.0.1:0"
	address := serveTestMetrics(t, d)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", answer.Status, err)
	}
	for _, want := range []string{`skep_build_info{version="test"} 1`, "go_goroutines ", "process_resident_memory_bytes "} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(string(text))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "skep_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, wrong := range []struct{ method, path string }{{http.MethodGet, "/"}, {http.MethodGet, "/debug/pprof/"}, {http.MethodPost, "/metrics"}} {
		request, err := http.NewRequestWithContext(t.Context(), wrong.method, "http://"+address+wrong.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode < 400 {
			t.Errorf("%s %s: %s", wrong.method, wrong.path, answer.Status)
		}
	}
}

// authority is a CA of one's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "own-ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign makes a key and signs a certificate for it; the first one signs itself.
func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// pair writes a certificate and its key to files.
func (a *authority) pair(template *x509.Certificate) (certFile, keyFile string) {
	a.t.Helper()
	cert, key := a.sign(template)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write("CERTIFICATE", cert.Raw), a.write("PRIVATE KEY", der)
}

func (a *authority) write(kind string, der []byte) string {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), "file.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// knownUsers are a manager's records.
type knownUsers map[string]authz.UserRecord

func (u knownUsers) User(name string) (authz.UserRecord, bool) {
	r, ok := u[name]
	return r, ok
}

func (knownUsers) CatchUp(context.Context) error { return nil }

// On an address that others can reach, only those get an answer for whom the CA vouches.
func TestServeMetrics_ByMutualTLS(t *testing.T) {
	own, other := newAuthority(t), newAuthority(t)
	d := newTestDaemon(t)
	d.cfg.MetricsAddress = "0.0.0.0:0"
	d.cfg.People.Authorities = own.write("CERTIFICATE", own.cert.Raw)
	d.cfg.People.Cert, d.cfg.People.Key = own.pair(&x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	_, port, err := net.SplitHostPort(serveTestMetrics(t, d))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(own.cert)
	dial := func(a *authority) *http.Client {
		config := &tls.Config{RootCAs: pool}
		if a != nil {
			pair, err := tls.LoadX509KeyPair(a.pair(&x509.Certificate{
				Subject: pkix.Name{CommonName: "prometheus"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			}))
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	}
	scrape := func(client *http.Client) error {
		answer, err := client.Get("https://127.0.0.1:" + port + "/metrics")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err == nil && answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", answer.Status, text)
		}
		return err
	}
	prometheus := dial(own)
	if err := scrape(prometheus); err != nil {
		t.Errorf("with a certificate of the CA: %v", err)
	}
	if err := scrape(dial(nil)); err == nil {
		t.Error("somebody without a certificate reads the metrics")
	}
	if err := scrape(dial(other)); err == nil {
		t.Error("somebody with another CA's certificate reads the metrics")
	}

	// A manager asks its records, at each request: the connection is there already.
	users := knownUsers{}
	d.managed.arrive(nil, nil, users, nil)
	defer d.managed.depart()
	if err := scrape(prometheus); err == nil || !strings.Contains(err.Error(), "403 Forbidden: user prometheus is not known") {
		t.Errorf("somebody whom the swarm does not know: %v", err)
	}
	users["prometheus"] = authz.UserRecord{Role: api.UserRole_USER_ROLE_VIEWER}
	if err := scrape(prometheus); err != nil {
		t.Errorf("a user: %v", err)
	}
	users["prometheus"] = authz.UserRecord{Role: api.UserRole_USER_ROLE_VIEWER, Revoked: true}
	if err := scrape(prometheus); err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
		t.Errorf("a revoked user: %v", err)
	}
	answer, err := http.Get("http://127.0.0.1:" + port + "/metrics")
	if err == nil {
		answer.Body.Close()
		if answer.StatusCode < 400 {
			t.Error("the metrics are there without TLS")
		}
	}
}
