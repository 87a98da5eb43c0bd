package ca

import (
	"maps"
	"net"
	"slices"
	"sync"
)

// Connections are live connections, each with what is known of its peer, so that those can be ended whose peer is not to be spoken with
// any more. The zero value has none. Safe for concurrent use.
type Connections[P any] struct {
	mu   sync.Mutex
	live map[*connection[P]]P // guarded by mu
}

// Keep notes a connection until it is closed; raw is what it has below TLS. It returns the connection to use.
func (c *Connections[P]) Keep(raw, conn net.Conn, peer P) net.Conn {
	kept := &connection[P]{conn, raw, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live == nil {
		c.live = map[*connection[P]]P{}
	}
	c.live[kept] = peer
	return kept
}

// Peers returns what is known of the peers, in any order.
func (c *Connections[P]) Peers() []P {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.live))
}

// Cut ends the connections with the peers that are doomed, whatever is under way on them. The function must not use c.
func (c *Connections[P]) Cut(doomed func(P) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, peer := range c.live {
		if doomed(peer) {
			delete(c.live, conn)
			_ = conn.raw.Close() // TLS would wait to say goodbye; its owner finds it closed
		}
	}
}

// connection is one that its Connections knows while it is open.
type connection[P any] struct {
	net.Conn
	raw   net.Conn
	among *Connections[P]
}

// Close implements net.Conn.
func (c *connection[P]) Close() error {
	c.among.mu.Lock()
	delete(c.among.live, c)
	c.among.mu.Unlock()
	return c.Conn.Close()
}
