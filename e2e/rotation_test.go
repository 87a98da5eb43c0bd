package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/e2e/lab"
)

// newroot writes a root certificate and its key into two files, as an organization has them: it is older than the swarm.
func newroot(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "newroot CERT KEY")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: args[0]},
		NotBefore: time.Now().AddDate(0, -1, 0), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	ts.Check(err)
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: cert}, {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		ts.Check(os.WriteFile(ts.MkAbs(args[i]), pem.EncodeToMemory(block), 0o600))
	}
}

// expire replaces a node's certificate by one that lived for ten hours and ended some time ago; its daemon must not run.
func expire(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 4, "expire NAME AGE CERT KEY")
	age, err := time.ParseDuration(args[1])
	ts.Check(err)
	root, err := ca.ParseRoot([]byte(ts.ReadFile(args[2])), []byte(ts.ReadFile(args[3])))
	ts.Check(err)
	dir := keyfile.Open(find(ts, args[0]).DataDir(), nil)
	current, err := dir.Load()
	ts.Check(err)
	csr, err := ca.NewCSR(current.RevealKey())
	ts.Check(err)
	const life = 10 * time.Hour
	chainPEM, err := root.Issue(time.Now().Add(-life-age), csr, ca.Profile{Name: current.Name(), Life: life})
	ts.Check(err)
	chain, err := ca.ParseBundle(chainPEM)
	ts.Check(err)
	expired, err := ca.NewCredentials([]*x509.Certificate{root.Certificate()}, chain, current.RevealKey())
	ts.Check(err)
	ts.Check(dir.Save(expired))
}

// signed waits until the certificate on a node's disk is by a root, and the node trusts that alone.
func signed(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "signed NAME CERT")
	roots, err := ca.ParseRoots([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	ctx, cancel := deadline()
	defer cancel()
	for {
		trusted, trustedErr := certificatesIn(find(ts, args[0]), "swarm-root-ca.crt")
		chain, chainErr := certificatesIn(find(ts, args[0]), "swarm-node.crt")
		err := errors.Join(trustedErr, chainErr)
		if err == nil && len(trusted) == 1 && trusted[0].Equal(roots[0]) && chain[0].CheckSignatureFrom(roots[0]) == nil {
			return
		}
		if ctx.Err() != nil {
			ts.Fatalf("%s does not trust that root alone, or has no certificate by it: %v", args[0], err)
		}
		pause(ctx)
	}
}

// certificatesIn reads what a daemon that runs may be about to replace.
func certificatesIn(m *lab.Machine, name string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(filepath.Join(m.DataDir(), "certificates", name))
	if err != nil {
		return nil, err
	}
	return ca.ParseBundle(text)
}

// trafficKey finds a script's traffic.
type trafficKey struct{}

// traffic is one request after the other to a service. What it counts is its goroutine's until that has ended.
type traffic struct {
	end      context.CancelFunc // or nil
	ended    sync.WaitGroup
	answered int
	failed   error // the first
}

// trafficVerb begins requests in the background, or ends them and checks that every one was answered.
func trafficVerb(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 1 && args[0] == "stop" || len(args) == 3 && args[0] == "start", "traffic start NAME URL, or traffic stop")
	run := ts.Value(trafficKey{}).(*traffic)
	if args[0] == "start" {
		ctx, cancel := context.WithCancel(context.Background())
		run.end = cancel
		from := find(ts, args[1])
		run.ended.Go(func() { run.ask(ctx, from, args[2]) })
		return
	}
	run.stop()
	if run.failed != nil || run.answered == 0 {
		ts.Fatalf("%d requests were answered, then: %v", run.answered, run.failed)
	}
	fmt.Fprintf(ts.Stdout(), "%d requests were answered\n", run.answered)
}

// stop ends the traffic, if there is any.
func (r *traffic) stop() {
	if r.end != nil {
		r.end()
		r.ended.Wait()
	}
}

func (r *traffic) ask(ctx context.Context, from *lab.Machine, url string) {
	client := http.Client{Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			r.failed = err
			return
		}
		response, err := client.Do(request)
		if err == nil {
			_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxPage))
			_ = response.Body.Close()
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			r.failed = err
			return
		default:
			r.answered++
		}
		pause(ctx)
	}
}
