package ca_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
)

func TestRenewAt(t *testing.T) {
	issued := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	const last = 0.999999999
	for _, c := range []struct {
		life   time.Duration
		random float64
		want   time.Duration
	}{
		{time.Hour, 0, 30 * time.Minute},
		{time.Hour, last, 48 * time.Minute},
		{90 * 24 * time.Hour, 0, 45 * 24 * time.Hour},
		{90 * 24 * time.Hour, 0.5, 90 * 24 * time.Hour * 65 / 100},
		{90 * 24 * time.Hour, last, 72 * 24 * time.Hour},
	} {
		got := ca.RenewAt(issued.Add(-ca.Backdate), issued.Add(c.life), c.random).Sub(issued)
		if (got - c.want).Abs() > time.Second {
			t.Errorf("life %v, random %v: renewed after %v, want %v", c.life, c.random, got, c.want)
		}
	}
	// A certificate of another CA, shorter than the backdating: its own middle.
	got := ca.RenewAt(issued, issued.Add(30*time.Minute), 0).Sub(issued)
	if got != 15*time.Minute {
		t.Errorf("half an hour: renewed after %v", got)
	}
}

func TestBackoff(t *testing.T) {
	want := []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600}
	for i, w := range want {
		if got := ca.Backoff(i+1, 0); got != w*time.Second {
			t.Errorf("after %d failures: %v, want %v", i+1, got, w*time.Second)
		}
	}
	if got := ca.Backoff(1<<40, 0.5); got != 45*time.Minute {
		t.Errorf("after very many failures, jittered: %v", got)
	}
}

// node is a worker with a connection to a manager and a Renewer.
type node struct {
	id      *ca.Identity
	conn    *grpc.ClientConn
	renewer *ca.Renewer
	full    atomic.Bool // whether Save fails

	mu    sync.Mutex
	saved []ca.Credentials // guarded by mu
	tries []time.Time      // guarded by mu
}

func newNode(t *testing.T, m *manager, role api.Role) *node {
	t.Helper()
	n := &node{id: ca.NewIdentity(catest.Member(t, m.registry, role))}
	n.conn = m.client(t, n.id.ClientCredentials(ca.OUManager))
	n.renewer = ca.NewRenewer(ca.RenewerConfig{
		Identity: n.id,
		Renew: func(ctx context.Context) (ca.Credentials, error) {
			n.mu.Lock()
			n.tries = append(n.tries, time.Now())
			n.mu.Unlock()
			return ca.RenewOver(ctx, n.conn, n.id)
		},
		Save: func(c ca.Credentials) error {
			if n.full.Load() {
				return errors.New("disk full")
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			n.saved = append(n.saved, c)
			return nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	return n
}

func (n *node) history() (saved []ca.Credentials, tries []time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.saved), slices.Clone(n.tries)
}

func (n *node) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.renewer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// shortLived returns a registry whose certificates live for an hour.
func shortLived(t *testing.T) *catest.Registry {
	t.Helper()
	r := catest.NewRegistry(t)
	r.Configure(func(c *ca.Cluster) { c.Life = time.Hour })
	return r
}

func TestRenewer_KeepsANodeCurrentAndItsConnectionUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shortLived(t)
		m := newManager(t, r, ca.NewIdentity(longLived(t, r, api.Role_ROLE_MANAGER)))
		n := newNode(t, m, api.Role_ROLE_WORKER)
		n.run(t)
		key := n.id.Current().RevealKey()
		changed := n.id.Watch()
		start := time.Now()
		<-changed
		synctest.Wait()
		if took := time.Since(start); took < 30*time.Minute || took > 48*time.Minute {
			t.Errorf("renewed after %v", took)
		}
		if saved, _ := n.history(); len(saved) != 1 || !saved[0].RevealKey().Equal(n.id.Current().RevealKey()) {
			t.Error("not saved as used")
		}
		if n.id.Current().RevealKey().Equal(key) {
			t.Error("the key was not renewed")
		}
		for range 8 { // two days, in which no certificate lasts for more than an hour
			<-time.After(6 * time.Hour)
			if _, err := ca.RenewOver(t.Context(), n.conn, n.id); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
		}
		saved, _ := n.history()
		if conns := m.listener.dialled(); conns > len(saved)+1 {
			t.Errorf("%d connections for %d renewals", conns, len(saved))
		}
	})
}

func TestConnection_EndsWithTheCertificateThatOpenedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shortLived(t)
		m := newManager(t, r, ca.NewIdentity(longLived(t, r, api.Role_ROLE_MANAGER)))
		n := newNode(t, m, api.Role_ROLE_WORKER)
		root := func() error {
			_, err := api.NewCAClient(n.conn).GetRootCertificate(t.Context(), &api.GetRootCertificateRequest{})
			return err
		}
		if err := root(); err != nil {
			t.Fatal(err)
		}
		fresh, err := ca.RenewOver(t.Context(), n.conn, n.id)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(59 * time.Minute)
		if err := root(); err != nil || m.listener.dialled() != 1 {
			t.Fatalf("%d connections, %v", m.listener.dialled(), err)
		}
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if err := root(); status.Code(err) != codes.Unavailable {
			t.Errorf("with an expired certificate: %v", err)
		}
		if err := n.id.Replace(fresh); err != nil {
			t.Fatal(err)
		}
		<-time.After(5 * time.Minute) // for gRPC's own back-off
		if err := root(); status.Code(err) != codes.Unavailable {
			t.Errorf("with one that expired meanwhile: %v", err)
		}
		renewed, err := m.authority.Renew(t.Context(), time.Now(), n.id.NodeID(), requestFor(t, fresh))
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := n.id.Replace(catest.Assemble(t, c.Root, renewed.Chain, fresh.RevealKey())); err != nil {
			t.Fatal(err)
		}
		<-time.After(5 * time.Minute)
		if err := root(); err != nil {
			t.Errorf("renewed: %v", err)
		}
	})
}

func TestRenewer_TakesTheRoleThatTheRegistrySays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := catest.NewRegistry(t)
		m := newManager(t, r, nil)
		n := newNode(t, m, api.Role_ROLE_WORKER)
		n.run(t)
		for _, role := range []api.Role{api.Role_ROLE_MANAGER, api.Role_ROLE_WORKER} {
			r.SetRole(n.id.NodeID(), role)
			changed, start := n.id.Watch(), time.Now()
			n.renewer.RenewNow()
			n.renewer.RenewNow()
			<-changed
			synctest.Wait()
			if n.id.Role() != role || time.Since(start) > time.Second {
				t.Errorf("role %v after %v, want %v", n.id.Role(), time.Since(start), role)
			}
		}
	})
}

func TestRenewer_BacksOffAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shortLived(t)
		m := newManager(t, r, ca.NewIdentity(longLived(t, r, api.Role_ROLE_MANAGER)))
		n := newNode(t, m, api.Role_ROLE_WORKER)
		n.full.Store(true)
		n.run(t)
		before := n.id.Current().Chain()[0]
		<-time.After(50 * time.Minute)
		synctest.Wait()
		if _, tries := n.history(); len(tries) < 2 || !n.id.Current().Chain()[0].Equal(before) {
			t.Fatalf("%d tries, and what could not be saved is in use: %v", len(tries), !n.id.Current().Chain()[0].Equal(before))
		}
		for range 50 { // wishes must not undo the back-off
			n.renewer.RenewNow()
			synctest.Wait()
		}
		_, tries := n.history()
		for i, wait := range differences(tries) {
			left := n.id.Expiry().Sub(tries[i])
			if full := ca.Backoff(i+1, 0); wait < min(full/2, left/4) || wait > full {
				t.Errorf("wait %d took %v of at most %v", i+1, wait, full)
			}
		}
		n.full.Store(false)
		select {
		case <-n.id.Watch():
		case <-time.After(10 * time.Minute):
			t.Fatal("did not recover before the certificate expired")
		}
		synctest.Wait()
		if saved, _ := n.history(); len(saved) != 1 || n.id.Current().Chain()[0].Equal(before) {
			t.Error("did not recover")
		}
	})
}

func TestRenewer_ARemovedNodeGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := catest.NewRegistry(t)
		m := newManager(t, r, nil)
		n := newNode(t, m, api.Role_ROLE_WORKER)
		r.SetRole(n.id.NodeID(), api.Role_ROLE_UNSPECIFIED)
		if _, err := ca.RenewOver(t.Context(), n.conn, n.id); status.Code(err) != codes.PermissionDenied {
			t.Errorf("renewal: %v", err)
		}
	})
}

func longLived(t *testing.T, r *catest.Registry, role api.Role) ca.Credentials {
	t.Helper()
	c, err := r.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return catest.Credentials(t, c.Root, ca.Name{ClusterID: c.ID, NodeID: catest.NewID(), Role: role}, 0)
}

func requestFor(t *testing.T, c ca.Credentials) []byte {
	t.Helper()
	csr, err := ca.NewCSR(c.RevealKey())
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func differences(times []time.Time) (d []time.Duration) {
	for i := 1; i < len(times); i++ {
		d = append(d, times[i].Sub(times[i-1]))
	}
	return d
}
