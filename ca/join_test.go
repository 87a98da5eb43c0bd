package ca_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/grpctest"
)

func (m *manager) join(t *testing.T, tok token.Token) (ca.Credentials, error) {
	t.Helper()
	return ca.Join(t.Context(), ca.JoinConfig{Address: "manager:2377", Token: tok, Hostname: "n1", Dial: m.listener.dial})
}

func (m *manager) tokens(t *testing.T) (worker, manager token.Token) {
	t.Helper()
	c, err := m.registry.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Worker, c.Manager
}

func TestJoin_TheTokenDecidesTheRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, catest.NewRegistry(t), nil)
		worker, manager := m.tokens(t)
		for tok, role := range map[*token.Token]api.Role{&worker: api.Role_ROLE_WORKER, &manager: api.Role_ROLE_MANAGER} {
			c, err := m.join(t, *tok)
			if err != nil {
				t.Fatal(err)
			}
			n, ok := m.registry.Node(c.Name().NodeID)
			if !ok || n.Role != role || c.Name().Role != role || n.Hostname != "n1" || c.Name().ClusterID != m.id.ClusterID() {
				t.Errorf("joined as %+v, recorded %+v, want %v", c.Name(), n, role)
			}
		}
	})
}

func TestJoin_TheSameKeyIsOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, catest.NewRegistry(t), nil)
		worker, _ := m.tokens(t)
		key, _ := catest.KeyAndCSR(t)
		cfg := ca.JoinConfig{Address: "m", Token: worker, Dial: m.listener.dial, Key: key}
		first, err := ca.Join(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ca.Join(t.Context(), cfg)
		if err != nil || again.Name() != first.Name() {
			t.Errorf("second try: %v, %v; want %v", again.Name(), err, first.Name())
		}
	})
}

func TestJoin_RefusesOtherTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, catest.NewRegistry(t), nil)
		worker, _ := m.tokens(t)
		root := newRoot(t)
		rotated := token.New(worker.Digest())
		for name, c := range map[string]struct {
			tok  token.Token
			want error
		}{
			"none":         {token.Token{}, token.ErrMissing},
			"other swarm":  {token.New(root.Digest()), token.ErrOtherRoot},
			"wrong secret": {rotated, token.ErrWrongSecret},
		} {
			if _, err := m.join(t, c.tok); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		m.registry.Configure(func(c *ca.Cluster) { c.Worker = rotated })
		if _, err := m.join(t, worker); !errors.Is(err, token.ErrWrongSecret) {
			t.Errorf("after rotation, old token: %v", err)
		}
		if _, err := m.join(t, rotated); err != nil {
			t.Errorf("after rotation, new token: %v", err)
		}
	})
}

func TestAuthority_RefusesMalformedRequests(t *testing.T) {
	r := catest.NewRegistry(t)
	c, err := r.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, csr := catest.KeyAndCSR(t)
	tok := c.Worker.Reveal()
	for name, tc := range map[string]struct {
		req  ca.JoinRequest
		want error
	}{
		"no token":         {ca.JoinRequest{CSR: csr}, token.ErrMissing},
		"malformed token":  {ca.JoinRequest{CSR: csr, Token: "foobaz"}, token.ErrMalformed},
		"token before CSR": {ca.JoinRequest{Token: "foobaz"}, token.ErrMalformed},
		"no CSR":           {ca.JoinRequest{Token: tok}, ca.ErrBadCSR},
		"long host name":   {ca.JoinRequest{CSR: csr, Token: tok, Hostname: strings.Repeat("a", 254)}, ca.ErrBadCSR},
		"escape sequence":  {ca.JoinRequest{CSR: csr, Token: tok, Hostname: "a\x1b[2J"}, ca.ErrBadCSR},
		"availability":     {ca.JoinRequest{CSR: csr, Token: tok, Availability: 99}, ca.ErrBadCSR},
	} {
		if _, err := ca.NewAuthority(r).Join(t.Context(), time.Now(), tc.req); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if _, err := ca.NewAuthority(r).Renew(t.Context(), time.Now(), catest.NewID(), csr); !errors.Is(err, ca.ErrNodeNotFound) {
		t.Errorf("renewal of an unknown node: %v", err)
	}
}

// liar is a machine in the middle: it has a CA of its own and shows what root it likes.
type liar struct {
	api.UnimplementedCAServer
	root []byte

	mu   sync.Mutex
	seen []string // guarded by mu: tokens
}

func (l *liar) GetRootCertificate(context.Context, *api.GetRootCertificateRequest) (*api.GetRootCertificateResponse, error) {
	return &api.GetRootCertificateResponse{Certificate: l.root}, nil
}

func (l *liar) IssueCertificate(_ context.Context, r *api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, r.GetToken())
	return &api.IssueCertificateResponse{}, nil
}

func (l *liar) tokens() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

// wire is the server's end of TLS, and records what comes through it in clear: what a machine in the middle can read.
type wire struct {
	credentials.TransportCredentials

	mu    sync.Mutex
	heard bytes.Buffer // guarded by mu
}

func (w *wire) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return tapped{conn, w}, info, nil
}

func (w *wire) Clone() credentials.TransportCredentials { return w }

// heardSecret reports whether the secret of a token came through, in any message, and whether anything did.
func (w *wire) heardSecret(tok token.Token) (secret, anything bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hash := tok.SecretHash()
	text := tok.Reveal()
	return bytes.Contains(w.heard.Bytes(), []byte(text[len(text)-25:])) || bytes.Contains(w.heard.Bytes(), hash[:]), w.heard.Len() > 0
}

// tapped is a connection that a wire hears.
type tapped struct {
	net.Conn
	wire *wire
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wire.heard.Write(p[:n])
	return n, err
}

func TestJoin_SendsNoSecretToAManInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		victim := catest.NewRegistry(t)
		c, err := victim.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		own := newRoot(t)
		name := newName(api.Role_ROLE_MANAGER)
		worker := catest.Credentials(t, c.Root, newName(api.Role_ROLE_WORKER), 0)
		for what, tc := range map[string]struct {
			root  []byte
			shows ca.Credentials
			want  error
			heard bool // the secret, by a manager of the swarm
		}{
			"with its own root":                  {own.CertificatePEM(), catest.Credentials(t, own, name, 0), token.ErrOtherRoot, false},
			"with both roots":                    {append(c.Root.CertificatePEM(), own.CertificatePEM()...), catest.Credentials(t, own, name, 0), token.ErrOtherRoot, false},
			"with the real root, own identity":   {c.Root.CertificatePEM(), catest.Credentials(t, own, name, 0), ca.ErrBadServer, false},
			"with the real root, as a worker":    {c.Root.CertificatePEM(), worker, ca.ErrBadServer, false},
			"with garbage":                       {[]byte("hello"), worker, ca.ErrBadServer, false},
			"with more than anybody should read": {make([]byte, 1<<20), worker, ca.ErrBadServer, false},
			"but in no middle, as a manager":     {c.Root.CertificatePEM(), catest.Credentials(t, c.Root, name, 0), ca.ErrBadServer, true},
		} {
			l := &liar{root: tc.root}
			listener := newMemListener()
			w := &wire{TransportCredentials: ca.NewIdentity(tc.shows).ServerCredentials()}
			s := grpc.NewServer(grpc.Creds(w))
			api.RegisterCAServer(s, l)
			stop := grpctest.Serve(t, s, listener)
			_, err := ca.Join(t.Context(), ca.JoinConfig{Address: "m", Token: c.Worker, Dial: listener.dial})
			if !errors.Is(err, tc.want) {
				t.Errorf("%s: %v, want %v", what, err, tc.want)
			}
			stop()
			if seen := l.tokens(); (len(seen) != 0) != tc.heard {
				t.Errorf("%s: the secret was sent: %v", what, !tc.heard)
			}
			if secret, anything := w.heardSecret(c.Worker); secret != tc.heard || !anything {
				t.Errorf("%s: the secret was on the wire: %v, anything: %v", what, secret, anything)
			}
			if err != nil && strings.Contains(err.Error(), c.Worker.Reveal()[60:]) {
				t.Errorf("%s: the error has the secret", what)
			}
		}
	})
}

func TestJoin_NobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tok := token.New(newRoot(t).Digest())
		refused := func(context.Context, string) (net.Conn, error) { return nil, errors.New("connection refused") }
		_, err := ca.Join(t.Context(), ca.JoinConfig{Address: "m", Token: tok, Dial: refused})
		if !errors.Is(err, ca.ErrUnreachable) {
			t.Errorf("refused: %v", err)
		}
		silent := func(context.Context, string) (net.Conn, error) {
			client, server := net.Pipe()
			go discard(server)
			return client, nil
		}
		start := time.Now()
		_, err = ca.Join(t.Context(), ca.JoinConfig{Address: "m", Token: tok, Dial: silent})
		if !errors.Is(err, ca.ErrUnreachable) {
			t.Errorf("silent: %v", err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("gave up after %v", took)
		}
	})
}

func discard(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// oracle is a real manager that answers joins with whatever the test says.
type oracle struct {
	api.UnimplementedCAServer
	root   []byte
	answer func(*api.IssueCertificateRequest) (*api.IssueCertificateResponse, error)
}

func (o *oracle) GetRootCertificate(context.Context, *api.GetRootCertificateRequest) (*api.GetRootCertificateResponse, error) {
	return &api.GetRootCertificateResponse{Certificate: o.root}, nil
}

func (o *oracle) IssueCertificate(_ context.Context, r *api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
	return o.answer(r)
}

func TestJoin_SaysWhatTheAnswerMeans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := catest.NewRegistry(t)
		c, err := r.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		name := ca.Name{ClusterID: c.ID, NodeID: catest.NewID(), Role: api.Role_ROLE_WORKER}
		issue := func(csr []byte, nodeID string) (*api.IssueCertificateResponse, error) {
			chain, err := c.Root.Issue(time.Now(), csr, ca.Profile{Name: name})
			return &api.IssueCertificateResponse{NodeId: nodeID, ClusterId: name.ClusterID, Certificate: chain}, err
		}
		_, otherCSR := catest.KeyAndCSR(t)
		refuse := func(code codes.Code) func(*api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
			return func(*api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
				return nil, status.Error(code, "the manager's words")
			}
		}
		type answer = func(*api.IssueCertificateRequest) (*api.IssueCertificateResponse, error)
		for what, tc := range map[string]struct {
			answer answer
			want   error
			text   string
		}{
			"denied":        {refuse(codes.PermissionDenied), token.ErrWrongSecret, "may have been rotated"},
			"too often":     {refuse(codes.ResourceExhausted), ca.ErrTooManyTries, "wait a minute"},
			"bad request":   {refuse(codes.InvalidArgument), nil, "the manager's words"},
			"no leader":     {refuse(codes.Unavailable), ca.ErrBusy, "the manager's words"},
			"broken":        {refuse(codes.Internal), ca.ErrBadServer, "the manager's words"},
			"unimplemented": {refuse(codes.Unimplemented), ca.ErrBadServer, "not a manager"},
			"no certificate": {func(*api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
				return &api.IssueCertificateResponse{NodeId: name.NodeID, ClusterId: name.ClusterID}, nil
			}, ca.ErrBadServer, "bundle"},
			"another key's certificate": {func(*api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
				return issue(otherCSR, name.NodeID)
			}, ca.ErrMismatch, "do not belong together"},
			"another node's name": {func(r *api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
				return issue(r.GetCsr(), catest.NewID())
			}, ca.ErrOtherNode, "another node"},
			"a certificate": {func(r *api.IssueCertificateRequest) (*api.IssueCertificateResponse, error) {
				return issue(r.GetCsr(), name.NodeID)
			}, nil, ""},
		} {
			listener := newMemListener()
			s := grpc.NewServer(grpc.Creds(ca.NewIdentity(catest.Member(t, r, api.Role_ROLE_MANAGER)).ServerCredentials()))
			api.RegisterCAServer(s, &oracle{root: c.Root.CertificatePEM(), answer: tc.answer})
			stop := grpctest.Serve(t, s, listener)
			_, err := ca.Join(t.Context(), ca.JoinConfig{Address: "m", Token: c.Worker, Dial: listener.dial})
			if tc.want != nil && !errors.Is(err, tc.want) || (err == nil) != (tc.text == "") || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%s: %v, want %v with %q", what, err, tc.want, tc.text)
			}
			stop()
		}
	})
}
