package network

import (
	"net/netip"
)

// pool hands out addresses of a subnet. An address that was given back is not handed out again before all others were, so that
// what still sends to its last owner doesn't reach the next one.
type pool struct {
	subnet netip.Prefix
	// taken has the addresses in use; last is the one handed out last.
	taken map[netip.Addr]bool
	last  netip.Addr
}

// newPool returns a pool without the network's own address, the gateway's, which is the first, and the broadcast address.
func newPool(subnet netip.Prefix) *pool {
	p := &pool{subnet: subnet.Masked(), taken: map[netip.Addr]bool{}}
	p.last = p.gateway()
	p.taken[p.gateway()] = true
	p.taken[p.subnet.Addr()] = true
	p.taken[p.broadcast()] = true
	return p
}

// gateway returns the address of the bridge.
func (p *pool) gateway() netip.Addr { return p.subnet.Addr().Next() }

// broadcast returns the last address of the subnet.
func (p *pool) broadcast() netip.Addr {
	a := p.subnet.Addr().As4()
	for i := p.subnet.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// take hands out an address, or returns false when there is none left.
func (p *pool) take() (netip.Addr, bool) {
	for a := p.after(p.last); a != p.last; a = p.after(a) {
		if !p.taken[a] {
			p.taken[a] = true
			p.last = a
			return a, true
		}
	}
	if p.taken[p.last] {
		return netip.Addr{}, false
	}
	p.taken[p.last] = true
	return p.last, true
}

// after returns the next address, beginning again at the end.
func (p *pool) after(a netip.Addr) netip.Addr {
	if n := a.Next(); p.subnet.Contains(n) {
		return n
	}
	return p.subnet.Addr()
}

// hold takes a certain address, as one that a container has already. It says whether it was free.
func (p *pool) hold(a netip.Addr) bool {
	if !p.subnet.Contains(a) || p.taken[a] {
		return false
	}
	p.taken[a] = true
	return true
}

// give takes an address back.
func (p *pool) give(a netip.Addr) { delete(p.taken, a) }
