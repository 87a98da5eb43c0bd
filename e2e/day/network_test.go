package day

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/skep-io/skep/internal/grpctest"
)

var errRefused = errors.New("connection refused")

// network joins the machines. A pair of them that is cut off loses every byte without a word, as a router that is gone does.
type network struct {
	mu sync.Mutex
	// The fields below are guarded by mu.
	ports map[string]port // by address
	wires map[*wire]bool
	cuts  map[[2]string]bool // by the names of two machines, in order
}

// port is where somebody listens.
type port struct {
	machine  string
	listener *grpctest.Listener
}

func newNetwork() *network {
	return &network{ports: map[string]port{}, wires: map[*wire]bool{}, cuts: map[[2]string]bool{}}
}

func (n *network) listen(machine, address string) *grpctest.Listener {
	l := grpctest.Listen()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[address] = port{machine, l}
	return l
}

// dial connects a machine to an address. Nothing answers from behind a cut, nor from a machine that is off.
func (n *network) dial(ctx context.Context, from, address string) (net.Conn, error) {
	n.mu.Lock()
	to, known := n.ports[address]
	cut := n.cuts[pair(from, to.machine)]
	n.mu.Unlock()
	switch {
	case cut:
		<-ctx.Done()
		return nil, ctx.Err()
	case !known:
		return nil, errRefused
	}
	conn, err := to.listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: conn, network: n, ends: pair(from, to.machine)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires[w] = true
	w.setLost(n.cuts[w.ends])
	return w, nil
}

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// isolate cuts machines off from all others, but not from each other.
func (n *network) isolate(all []string, inside ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range inside {
		for _, b := range all {
			if !slices.Contains(inside, b) {
				n.cuts[pair(a, b)] = true
			}
		}
	}
	n.lose()
}

// part cuts two machines off from each other alone.
func (n *network) part(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[pair(a, b)] = true
	n.lose()
}

// lose has connections lose what is sent from now on. n.mu is held.
func (n *network) lose() {
	for w := range n.wires {
		w.setLost(n.cuts[w.ends])
	}
}

// mend ends all cuts. Connections that lost bytes break.
func (n *network) mend() {
	n.mu.Lock()
	clear(n.cuts)
	var broken []*wire
	for w := range n.wires {
		if w.isLost() {
			broken = append(broken, w)
		}
	}
	n.mu.Unlock()
	for _, w := range broken {
		_ = w.Close()
	}
}

// silence ends all that a machine has to do with the network, as its end does.
func (n *network) silence(machine string) {
	n.mu.Lock()
	maps.DeleteFunc(n.ports, func(_ string, p port) bool { return p.machine == machine })
	var ended []*wire
	for w := range n.wires {
		if slices.Contains(w.ends[:], machine) {
			ended = append(ended, w)
		}
	}
	n.mu.Unlock()
	for _, w := range ended {
		_ = w.Close()
	}
}

// wire is a connection, as who dialled sees it.
type wire struct {
	net.Conn
	network *network
	ends    [2]string

	mu   sync.Mutex
	lost bool // guarded by mu: what is sent does not arrive
}

func (w *wire) setLost(lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = w.lost || lost
}

func (w *wire) isLost() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	if w.isLost() {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if err != nil || !w.isLost() {
			return n, err
		}
	}
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.network.mu.Lock()
	delete(w.network.wires, w)
	w.network.mu.Unlock()
	return w.Conn.Close()
}

// dialer is how programs on a machine reach addresses.
func (w *world) dialer(machine string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		return w.network.dial(ctx, machine, address)
	}
}
