package caserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func TestRegistry_KeepsTheContract(t *testing.T) {
	catest.RunRegistry(t, func(t *testing.T) catest.Subject {
		s, f := found(t)
		return catest.Subject{
			Registry: newRegistry(s), Remove: func(id string) { remove(t, s, id) },
			Grant: func(spec *api.JoinGrantSpec) token.Token { return grant(t, s, f, spec) },
		}
	})
}

// found makes a store with a new swarm in it.
func found(t *testing.T) (*store.Store, Founding) {
	t.Helper()
	f, err := Found(time.Now(), FoundConfig{Spec: &api.ClusterSpec{}, Hostname: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.New(t)
	storetest.Create(t, s, f.Cluster, f.Node)
	return s, f
}

// grant makes a join grant for an hour.
func grant(t *testing.T, s *store.Store, f Founding, spec *api.JoinGrantSpec) token.Token {
	t.Helper()
	standing, err := token.Parse(f.Cluster.GetJoinTokens().GetWorker())
	if err != nil {
		t.Fatal(err)
	}
	tok, g := catest.NewGrant(standing.Digest(), spec)
	storetest.Create(t, s, g)
	return tok
}

func remove(t *testing.T, s *store.Store, id string) {
	t.Helper()
	if err := s.Update(t.Context(), "", func(tx store.Tx) error { return tx.Delete(object.KindNode, id) }); err != nil {
		t.Fatal(err)
	}
}

func setRole(t *testing.T, s *store.Store, id string, role api.Role) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		n, err := store.Get[*api.Node](tx, id)
		if err != nil {
			return err
		}
		n = proto.CloneOf(n)
		n.Role = role
		return tx.Update(n)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// swarm is a manager that serves its CA as the daemon does: TLS, authorization, store.
type swarm struct {
	store    *store.Store
	founding Founding
	listener *grpctest.Listener
	log      *syncBuffer
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	st, f := found(t)
	s := &swarm{store: st, founding: f, listener: grpctest.Listen(), log: &syncBuffer{}}
	server, err := New(Config{Store: st, Logger: slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	a := authz.New(authz.Config{ClusterID: func() string { return f.Cluster.GetId() }, Nodes: authz.NewNodes(st)})
	opts := append(a.ServerOptions(), grpc.Creds(ca.NewIdentity(f.Credentials).ServerCredentials()), grpc.ChainUnaryInterceptor(edge))
	g := grpc.NewServer(opts...)
	api.RegisterCAServer(g, server)
	grpctest.Serve(t, g, s.listener)
	return s
}

// edge turns faults into statuses, as the daemon's outermost interceptor does.
func edge(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, fault.Status(err)
}

func (s *swarm) dial(ctx context.Context, _ string) (net.Conn, error) {
	return s.listener.DialContext(ctx)
}

func (s *swarm) join(t *testing.T, tok string) (ca.Credentials, error) {
	t.Helper()
	parsed, err := token.Parse(tok)
	if err != nil {
		t.Fatal(err)
	}
	return ca.Join(t.Context(), ca.JoinConfig{
		Address: "m", Token: parsed, Dial: s.dial, Hostname: "n1", Availability: api.Availability_AVAILABILITY_DRAIN,
	})
}

func (s *swarm) renew(t *testing.T, id *ca.Identity) (ca.Credentials, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///m", grpc.WithContextDialer(s.dial),
		grpc.WithTransportCredentials(id.ClientCredentials(ca.OUManager)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing was left to send
	return ca.RenewOver(t.Context(), conn, id)
}

func TestJoin_MakesANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		tokens := s.founding.Cluster.GetJoinTokens()
		for role, tok := range map[api.Role]string{
			api.Role_ROLE_WORKER: tokens.GetWorker(), api.Role_ROLE_MANAGER: tokens.GetManager(),
		} {
			c, err := s.join(t, tok)
			if err != nil {
				t.Fatal(err)
			}
			n := storetest.Get[*api.Node](t, s.store, c.Name().NodeID)
			if c.Name().Role != role || n.GetRole() != role || n.GetSpec().GetDesiredRole() != role {
				t.Errorf("joined as %v, store says %v", c.Name(), n)
			}
			if n.GetDescription().GetHostname() != "n1" || n.GetSpec().GetAvailability() != api.Availability_AVAILABILITY_DRAIN ||
				n.GetStatus().GetState() != api.NodeState_NODE_STATE_UNKNOWN {
				t.Errorf("store says %v", n)
			}
		}
		for _, secret := range []string{tokens.GetWorker()[61:], tokens.GetManager()[61:]} {
			if strings.Contains(s.log.String(), secret) {
				t.Error("a token was logged")
			}
		}
	})
}

func TestJoin_UsesTheLifeInTheSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := Found(time.Now(), FoundConfig{Spec: &api.ClusterSpec{}})
		if err != nil || time.Until(f.Credentials.Chain()[0].NotAfter) != ca.DefaultLife {
			t.Errorf("default: %v", err)
		}
		if _, err := Found(time.Now(), FoundConfig{Spec: shortLife(59 * time.Minute)}); !errors.Is(err, ca.ErrShortLife) {
			t.Errorf("59 minutes: %v", err)
		}
		f, err = Found(time.Now(), FoundConfig{Spec: shortLife(time.Hour)})
		if err != nil || time.Until(f.Credentials.Chain()[0].NotAfter) != time.Hour {
			t.Errorf("an hour: %v", err)
		}
	})
}

func TestRenew_TheStoreDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		c, err := s.join(t, s.founding.Cluster.GetJoinTokens().GetWorker())
		if err != nil {
			t.Fatal(err)
		}
		id, nodeID := ca.NewIdentity(c), c.Name().NodeID
		for _, role := range []api.Role{api.Role_ROLE_WORKER, api.Role_ROLE_MANAGER, api.Role_ROLE_WORKER} {
			<-time.After(time.Minute)
			setRole(t, s.store, nodeID, role)
			fresh, err := s.renew(t, id)
			if err != nil || fresh.Name().Role != role {
				t.Fatalf("role %v, %v; want %v", fresh.Name().Role, err, role)
			}
			if err := id.Replace(fresh); err != nil {
				t.Fatal(err)
			}
		}
		remove(t, s.store, nodeID)
		if _, err := s.renew(t, id); status.Code(err) != codes.PermissionDenied {
			t.Errorf("removed node: %v", err)
		}
	})
}

func TestRenew_OnlyForOneself(t *testing.T) {
	s, f := found(t)
	server, err := New(Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_, csr := catest.KeyAndCSR(t)
	first, second := f.Node.GetId(), catest.NewID()
	storetest.Create(t, s, &api.Node{Id: second, Role: api.Role_ROLE_WORKER})
	for name, c := range map[string]struct {
		caller authz.Caller
		asked  string
		want   fault.Kind
	}{
		"another's":        {authz.Caller{Kind: api.Caller_CALLER_MANAGER, NodeID: first}, second, fault.PermissionDenied},
		"nobody's":         {authz.Caller{}, "", fault.PermissionDenied},
		"one that is gone": {authz.Caller{NodeID: strings.Repeat("a", 25)}, strings.Repeat("a", 25), fault.PermissionDenied},
	} {
		ctx := authz.NewContext(t.Context(), c.caller)
		_, err := server.RenewCertificate(ctx, &api.RenewCertificateRequest{Csr: csr, NodeId: c.asked})
		if err == nil || fault.KindOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx := authz.NewContext(t.Context(), authz.Caller{NodeID: first})
	_, err = server.RenewCertificate(ctx, &api.RenewCertificateRequest{Csr: []byte("x"), NodeId: first})
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("bad request: %v", err)
	}
	behind, cancel := context.WithCancel(ctx)
	cancel() // the barrier of a store without peers fails only so
	if resp, err := server.RenewCertificate(behind, &api.RenewCertificateRequest{Csr: csr, NodeId: first}); err == nil {
		t.Errorf("issued without knowing whether it leads: %v", resp)
	}
}

func TestJoin_RotatedAndWrongTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		old := s.founding.Cluster.GetJoinTokens().GetWorker()
		parsed, err := token.Parse(old)
		if err != nil {
			t.Fatal(err)
		}
		fresh := token.New(parsed.Digest()).Reveal()
		if _, err := s.join(t, fresh); !errors.Is(err, token.ErrWrongSecret) {
			t.Errorf("before rotation, new token: %v", err)
		}
		err = s.store.Update(t.Context(), "", func(tx store.Tx) error {
			c, err := store.Get[*api.Cluster](tx, s.founding.Cluster.GetId())
			if err != nil {
				return err
			}
			c = proto.CloneOf(c)
			c.JoinTokens.Worker = fresh
			return tx.Update(c)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.join(t, old); !errors.Is(err, token.ErrWrongSecret) {
			t.Errorf("old token: %v", err)
		}
		if _, err := s.join(t, fresh); err != nil {
			t.Errorf("new token: %v", err)
		}
		if _, err := s.join(t, s.founding.Cluster.GetJoinTokens().GetManager()); err != nil {
			t.Errorf("manager's token, not rotated: %v", err)
		}
	})
}

func TestJoin_GuessingIsSlowAndKeepsNobodyElseOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, f := found(t)
		log := &syncBuffer{}
		server, err := New(Config{Store: st, Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		good := f.Cluster.GetJoinTokens().GetWorker()
		parsed, err := token.Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		_, guess := catest.KeyAndCSR(t)
		issue := func(address, tok string) error {
			csr := guess
			if tok == good {
				_, csr = catest.KeyAndCSR(t)
			}
			ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_ANYONE, Address: address})
			_, err := server.IssueCertificate(ctx, &api.IssueCertificateRequest{Csr: csr, Token: tok})
			return err
		}
		kinds := map[fault.Kind]int{}
		for range 10000 {
			kinds[fault.KindOf(issue("192.0.2.66:1000", token.New(parsed.Digest()).Reveal()))]++
		}
		if kinds[fault.PermissionDenied] != maxFailures || kinds[fault.Exhausted] != 10000-maxFailures {
			t.Errorf("answers %v", kinds)
		}
		for _, address := range []string{"192.0.2.67:1000", "[2001:db8::1]:1", "@"} {
			if err := issue(address, good); err != nil {
				t.Errorf("from %s: %v", address, err)
			}
		}
		if err := issue("192.0.2.66:2000", good); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("good token from the guesser's address: %v", err)
		}
		<-time.After(failureRefill)
		for range 50 { // who has a good token is not slowed down
			if err := issue("192.0.2.66:2000", good); err != nil {
				t.Fatalf("later: %v", err)
			}
		}
		if strings.Contains(log.String(), good[61:]) {
			t.Error("the token was logged")
		}
	})
}

func TestGetRootCertificate(t *testing.T) {
	s, f := found(t)
	server, err := New(Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := server.GetRootCertificate(t.Context(), nil)
	if err != nil || !bytes.Equal(got.GetCertificate(), f.Cluster.GetRootCa().GetCertificate()) {
		t.Errorf("%v, %v", got, err)
	}
	server, err = New(Config{Store: storetest.New(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.GetRootCertificate(t.Context(), nil); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("empty store: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a server of nothing")
	}
}

func TestRegistry_OfADamagedStore(t *testing.T) {
	for what, spoil := range map[string]func(*api.Cluster){
		"no key":         func(c *api.Cluster) { c.RootCa.Key = nil },
		"no certificate": func(c *api.Cluster) { c.RootCa = nil },
		"no tokens":      func(c *api.Cluster) { c.JoinTokens = nil },
		"a bad token":    func(c *api.Cluster) { c.JoinTokens.Manager = "SKPTKN-1-canary" },
	} {
		f, err := Found(time.Now(), FoundConfig{Spec: &api.ClusterSpec{}})
		if err != nil {
			t.Fatal(err)
		}
		spoil(f.Cluster)
		s := storetest.New(t)
		storetest.Create(t, s, f.Cluster)
		_, err = newRegistry(s).Cluster(t.Context())
		if err == nil || fault.KindOf(kinded(err)) == fault.Unavailable || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKinded(t *testing.T) {
	for _, c := range []struct {
		err  error
		want fault.Kind
	}{
		{&store.NotLeaderError{LeaderAddr: "m2:2377"}, fault.NotLeader},
		{token.ErrMalformed, fault.PermissionDenied},
		{ca.ErrNodeNotFound, fault.PermissionDenied},
		{ca.ErrBadCSR, fault.Invalid},
		{ca.ErrTooManyTries, fault.Exhausted},
		{ca.ErrRootExpired, fault.Precondition},
		{store.ErrStopped, fault.Unavailable},
		{store.ErrBusy, fault.Unavailable},
		{errors.New("disk on fire"), fault.Internal},
	} {
		if got := fault.KindOf(kinded(fmt.Errorf("wrapped: %w", c.err))); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestSourceOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:80":              "192.0.2.1",
		"[::ffff:192.0.2.1]:80":     "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:90":  "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":         "fe80::/64",
		"@":                         "@",
		"":                          "",
		"host:80":                   "host",
	} {
		if got := SourceOf(in); got != want {
			t.Errorf("SourceOf(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLimiter_RemembersABoundedNumberOfSources(t *testing.T) {
	l, err := newLimiter()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxSources {
		if _, err := l.begin(t.Context(), string(rune(i))); err != nil {
			t.Fatal(err)
		}
	}
	if l.buckets.Len() != maxSources {
		t.Errorf("remembers %d", l.buckets.Len())
	}
}

func TestLimiter_OfTriesAtTheSameTime(t *testing.T) {
	for _, guessing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l, err := newLimiter()
			if err != nil {
				t.Fatal(err)
			}
			const tries = 100
			refused := make([]error, tries)
			var wg sync.WaitGroup
			for i := range tries {
				wg.Go(func() {
					end, err := l.begin(t.Context(), "router")
					if refused[i] = err; err == nil {
						<-time.After(time.Millisecond)
						end(guessing)
					}
				})
			}
			wg.Wait()
			n := 0
			for _, err := range refused {
				if errors.Is(err, ca.ErrTooManyTries) {
					n++
				}
			}
			if want := map[bool]int{false: 0, true: tries - maxFailures}[guessing]; n != want {
				t.Errorf("guessing %v: %d refused, want %d", guessing, n, want)
			}
			ctx, cancel := context.WithCancel(t.Context())
			for range maxFailures {
				if _, err := l.begin(ctx, "busy"); err != nil {
					t.Fatal(err)
				}
			}
			cancel()
			if _, err := l.begin(ctx, "busy"); !errors.Is(err, context.Canceled) {
				t.Errorf("waited for ever, or did not: %v", err)
			}
		})
	}
}

func shortLife(d time.Duration) *api.ClusterSpec {
	return &api.ClusterSpec{CertExpiry: durationpb.New(d)}
}

// syncBuffer is a buffer that several goroutines log to.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
