package caserver

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/simplelru"

	"github.com/skep-io/skep/ca"
)

const (
	// An address may fail maxFailures times at once, and again each failureRefill.
	maxFailures   = 10
	failureRefill = 6 * time.Second
	// maxSources bounds the memory for addresses that failed. The one that failed longest ago is forgotten first.
	maxSources = 4096
)

// bucket counts failures, and forgets one each failureRefill. Guarded by the limiter's mu.
type bucket struct {
	level float64
	at    time.Time
	// running are the tries under way, each of which may be a failure.
	running int
	// ended is closed when one of them ends, and replaced.
	ended chan struct{}
}

// drain forgets what time has made good.
func (b *bucket) drain(now time.Time) {
	if drained := now.Sub(b.at); drained > 0 {
		b.level = max(0, b.level-float64(drained)/float64(failureRefill))
		b.at = now
	}
}

// limiter slows down those who fail (S1). A source that has failed too often is refused. One that has only much under way waits for
// the outcome of that, so that neither a thousand guesses at the same time all pass, nor are a hundred machines behind one router
// refused that join at the same time.
type limiter struct {
	mu      sync.Mutex
	buckets *simplelru.LRU // guarded by mu: *bucket by source
}

func newLimiter() (*limiter, error) {
	buckets, err := simplelru.NewLRU(maxSources, nil)
	return &limiter{buckets: buckets}, err
}

// begin returns when source may try, and how to say at the end whether the try counts as a failure. It returns
// ca.ErrTooManyTries, or the cause of the end of ctx.
func (l *limiter) begin(ctx context.Context, source string) (end func(failed bool), err error) {
	for {
		b, busy, err := l.admit(source)
		switch {
		case err != nil:
			return nil, err
		case busy == nil:
			return func(failed bool) { l.end(b, failed) }, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// admit enters a try. When it has to wait for others, it returns a channel that is closed when one of them ends.
func (l *limiter) admit(source string) (b *bucket, busy <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	found, ok := l.buckets.Get(source)
	b, _ = found.(*bucket)
	if !ok {
		b = &bucket{at: now, ended: make(chan struct{})}
		l.buckets.Add(source, b)
	}
	b.drain(now)
	switch {
	case b.level+1 > maxFailures:
		return nil, nil, ca.ErrTooManyTries
	case b.level+float64(b.running)+1 > maxFailures:
		return nil, b.ended, nil
	}
	b.running++
	return b, nil, nil
}

func (l *limiter) end(b *bucket, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.running--
	if failed {
		b.level++
	}
	close(b.ended)
	b.ended = make(chan struct{})
}

// forgive takes back a failure of source that was none in the end.
func (l *limiter) forgive(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, ok := l.buckets.Peek(source); ok {
		b := found.(*bucket)
		b.level = max(0, b.level-1)
	}
}

// SourceOf returns what failures are counted by: an IPv4 address, or the /64 of an IPv6 address, of which one machine has as many
// addresses as it likes.
func SourceOf(address string) string {
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
