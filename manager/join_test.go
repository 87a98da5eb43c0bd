package manager_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/store"
)

// createGrant asks a manager for a join grant.
func (m *member) createGrant(spec *api.JoinGrantSpec) token.Token {
	t := m.swarm.t
	t.Helper()
	conn := m.dial(ca.OUManager, m.address)
	defer conn.Close()
	answer, err := api.NewControlClient(conn).CreateJoinGrant(t.Context(), &api.CreateJoinGrantRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Parse(answer.GetToken())
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// dialStranger connects to whoever listens at an address.
func (s *swarm) dialStranger(ctx context.Context, address string) (net.Conn, error) {
	s.mu.Lock()
	listener := s.listeners[address]
	s.mu.Unlock()
	if listener == nil {
		return nil, errors.New("nobody listens there")
	}
	return listener.DialContext(ctx)
}

// joinThrough joins through one manager after the other, as long as they are only busy or gone.
func (s *swarm) joinThrough(cfg ca.JoinConfig, addresses ...string) (ca.Credentials, error) {
	cfg.Dial = s.dialStranger
	for i := 0; ; i++ {
		cfg.Address = addresses[i%len(addresses)]
		c, err := ca.Join(s.t.Context(), cfg)
		if i > 100 || !errors.Is(err, ca.ErrBusy) && !errors.Is(err, ca.ErrUnreachable) {
			return c, err
		}
		<-time.After(100 * time.Millisecond)
	}
}

func TestCluster_OfThoseWhoRaceForAGrantOneWins(t *testing.T) {
	for name, disturb := range map[string]func(*testing.T, []*member) []*member{
		"in a calm swarm": func(_ *testing.T, members []*member) []*member { return members },
		"while the leader goes": func(t *testing.T, members []*member) []*member {
			if err := members[0].stop(); err != nil {
				t.Error(err)
			}
			return members[1:]
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				members := three(t)
				s := members[0].swarm
				tok := members[1].createGrant(&api.JoinGrantSpec{Role: api.Role_ROLE_WORKER})
				addresses := []string{"m1:2377", "m2:2377", "m3:2377"}
				const racers = 12
				configs, names, errs := make([]ca.JoinConfig, racers), make([]ca.Name, racers), make([]error, racers)
				var wg sync.WaitGroup
				for i := range racers {
					configs[i] = ca.JoinConfig{Token: tok, Key: newNodeKey(t)}
					wg.Go(func() {
						c, err := s.joinThrough(configs[i], addresses[i%3:]...)
						for errors.Is(err, ca.ErrUnreachable) { // its managers are gone for good
							c, err = s.joinThrough(configs[i], addresses[1:]...)
						}
						names[i], errs[i] = c.Name(), err
					})
				}
				left := disturb(t, members)
				wg.Wait()
				winner := theWinner(t, errs)
				for i := range racers { // replays change nothing
					c, err := s.joinThrough(configs[i], addresses[1:]...)
					if i == winner && (err != nil || c.Name() != names[i]) {
						t.Errorf("the winner again: %v, %v", c.Name(), err)
					}
					if i != winner && !errors.Is(err, ca.ErrRefused) {
						t.Errorf("a replay: %v", err)
					}
				}
				if n := workers(t, s.leader(left...).store); n != 1 {
					t.Errorf("%d nodes came by a grant for one", n)
				}
			})
		})
	}
}

func theWinner(t *testing.T, errs []error) int {
	t.Helper()
	winner, wins := 0, 0
	for i, err := range errs {
		switch {
		case err == nil:
			winner, wins = i, wins+1
		case !errors.Is(err, ca.ErrRefused):
			t.Errorf("a loser was told: %v", err)
		}
	}
	if wins != 1 {
		t.Fatalf("%d of %d won: %v", wins, len(errs), errs)
	}
	return winner
}

func workers(t *testing.T, s *store.Store) (n int) {
	t.Helper()
	err := s.View(func(tx store.ReadTx) error {
		nodes, err := store.All[*api.Node](tx)
		for node := range nodes {
			if node.GetRole() == api.Role_ROLE_WORKER {
				n++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newNodeKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
