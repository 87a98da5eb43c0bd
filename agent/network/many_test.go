package network

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/skep-io/skep/api"
)

func TestNetwork_ManyComeAndGoAtOnce(t *testing.T) {
	node := newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	var mu sync.Mutex
	users := map[netip.Addr]string{} // guarded by mu
	// Each comes and goes several times, and none of them waits for another.
	life := func(id string, pid int, published uint32) error {
		for range 4 {
			address, err := n.Reserve(id, []*api.PortConfig{{TargetPort: 80, PublishedPort: published}})
			if err != nil {
				return err
			}
			mu.Lock()
			other := users[address]
			users[address] = id
			mu.Unlock()
			if other != "" {
				return fmt.Errorf("I12: %s and %s have %s", id, other, address)
			}
			if err := n.Enforce(); err != nil {
				return err
			}
			if err := n.Attach(id, pid, nil); err != nil {
				return err
			}
			mu.Lock()
			delete(users, address)
			mu.Unlock()
			if err := n.Detach(id); err != nil {
				return err
			}
		}
		return nil
	}
	var all errgroup.Group
	for i := range 8 {
		_, pid := newContainer(t)
		all.Go(func() error {
			return node.inside(func() error { return life(fmt.Sprint("c", i), pid, uint32(8080+i)) })
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, n); len(left) > 0 {
		t.Errorf("I15: left: %q", left)
	}
	for i := range 8 {
		if !takes(t, "tcp", fmt.Sprintf(":%d", 8080+i)) {
			t.Errorf("I15: port %d is still held", 8080+i)
		}
	}
}

// How a container ended is told with its address: that must not wait until the kernel is done with the rules of others.
func TestNetwork_WhoOnlyAsksWaitsForNobodysRules(t *testing.T) {
	newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	_, pid := newContainer(t)
	attach(t, n, "a", pid)
	n.enforcing.Lock() // as by others that come and go
	if _, ok := n.Address("a"); !ok {
		t.Error("an attached container has no address")
	}
	if _, err := n.Reserve("b", nil); err != nil {
		t.Error(err)
	}
	n.enforcing.Unlock()
	if err := n.Detach("b"); err != nil {
		t.Error(err)
	}
}

func TestNetwork_EnforcesWhatIsReserved(t *testing.T) {
	newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	before := rulesInForce(t)
	if _, err := n.Reserve("a", []*api.PortConfig{{TargetPort: 80, PublishedPort: 8080}}); err != nil {
		t.Fatal(err)
	}
	if err := n.Enforce(); err != nil {
		t.Fatal(err)
	}
	if got := rulesInForce(t); got <= before {
		t.Errorf("N2: %d rules with a container that is about to come, %d without", got, before)
	}
	if err := n.Detach("a"); err != nil {
		t.Fatal(err)
	}
	if got := rulesInForce(t); got != before {
		t.Errorf("N1: %d rules when it has gone, %d before", got, before)
	}
}

// rulesInForce counts the rules of the node.
func rulesInForce(t *testing.T) (count int) {
	t.Helper()
	c, err := nftConn()
	if err != nil {
		t.Fatal(err)
	}
	chains, err := c.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range chains {
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			t.Fatal(err)
		}
		count += len(rules)
	}
	return count
}
