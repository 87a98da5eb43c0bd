package gossip

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// dialTime is how long a machine has to accept or refuse a connection.
	dialTime = 500 * time.Millisecond
	// redial is the time between two tries to reach the machine of a dead member that counts as alive elsewhere.
	redial = time.Second
	// patience is how long that is done: by then, missed heartbeats have told the managers all.
	patience = time.Minute
)

// errCrowded is why a member is not let in.
var errCrowded = errors.New("there are too many members")

// death is a member that memberlist calls dead.
type death struct {
	address string
	since   time.Time
	gone    bool // its machine did not answer when it was last tried
}

// NotifyJoin notes a member. It and the next three are called by memberlist, one at a time, and must not call it.
func (g *Gossip) NotifyJoin(n *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.alive[n.Name] = time.Now()
	delete(g.dead, n.Name)
}

// NotifyLeave notes a member that is dead, or says that it leaves: its machine may be about to be switched off.
func (g *Gossip) NotifyLeave(n *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.alive, n.Name)
	if n.Name != g.cfg.NodeID {
		g.dead[n.Name] = &death{address: n.Address(), since: time.Now()}
	}
	select {
	case g.died <- struct{}{}:
	default:
	}
}

// NotifyUpdate is not of interest.
func (g *Gossip) NotifyUpdate(*memberlist.Node) {}

// NotifyAlive refuses members beyond those that there may be.
func (g *Gossip) NotifyAlive(n *memberlist.Node) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.alive[n.Name]; !known && len(g.alive)+len(g.dead) >= maxMembers {
		return errCrowded
	}
	return nil
}

// watch tries to reach the machines of dead members, and tells of those that don't answer.
func (g *Gossip) watch(ctx context.Context) {
	timer := time.NewTicker(redial)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-g.died:
		}
		var dials sync.WaitGroup
		for id, d := range g.doubtful() {
			dials.Go(func() { g.reach(ctx, id, d) })
		}
		dials.Wait()
	}
}

// doubtful returns the dead who are asked for, and forgets those who are dead for long. Those whose machine did not answer are among
// them: it may have come back, and gone again before any member knew.
func (g *Gossip) doubtful() map[string]*death {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]*death{}
	for id, d := range g.dead {
		switch {
		case time.Since(d.since) > patience:
			delete(g.dead, id)
		case g.cfg.Asks(id):
			out[id] = d
		}
	}
	return out
}

// reach tries to reach the machine of a dead member.
func (g *Gossip) reach(ctx context.Context, id string, d *death) {
	tried := time.Now()
	gone := g.probe(ctx, d.address) != nil
	if ctx.Err() != nil {
		return
	}
	g.mu.Lock()
	d.gone = gone
	still := g.dead[id] == d
	g.mu.Unlock()
	if gone && still {
		g.cfg.Gone(id, tried)
	}
}

// dial returns an error when a machine does not answer. That it refuses the connection is an answer: its daemon may have crashed, and its
// containers live.
func dial(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: dialTime}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		return conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}
