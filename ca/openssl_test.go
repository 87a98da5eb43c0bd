package ca_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/cfssl/certinfo"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

// openssl runs a command of OpenSSL and returns what it says.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "openssl", args...)
	command.Stdin = strings.NewReader("Q\n")
	out, err := command.CombinedOutput()
	return string(out), err
}

// needOpenSSL skips a test where there is none.
func needOpenSSL(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl: apt-get install openssl")
	}
}

// pemFiles writes files, and returns their directory.
func pemFiles(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Another implementation than the one that signed, and that nodes verify with, finds the same: chain, names, usages, life.
func TestOpenSSL_VerifiesNodesBeforeDuringAndAfterARotation(t *testing.T) {
	needOpenSSL(t)
	a, b := newRoot(t), newRoot(t)
	name := newName(api.Role_ROLE_MANAGER)
	old, during := signedBy(t, storedRoot(t, a), name, a), signedBy(t, rotating(t, a, b), name, a, b)
	dir := pemFiles(t, map[string][]byte{
		"a.pem": a.CertificatePEM(), "b.pem": b.CertificatePEM(), "both.pem": append(a.CertificatePEM(), b.CertificatePEM()...),
		"old.pem": ca.EncodeBundle(old.Chain()), "new.pem": ca.EncodeBundle(during.Chain()[:1]), "cross.pem": ca.EncodeBundle(during.Chain()[1:]),
	})
	for what, c := range map[string]struct {
		roots, leaf string
		want        bool
	}{
		"before":                            {"a.pem", "old.pem", true},
		"renewed, for whom knows nothing":   {"a.pem", "new.pem", true},
		"renewed, for whom trusts both":     {"both.pem", "new.pem", true},
		"not renewed, for whom trusts both": {"both.pem", "old.pem", true},
		"renewed, after the end":            {"b.pem", "new.pem", true},
		"not renewed, after the end":        {"b.pem", "old.pem", false},
	} {
		for _, purpose := range []string{"sslserver", "sslclient"} {
			out, err := openssl(t, "verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", name.NodeID, "-CAfile", filepath.Join(dir, c.roots),
				"-untrusted", filepath.Join(dir, "cross.pem"), filepath.Join(dir, c.leaf))
			if (err == nil) != c.want {
				t.Errorf("%s, %s: %v\n%s", what, purpose, err, out)
			}
		}
	}
	out, err := openssl(t, "x509", "-in", filepath.Join(dir, "old.pem"), "-noout", "-subject", "-nameopt", "RFC2253",
		"-ext", "subjectAltName,keyUsage,extendedKeyUsage,basicConstraints")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"OU=swarm-manager", "CN=" + name.NodeID, "O=" + name.ClusterID, "CA:FALSE", "DNS:" + name.NodeID + ", DNS:swarm-manager",
		"URI:spiffe://" + name.ClusterID + "/node/" + name.NodeID, "Digital Signature\n", "TLS Web Client Authentication, TLS Web Server Authentication",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not say %q:\n%s", want, out)
		}
	}
}

// OpenSSL as a client gets TLS 1.3 with the hybrid key exchange, or nothing. Versions before 3.5 don't have that: they show the latter.
func TestOpenSSL_ConnectsWithTheNewestOnly(t *testing.T) {
	needOpenSSL(t)
	root := newRoot(t)
	name := newName(api.Role_ROLE_MANAGER)
	id := ca.NewIdentity(catest.Credentials(t, root, name, 0))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if served, _, err := id.ServerCredentials().ServerHandshake(conn); err == nil {
				conn = served
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	dir := pemFiles(t, map[string][]byte{"root.pem": root.CertificatePEM()})
	connect := func(args ...string) (string, error) {
		return openssl(t, append([]string{
			"s_client", "-connect", listener.Addr().String(), "-servername", ca.OUManager, "-alpn", "h2", "-verify_return_error",
			"-verify_hostname", ca.OUManager, "-CAfile", filepath.Join(dir, "root.pem"),
		}, args...)...)
	}
	for _, args := range [][]string{{"-tls1_2"}, {"-tls1_3", "-groups", "X25519"}, {"-tls1_3", "-groups", "P-256"}} {
		if out, err := connect(args...); err == nil {
			t.Errorf("%v: a handshake:\n%s", args, out)
		}
	}
	out, err := connect("-groups", "X25519MLKEM768")
	if err != nil && !strings.Contains(out, "handshake") {
		version, _ := openssl(t, "version")
		t.Skipf("needs OpenSSL 3.5 or newer for X25519MLKEM768, this is %s", strings.TrimSpace(version))
	}
	for _, want := range []string{"TLSv1.3", "X25519MLKEM768", "Verify return code: 0 (ok)", "CN=" + name.NodeID} {
		if !strings.Contains(strings.ReplaceAll(out, "CN = ", "CN="), want) {
			t.Errorf("openssl does not say %q: %v\n%s", want, err, out)
		}
	}
}

// cfssl's reader of certificates finds in a node's what the CA meant.
func TestCFSSL_ReadsANode(t *testing.T) {
	name := newName(api.Role_ROLE_WORKER)
	c := catest.Credentials(t, newRoot(t), name, 0)
	read, err := certinfo.ParseCertificatePEM(bytes.TrimSpace(ca.EncodeBundle(c.Chain())))
	if err != nil {
		t.Fatal(err)
	}
	if read.Subject.CommonName != name.NodeID || read.Subject.Organization != name.ClusterID || read.Subject.OrganizationalUnit != ca.OUWorker ||
		read.Issuer.CommonName != "skep-ca" || read.SignatureAlgorithm != "ECDSAWithSHA256" || len(read.SANs) < 2 {
		t.Errorf("read %+v", read)
	}
	if life := read.NotAfter.Sub(read.NotBefore); life != ca.DefaultLife+ca.Backdate {
		t.Errorf("lives for %v", life)
	}
}
