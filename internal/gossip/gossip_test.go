package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/skep-io/skep/internal/gossip"
)

// member is a node on an address of the loopback interface.
type member struct {
	*gossip.Gossip
	t       *testing.T
	id      string
	address netip.Addr
	up      sync.Map // the ids of nodes that count as alive
	gone    chan string
	stop    func()
}

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// freePort returns a port that is free on the loopback interface's addresses.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// join makes a member that takes part from when it is told keys.
func join(t *testing.T, port int, id, address string, probe func(real func(context.Context, string) error) func(context.Context, string) error) *member {
	t.Helper()
	m := &member{t: t, id: id, address: netip.MustParseAddr(address), gone: make(chan string, 10)}
	m.up.Store("b", true)
	m.up.Store("c", true)
	var err error
	m.Gossip, err = gossip.New(gossip.Config{
		NodeID: id, ClusterID: "cluster", Listen: m.address, Advertise: m.address, Port: port,
		Asks:   func(id string) bool { _, up := m.up.Load(id); return up },
		Gone:   func(id string, _ time.Time) { m.up.Delete(id); m.gone <- id },
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if probe != nil {
		m.SetProbe(probe(m.SetProbe(nil)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	m.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(m.stop)
	return m
}

func (m *member) peer() gossip.Peer { return gossip.Peer{NodeID: m.id, Address: m.address} }

// sees waits until the member sees these alive, itself among them.
func (m *member) sees(want ...string) {
	m.t.Helper()
	deadline := time.After(time.Minute)
	for !slices.Equal(m.Alive(), want) {
		select {
		case <-deadline:
			m.t.Fatalf("%s sees %v, want %v", m.id, m.Alive(), want)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestGossip_TellsOfMachinesThatDoNotAnswer, and of no others: a daemon that is gone while its machine lives is none.
func TestGossip_TellsOfMachinesThatDoNotAnswer(t *testing.T) {
	port, keys := freePort(t), [][]byte{key(1)}
	var mu sync.Mutex
	off, refused := map[string]bool{}, make(chan string, 10)
	probe := func(real func(context.Context, string) error) func(context.Context, string) error {
		return func(ctx context.Context, address string) error {
			mu.Lock()
			defer mu.Unlock()
			if off[address] {
				return errors.New("no answer")
			}
			err := real(ctx, address)
			if err == nil {
				select {
				case refused <- address:
				default:
				}
			}
			return err
		}
	}
	a := join(t, port, "a", "127.0.0.2", probe)
	b := join(t, port, "b", "127.0.0.3", nil)
	c := join(t, port, "c", "127.0.0.4", nil)
	for _, m := range []*member{a, b, c} {
		m.Tell(keys, []gossip.Peer{a.peer()})
	}
	for _, m := range []*member{a, b, c} {
		m.sees("a", "b", "c")
	}
	b.stop()
	address := netip.AddrPortFrom(b.address, uint16(port)).String()
	for got := range refused {
		if got == address {
			break
		}
	}
	if got := a.Silent(); len(got) != 0 {
		t.Errorf("%v are silent, though their machines refuse connections", got)
	}
	b = join(t, port, "b", "127.0.0.3", nil) // its daemon was started again
	b.Tell(keys, []gossip.Peer{a.peer()})
	a.sees("a", "b", "c")
	mu.Lock()
	off[netip.AddrPortFrom(c.address, uint16(port)).String()] = true
	mu.Unlock()
	c.stop()
	if got := <-a.gone; got != "c" {
		t.Errorf("%s is gone, want c", got)
	}
	if got := a.Silent(); !slices.Equal(got, []string{"c"}) {
		t.Errorf("%v are silent, want c", got)
	}
	a.up.Store("c", true) // it was, and lost its power before any member knew
	if got := <-a.gone; got != "c" {
		t.Errorf("%s is gone, want c once more", got)
	}
	c = join(t, port, "c", "127.0.0.4", nil)
	c.Tell(keys, []gossip.Peer{a.peer()})
	a.sees("a", "b", "c")
	if got := a.Silent(); len(got) != 0 {
		t.Errorf("%v are silent, though it is back", got)
	}
	if len(a.gone) != 0 {
		t.Errorf("%s is gone, too", <-a.gone)
	}
}

// TestGossip_KeysAreReplacedOneByOne: members have them at different times.
func TestGossip_KeysAreReplacedOneByOne(t *testing.T) {
	port := freePort(t)
	a, b := join(t, port, "a", "127.0.0.2", nil), join(t, port, "b", "127.0.0.3", nil)
	b.Tell(nil, []gossip.Peer{a.peer()}) // none yet
	rounds := [][][]byte{{key(1)}, {key(2), key(1)}, {key(3), key(2), key(1)}, {key(4), key(3), key(2)}, {key(5), key(4), key(3)}}
	for i, keys := range rounds {
		a.Tell(keys, nil)
		if i > 0 { // b has the keys of before: a new node can join by either
			late := join(t, port, "late", "127.0.0.4", nil)
			late.Tell(rounds[i-1], []gossip.Peer{a.peer()})
			late.sees("a", "b", "late")
			late.stop()
			a.sees("a", "b")
		}
		b.Tell(keys, []gossip.Peer{a.peer()})
		a.sees("a", "b")
		b.sees("a", "b")
	}
	former := join(t, port, "former", "127.0.0.4", nil)
	former.Tell([][]byte{key(1)}, []gossip.Peer{a.peer()})
	former.sees("former")
	if got := a.Alive(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("a sees %v: a former key opens what it should not", got)
	}
	if got := a.Silent(); len(got) != 0 {
		t.Errorf("%v are silent", got)
	}
}

func TestNew_NeedsItsConfig(t *testing.T) {
	if _, err := gossip.New(gossip.Config{NodeID: "a"}); err == nil {
		t.Error("made without an address")
	}
}
