package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Port is where nodes gossip, over UDP and TCP; Docker Swarm's.
const Port = 7946

const (
	// retry is the time between two tries to take part, or to reach managers that are not members; retryAlone is that of a node that
	// has not met any member.
	retry      = 10 * time.Second
	retryAlone = time.Second
	// maxMembers bounds what is kept of members that anybody with a key can invent.
	maxMembers = 20_000
	// tcpTime bounds the exchange of all that two members know, and how long the end waits for one that was begun.
	tcpTime = 3 * time.Second
	// leaveTime bounds how long the end waits for others to hear of it.
	leaveTime = time.Second
)

// Peer is another node.
type Peer struct {
	NodeID string
	// Address is its IP.
	Address netip.Addr
}

// Config is what a Gossip needs. All fields are required unless they say otherwise.
type Config struct {
	NodeID, ClusterID string
	// Listen is the address to serve on, and Advertise the one that others reach it by.
	Listen, Advertise netip.Addr
	// Port is where all nodes gossip; 0 is the package's.
	Port int
	// Asks reports whether Gone is to be called for a node at present: whether it counts as alive. It must not block.
	Asks func(nodeID string) bool
	// Gone is called when a node's machine does not answer any more, with the time at which it was tried, and every second as long as that
	// is so and Asks. It must not block.
	Gone   func(nodeID string, tried time.Time)
	Logger *slog.Logger
}

// Gossip is this node among the members.
type Gossip struct {
	cfg Config
	// probe tries to reach a member's machine.
	probe func(ctx context.Context, address string) error
	// told has room for one: there are other keys or peers; died likewise: a member is dead.
	told, died chan struct{}

	mu    sync.Mutex
	keys  [][]byte             // guarded by mu
	peers []Peer               // guarded by mu
	alive map[string]time.Time // guarded by mu; since when members are
	dead  map[string]*death    // guarded by mu
}

// New returns a gossip that takes part once it was told keys.
func New(cfg Config) (*Gossip, error) {
	if cfg.NodeID == "" || cfg.ClusterID == "" || !cfg.Listen.IsValid() || !cfg.Advertise.IsValid() || cfg.Asks == nil || cfg.Gone == nil ||
		cfg.Logger == nil {
		return nil, errors.New("gossip: NodeID, ClusterID, Listen, Advertise, Asks, Gone and Logger are required")
	}
	if cfg.Port == 0 {
		cfg.Port = Port
	}
	return &Gossip{cfg: cfg, probe: dial, told: make(chan struct{}, 1), died: make(chan struct{}, 1), alive: map[string]time.Time{}, dead: map[string]*death{}}, nil
}

// Tell says which keys there are, newest first (see api.GossipKeys), and by whom to join.
func (g *Gossip) Tell(keys [][]byte, peers []Peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keys, g.peers = keys, peers
	select {
	case g.told <- struct{}{}:
	default:
	}
}

// Run takes part until ctx ends.
func (g *Gossip) Run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { g.watch(ctx) })
	var list *memberlist.Memberlist
	var ring *memberlist.Keyring
	defer func() {
		if list != nil {
			// Whoever does not hear of it finds out.
			_ = list.Leave(leaveTime)
			_ = list.Shutdown()
		}
	}()
	failed := false
	again := time.NewTimer(retry) // what is told comes first
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.told:
		case <-again.C:
		}
		keys, peers, alone := g.wanted()
		if again.Reset(retry); len(keys) == 0 {
			continue
		}
		if alone {
			again.Reset(retryAlone)
		}
		var err error
		if list == nil {
			list, ring, err = g.create(keys)
		} else {
			err = follow(ring, keys)
		}
		switch {
		case err != nil && !failed:
			g.cfg.Logger.Warn("this node does not take part in finding out fast which machines are gone", "error", err)
		case err == nil && failed:
			g.cfg.Logger.Info("this node takes part in finding out fast which machines are gone")
		}
		failed = err != nil
		if list != nil && len(peers) > 0 {
			g.join(list, peers)
		}
	}
}

// wanted returns the keys, and the peers that are no members. alone says that this node has peers, and that none is one.
func (g *Gossip) wanted() (keys [][]byte, peers []Peer, alone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.peers {
		if _, member := g.alive[p.NodeID]; !member && p.NodeID != g.cfg.NodeID {
			peers = append(peers, p)
		}
	}
	return g.keys, peers, len(peers) > 0 && len(g.alive) < 2
}

// join meets one of the peers, who knows all members.
func (g *Gossip) join(list *memberlist.Memberlist, peers []Peer) {
	peer := peers[rand.IntN(len(peers))]
	if _, err := list.Join([]string{peer.NodeID + "/" + net.JoinHostPort(peer.Address.String(), strconv.Itoa(g.cfg.Port))}); err != nil {
		g.cfg.Logger.Debug("gossip: a manager can't be reached", "error", err)
	}
}

// create begins to listen and to probe.
func (g *Gossip) create(keys [][]byte) (*memberlist.Memberlist, *memberlist.Keyring, error) {
	ring, err := memberlist.NewKeyring(keys, sending(keys))
	if err != nil {
		return nil, nil, fmt.Errorf("gossip keys: %w", err)
	}
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.Label = g.cfg.NodeID, g.cfg.ClusterID
	cfg.BindAddr, cfg.BindPort = g.cfg.Listen.String(), g.cfg.Port
	cfg.AdvertiseAddr, cfg.AdvertisePort = g.cfg.Advertise.String(), g.cfg.Port
	// A machine that is gone is dead within 3 s in a swarm of tens of nodes, and 4.5 s in one of hundreds.
	cfg.ProbeInterval, cfg.ProbeTimeout = 400*time.Millisecond, 200*time.Millisecond
	cfg.SuspicionMult, cfg.GossipInterval = 3, 100*time.Millisecond
	cfg.TCPTimeout = tcpTime
	// A machine whose address changed is itself.
	cfg.DeadNodeReclaimTime = time.Second
	cfg.Keyring, cfg.RequireNodeNames = ring, true
	cfg.Events, cfg.Alive = g, g
	cfg.Logger = slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug)
	list, err := memberlist.Create(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("gossip on %s, UDP and TCP: %w", net.JoinHostPort(cfg.BindAddr, strconv.Itoa(cfg.BindPort)), err)
	}
	return list, ring, nil
}

// sending is the key that messages are encrypted by: the newest that all have.
func sending(keys [][]byte) []byte { return keys[min(1, len(keys)-1)] }

// follow makes the keys those of the ring.
func follow(ring *memberlist.Keyring, keys [][]byte) error {
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil { // none if it is there
			return fmt.Errorf("gossip keys: %w", err)
		}
	}
	if err := ring.UseKey(sending(keys)); err != nil {
		return fmt.Errorf("gossip keys: %w", err)
	}
	for _, key := range ring.GetKeys() {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return string(k) == string(key) }) {
			if err := ring.RemoveKey(key); err != nil {
				return fmt.Errorf("gossip keys: %w", err)
			}
		}
	}
	return nil
}

// Silent returns the nodes whose machines do not answer.
func (g *Gossip) Silent() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(g.dead)) {
		if g.dead[id].gone {
			ids = append(ids, id)
		}
	}
	return ids
}
