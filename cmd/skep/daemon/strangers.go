package daemon

import (
	"container/list"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/skep-io/skep/manager/caserver"
)

// What connections may take of this node before their peer has shown a certificate. A join needs two of them for a moment each, and
// sends some 10 KiB.
const (
	// maxStrangers is their number. One more ends the oldest: whoever floods this node must be faster than a handshake to keep
	// others out.
	maxStrangers = 1024
	// maxStrangersOfSource is their number from one address: a hundred machines behind one router join at the same time.
	maxStrangersOfSource = 256
	// strangerLife is how long they last: longer than a join waits for the leader.
	strangerLife = 30 * time.Second
	// maxStrangerBytes is what they may send.
	maxStrangerBytes = 64 << 10
)

// errStrangerBytes ends a connection whose peer sends more than a stranger has to say.
var errStrangerBytes = errors.New("the peer sent too much without a certificate")

// doorkeeper is a listener that bounds what strangers take. introducing tells it who is none.
type doorkeeper struct {
	net.Listener

	mu      sync.Mutex
	all     *list.List     // guarded by mu: *stranger, the oldest first
	sources map[string]int // guarded by mu: how many of all by address
}

func newDoorkeeper(l net.Listener) *doorkeeper {
	return &doorkeeper{Listener: l, all: list.New(), sources: map[string]int{}}
}

// Accept implements net.Listener. It does not return connections from an address that has too many strangers.
func (d *doorkeeper) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if s := d.admit(conn); s != nil {
			return s, nil
		}
		_ = conn.Close() // nothing was sent
	}
}

// admit enters a connection, or returns nil.
func (d *doorkeeper) admit(conn net.Conn) *stranger {
	s := &stranger{Conn: conn, keeper: d, source: caserver.SourceOf(conn.RemoteAddr().String())}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sources[s.source] >= maxStrangersOfSource {
		return nil
	}
	if d.all.Len() >= maxStrangers {
		oldest := d.all.Front().Value.(*stranger)
		d.drop(oldest)
		_ = oldest.Conn.Close() // its reader finds it closed
	}
	d.sources[s.source]++
	s.place = d.all.PushBack(s)
	s.end = time.AfterFunc(strangerLife, func() { _ = s.Close() })
	return s
}

// drop forgets a stranger. Called with mu, as often as one likes.
func (d *doorkeeper) drop(s *stranger) {
	if s.place == nil {
		return
	}
	d.all.Remove(s.place)
	s.place = nil
	s.end.Stop()
	if d.sources[s.source]--; d.sources[s.source] == 0 {
		delete(d.sources, s.source)
	}
}

// stranger is a connection whose peer has shown no certificate yet.
type stranger struct {
	net.Conn
	keeper *doorkeeper
	source string

	read  atomic.Int64
	known atomic.Bool

	place *list.Element // guarded by keeper.mu; nil once it is no stranger any more
	end   *time.Timer   // constant once admitted
}

// Read implements net.Conn.
func (s *stranger) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if !s.known.Load() && s.read.Add(int64(n)) > maxStrangerBytes {
		_ = s.Close()
		return 0, errStrangerBytes
	}
	return n, err
}

// Close implements net.Conn.
func (s *stranger) Close() error {
	s.leave()
	return s.Conn.Close()
}

// introduce makes it the connection of a node, without the limits of strangers.
func (s *stranger) introduce() {
	s.known.Store(true)
	s.leave()
}

func (s *stranger) leave() {
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	s.keeper.drop(s)
}

// introducing tells the doorkeeper who has shown a certificate that was verified.
type introducing struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (i introducing) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := i.TransportCredentials.ServerHandshake(raw)
	tlsInfo, ok := info.(credentials.TLSInfo)
	if s, kept := raw.(*stranger); err == nil && ok && kept && len(tlsInfo.State.VerifiedChains) > 0 {
		s.introduce()
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (i introducing) Clone() credentials.TransportCredentials {
	return introducing{i.TransportCredentials.Clone()}
}
