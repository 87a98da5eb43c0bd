package caserver

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/simplelru"
)

const (
	// An address may fail maxFailures times at once, and again each failureRefill.
	maxFailures   = 10
	failureRefill = 6 * time.Second
	// maxSources bounds the memory for addresses that failed. The one that failed longest ago is forgotten first.
	maxSources = 4096
)

// bucket counts failures, and forgets one each failureRefill.
type bucket struct {
	level float64
	at    time.Time
}

// take counts one failure in advance, or returns false if there were too many.
func (b *bucket) take(now time.Time) bool {
	if drained := now.Sub(b.at); drained > 0 {
		b.level = max(0, b.level-float64(drained)/float64(failureRefill))
		b.at = now
	}
	if b.level+1 > maxFailures {
		return false
	}
	b.level++
	return true
}

// give takes back a failure that was none.
func (b *bucket) give() { b.level = max(0, b.level-1) }

// limiter slows down those who fail (S1). Each try is counted as a failure until it succeeds, so that a thousand tries at the
// same time don't all pass.
type limiter struct {
	mu      sync.Mutex
	buckets *simplelru.LRU // guarded by mu: *bucket by source
}

func newLimiter() (*limiter, error) {
	buckets, err := simplelru.NewLRU(maxSources, nil)
	return &limiter{buckets: buckets}, err
}

// begin returns false if source failed too often. Otherwise the caller calls succeed if the try is none that counts.
func (l *limiter) begin(now time.Time, source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	found, ok := l.buckets.Get(source)
	b, _ := found.(*bucket)
	if !ok {
		b = &bucket{at: now}
		l.buckets.Add(source, b)
	}
	return b.take(now)
}

func (l *limiter) succeed(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, ok := l.buckets.Peek(source); ok {
		found.(*bucket).give()
	}
}

// sourceOf returns what failures are counted by: an IPv4 address, or the /64 of an IPv6 address, of which one machine has as many
// addresses as it likes.
func sourceOf(address string) string {
	ip := hostOf(address)
	if !ip.IsValid() {
		if host, _, err := net.SplitHostPort(address); err == nil {
			return host
		}
		return address
	}
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}

// hostOf returns the IP address in host:port, in its plainest form, or the zero value when there is none.
func hostOf(address string) netip.Addr {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return ip.Unmap().WithZone("")
}
