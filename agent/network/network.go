package network

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/taskid"
)

var (
	// ErrOverlap is returned when the bridge's subnet is one that the node has a use for already.
	ErrOverlap = errors.New("the subnet of the containers' bridge overlaps with an address of this node: choose another one")
	// ErrFull is returned when the subnet has no free address left.
	ErrFull = errors.New("no free address is left on this node's bridge: choose a larger subnet")
	// ErrPublished is returned when another container publishes the same port of this node.
	ErrPublished = errors.New("port is already published on this node")
)

const (
	// DefaultBridge and DefaultSubnet are used when the configuration names none. A /20 has room for 4093 containers.
	DefaultBridge = "skep0"
	defaultSubnet = "172.31.240.0/20"
	// minBits and maxBits bound the size of the subnet: more addresses than interfaces a bridge can have are of no use.
	minBits, maxBits = 16, 29
	forwardingFile   = "forwarding"
)

// DefaultSubnet returns the subnet that is used when the configuration names none.
func DefaultSubnet() netip.Prefix { return netip.MustParsePrefix(defaultSubnet) }

// Config is what a Network needs.
type Config struct {
	// Dir is a directory for the leases; it is made.
	Dir string
	// Bridge is the bridge's name, of at most 15 bytes; empty is DefaultBridge.
	Bridge string
	// Subnet is the IPv4 subnet of the containers, from /16 to /29; the zero value is DefaultSubnet.
	Subnet netip.Prefix
	// Logger may be nil.
	Logger *slog.Logger
}

// Network is this node's bridge with all that is attached to it. Make one with New and call Restore first, and Close last.
type Network struct {
	// constant after New
	dir    string
	bridge string
	subnet netip.Prefix
	log    *slog.Logger

	// enforcing is held while rules are written, which takes the kernel milliseconds; before mu.
	enforcing sync.Mutex
	// inForce is how many changes the rules in force know; guarded by enforcing.
	inForce uint64

	mu sync.Mutex
	// The fields below are guarded by mu.
	pool   *pool
	leases map[string]lease
	// leaving are the leases that the rules are not to know any more, by the container's id.
	leaving map[string]bool
	// changes counts what changed for the rules.
	changes uint64
	// held has the sockets that hold the ports of the leases, by port as in "8080/tcp" (N3).
	held  map[string]io.Closer
	guard bool
}

// New returns a network that has done nothing yet.
func New(cfg Config) (*Network, error) {
	n := &Network{dir: cfg.Dir, bridge: cfg.Bridge, subnet: cfg.Subnet, log: cfg.Logger, held: map[string]io.Closer{}, leaving: map[string]bool{}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.bridge == "" {
		n.bridge = DefaultBridge
	}
	if !n.subnet.IsValid() {
		n.subnet = DefaultSubnet()
	}
	switch {
	case len(n.bridge) >= ifNameLen:
		return nil, fmt.Errorf("bridge name %q is longer than %d bytes", n.bridge, ifNameLen-1)
	case !n.subnet.Addr().Is4() || n.subnet.Bits() < minBits || n.subnet.Bits() > maxBits:
		return nil, fmt.Errorf("subnet %s of the bridge is not IPv4 from /%d to /%d", n.subnet, minBits, maxBits)
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of network leases: %w", err)
	}
	n.subnet = n.subnet.Masked()
	n.pool, n.leases = newPool(n.subnet), map[string]lease{}
	return n, nil
}

// Check returns ErrOverlap, with both subnets, when the bridge's subnet is in use on this node already. Restore checks it too; this is
// for saying so early.
func (n *Network) Check() error {
	with, err := overlapping(n.bridge, n.subnet)
	if err != nil {
		return fmt.Errorf("list the addresses of this node: %w", err)
	}
	if with != "" {
		return fmt.Errorf("%w: %s and %s", ErrOverlap, n.subnet, with)
	}
	return nil
}

// Restore makes the bridge and the rules as they are to be, keeps the attachments of the containers with the given ids, and
// removes all others. It returns ErrOverlap, among others.
func (n *Network) Restore(ids []string) error {
	n.enforcing.Lock()
	defer n.enforcing.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.Check(); err != nil {
		return err
	}
	if err := n.load(ids); err != nil {
		return fmt.Errorf("read network leases: %w", err)
	}
	n.holdAgain()
	turnedOn, err := ensureBridge(n.bridge, n.gateway())
	if err != nil {
		return err
	}
	if err := n.remember(turnedOn); err != nil {
		return err
	}
	if err := n.sweep(); err != nil {
		return fmt.Errorf("remove interfaces of containers that are gone: %w", err)
	}
	return n.enforce(n.rules(), n.changes)
}

// load reads the leases of the containers with the given ids and drops the others.
func (n *Network) load(ids []string) error {
	leases, err := readLeases(n.dir)
	if err != nil {
		return err
	}
	last := n.pool.last
	n.pool, n.leases, n.leaving = newPool(n.subnet), map[string]lease{}, map[string]bool{}
	n.pool.last = last
	for _, id := range slices.Sorted(maps.Keys(leases)) {
		if slices.Contains(ids, id) && n.pool.hold(leases[id].Address) {
			n.leases[id] = leases[id]
			continue
		}
		if err := removeLease(n.dir, id); err != nil {
			return err
		}
	}
	return nil
}

// remember notes over restarts that it was Skep that made this machine forward packets.
func (n *Network) remember(turnedOn bool) error {
	path := filepath.Join(n.dir, forwardingFile)
	if turnedOn {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
	}
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	n.guard = err == nil
	return nil
}

// sweep removes the interfaces that no lease is for (I15).
func (n *Network) sweep() error {
	veths, err := vethsOf(n.bridge)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for id := range n.leases {
		known[vethName(id)] = true
	}
	for _, v := range veths {
		if known[v] {
			continue
		}
		if err := disconnect(v); err != nil {
			return err
		}
	}
	return nil
}

// Reserve gives a container an address and the published ports, for Attach to put in force. A container that has an address
// keeps it. It returns ErrFull and ErrPublished, among others, and an error of the kind fault.Precondition when a process of the
// node uses one of the ports; it leaves nothing behind then.
func (n *Network) Reserve(id string, ports []*api.PortConfig) (netip.Addr, error) {
	if err := taskid.Check("container", id); err != nil {
		return netip.Addr{}, err
	}
	published, err := portsOf(ports)
	if err != nil {
		return netip.Addr{}, err
	}
	l, err := n.leaseOnceFree(id, published)
	if err != nil {
		return netip.Addr{}, err
	}
	if err := writeLease(n.dir, id, l); err != nil {
		return netip.Addr{}, errors.Join(fmt.Errorf("write network lease: %w", err), n.Detach(id))
	}
	return l.Address, nil
}

// Attach gives a container, whose first process has the given pid in the node's pid namespace, its address as eth0 of its network
// namespace, holds it to a rate (nil is none), and publishes its ports. Reserve comes before. A container that is attached already is attached anew. When it
// fails, nothing is left but what Reserve did.
func (n *Network) Attach(id string, pid int, rate *api.NetworkRate) error {
	n.mu.Lock()
	l, ok := n.leases[id]
	n.mu.Unlock()
	if !ok {
		return fault.New(fault.NotFound, "container %s has no address reserved", id)
	}
	if err := n.plug(id, pid, l, rate); err != nil {
		return errors.Join(fmt.Errorf("attach container %s to the network: %w", id, err), disconnect(vethName(id)))
	}
	return nil
}

// Enforce puts the rules of all that is reserved in force. Attach does so if nobody did before: this is for having it done while a container
// is made.
func (n *Network) Enforce() error {
	n.mu.Lock()
	wanted := n.changes
	n.mu.Unlock()
	n.enforcing.Lock() // who comes while others' rules are written shares the next transaction
	defer n.enforcing.Unlock()
	if n.inForce >= wanted {
		return nil
	}
	n.mu.Lock()
	rules, known := n.rules(), n.changes
	n.mu.Unlock()
	return n.enforce(rules, known)
}

// enforce puts rules in force that know so many changes. It must be called with enforcing held.
func (n *Network) enforce(r rules, changes uint64) error {
	err := r.apply()
	if err == nil {
		n.inForce = changes
	}
	return err
}

// lease decides what a container is to have.
func (n *Network) lease(id string, ports []port) (lease, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.free(id, ports); err != nil {
		return lease{}, err
	}
	if err := n.hold(ports); err != nil { // N3
		return lease{}, err
	}
	l, had := n.leases[id]
	if !had {
		address, ok := n.pool.take()
		if !ok {
			n.release()
			return lease{}, fault.Wrap(fault.Unavailable, ErrFull)
		}
		l = lease{Version: leaseVersion, Address: address}
	}
	l.Ports = ports
	n.leases[id] = l
	delete(n.leaving, id)
	n.changes++
	n.release()
	return l, nil
}

// free returns ErrPublished unless all ports are free (I12). That is temporary: the last container in a slot of a service may
// be about to go.
func (n *Network) free(id string, ports []port) error {
	for other, l := range n.leases {
		for _, p := range l.Ports {
			if other != id && slices.ContainsFunc(ports, func(q port) bool { return q.String() == p.String() }) {
				return fault.New(fault.Unavailable, "%w: %s, by task %s", ErrPublished, p, other)
			}
		}
	}
	return nil
}

func (n *Network) plug(id string, pid int, l lease, rate *api.NetworkRate) error {
	if err := n.Enforce(); err != nil { // N2
		return err
	}
	address := netip.PrefixFrom(l.Address, n.subnet.Bits())
	return connect(n.bridge, vethName(id), pid, address, n.gateway(), rate)
}

// Detach takes a container from the network. It succeeds when there is nothing to take.
func (n *Network) Detach(id string) error {
	if err := taskid.Check("container", id); err != nil {
		return err
	}
	leased := n.leave(id)
	if err := disconnect(vethName(id)); err != nil || !leased {
		return err
	}
	if err := n.Enforce(); err != nil {
		return err
	}
	if err := removeLease(n.dir, id); err != nil {
		return err
	}
	n.forget(id)
	return nil
}

// leave has the next rules forget a container, which can't send any more then (N2), and reports whether it had a lease. The lease stays
// until they have: nobody else is given the address and the ports before (I12, N3).
func (n *Network) leave(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.leases[id]; !ok {
		return false
	}
	n.leaving[id] = true
	n.changes++
	return true
}

// forget gives back what a container had that the rules don't know any more.
func (n *Network) forget(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pool.give(n.leases[id].Address)
	delete(n.leases, id)
	delete(n.leaving, id)
	n.release()
}

// Address returns the address of a container, and whether it has one.
func (n *Network) Address(id string) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, ok := n.leases[id]
	return l.Address, ok
}

// Traffic returns what a container received and sent since it was attached; nil when it is not.
func (n *Network) Traffic(id string) (*api.NetworkStats, error) {
	n.mu.Lock()
	_, ok := n.leases[id]
	leaves := n.leaving[id]
	n.mu.Unlock()
	if !ok || leaves {
		return nil, nil
	}
	return traffic(vethName(id))
}

// Remove takes everything away: all attachments, the rules, the bridge, and forwarding if it was off before. The network can be restored again.
func (n *Network) Remove() error {
	n.enforcing.Lock()
	defer n.enforcing.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := removeRules(); err != nil {
		return err
	}
	defer n.release()
	for id, l := range n.leases {
		if err := errors.Join(disconnect(vethName(id)), removeLease(n.dir, id)); err != nil {
			return err
		}
		delete(n.leases, id)
		delete(n.leaving, id)
		n.pool.give(l.Address)
	}
	if err := disconnect(n.bridge); err != nil {
		return err
	}
	return n.stopForwarding()
}

// Close gives back the published ports, which the rules go on translating, and leaves the rest for the next Network to restore.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var failed []error
	for p, s := range n.held {
		failed = append(failed, s.Close())
		delete(n.held, p)
	}
	return errors.Join(failed...)
}

// stopForwarding keeps this machine from forwarding packets for others once the guard is gone, if it was Skep that made it forward.
func (n *Network) stopForwarding() error {
	if !n.guard {
		return nil
	}
	if _, err := setSysctl(forwardParameter, "0"); err != nil {
		return err
	}
	n.guard = false
	return os.Remove(filepath.Join(n.dir, forwardingFile))
}

// rules are what is to be in force.
func (n *Network) rules() rules {
	known := maps.Clone(n.leases)
	maps.DeleteFunc(known, func(id string, _ lease) bool { return n.leaving[id] })
	return rulesOf(n.bridge, n.subnet, n.guard, known)
}

func (n *Network) gateway() netip.Prefix { return netip.PrefixFrom(n.pool.gateway(), n.subnet.Bits()) }
