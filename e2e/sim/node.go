package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

const (
	cluster  = "c1"
	dataDir  = "/raft"
	ringPath = dataDir + "/keys"
	interval = 150 // entries between snapshots
	// segmentSize of the log is small, so that it is rolled often.
	segmentSize = 64 << 10
	tick        = 100 * time.Millisecond
)

// node is a manager: what survives a crash, and, while it is up, a store that the simulation plays.
type node struct {
	w       *world
	number  int
	name    string
	raftID  uint64
	mem     *vfs.Mem // the disk
	older   *vfs.Mem // the disk a while ago, for lostSync
	oldRing []byte   // the key ring before the last change, for oldRing
	disk    diskFaults
	keys    keyring

	life     int           // counts starts, so that events of a dead process do nothing
	p        *store.Player // nil while down
	writing  bool          // work for the log is on its way
	saving   bool          // and for a snapshot
	sparing  bool          // and for the log's next segment
	applying bool          // the next committed entry is about to be applied
	calls    []*call
	pausedTo time.Duration
	drift    float64       // of its ticks
	clock    time.Duration // what its wall clock is wrong by
	joining  bool          // it has no disk, or leaves
	watch    watch
}

// call waits for an answer of the node.
type call struct {
	pending *store.Pending
	write   bool
	done    func(error)
}

func newNode(w *world, number int) *node {
	n := &node{w: w, number: number, name: fmt.Sprint("n", number+1), drift: 1, mem: vfs.NewMem()}
	n.keys = newKeyring()
	return n
}

func (n *node) store() store.Disk {
	return store.Disk{FS: n.fs(), Dir: dataDir, KEK: n.keys.now, Source: seal.SourceKeyFile, SegmentSize: segmentSize}
}

func (n *node) member() *api.Member {
	return &api.Member{RaftId: n.raftID, NodeId: n.name, Address: n.name + ":1"}
}

// bootstrap founds the cluster.
func (n *node) bootstrap() {
	n.raftID = store.NewRaftID()
	n.w.byRaft[n.raftID] = n
	n.w.must(store.Bootstrap(n.store(), cluster, n.member()))
	n.start()
}

// start brings the manager up from its disk, if it is down.
func (n *node) start() {
	if n.p != nil || n.joining {
		return
	}
	n.rewriteDisk()
	n.dieSoon(0.1, 10)
	s, err := n.open()
	switch {
	case n.disk.dead:
		n.stop(true)
		n.w.after(time.Second, n.start)
		return
	case err != nil && n.disk.failing():
		n.w.after(time.Second, n.start)
		return
	case err != nil && n.disk.flipped: // detected: what it had, it gets from the others
		n.w.faults["flip detected"]++
		n.disk.flipped = false
		n.wipe()
		n.join()
		return
	case err != nil:
		n.w.violated("%s can't start from its own disk: %v", n.name, err)
	}
	n.life++
	n.disk.flipped = false // where nothing reads it
	n.writing, n.saving, n.sparing, n.applying = false, false, false, false
	n.watch.store = nil
	p, err := s.Play()
	n.p = p
	n.do(err)
	n.tick(n.life)
}

func (n *node) open() (*store.Store, error) {
	return n.keys.open(n, func(kek seal.Key) (*store.Store, error) {
		disk := n.store()
		disk.KEK = kek
		return store.Open(store.Config{
			Disk: disk, Transport: transport{n}, SnapshotInterval: interval, Logger: slog.New(slog.DiscardHandler),
		})
	})
}

// stop ends the process, and with power lost also what was not durable.
func (n *node) stop(power bool) {
	if n.p != nil {
		_ = n.p.Close() // its disk may be failing
	}
	n.p, n.calls = nil, nil
	n.disk.dead, n.disk.dieIn = false, 0
	n.checkClear()
	if !power {
		return
	}
	if n.w.bug == lostSync && n.older != nil {
		n.mem, n.older = n.older, nil
		return
	}
	after, err := n.mem.Crash(n.w.rng)
	n.w.must(err)
	n.mem.Close()
	n.mem = after
}

// do goes on after a step of the loop, or stops.
func (n *node) do(err error) {
	switch {
	case n.p == nil:
	case err == nil:
		n.settle()
	case errors.Is(err, store.ErrRemoved):
		n.stop(false)
	case n.disk.dead: // the crash was meant to come in the middle of this
		n.stop(true)
		n.w.after(n.w.between(100*time.Millisecond, 5*time.Second), n.start)
	case n.disk.failing() || errors.Is(err, errDisk):
		n.stop(n.w.chance(0.5))
		n.w.after(n.w.between(100*time.Millisecond, 5*time.Second), n.start)
	default:
		n.w.violated("%s stops: %v", n.name, err)
	}
}

// when runs fn once the node is not paused, if it is still the same process.
func (n *node) when(life int, fn func()) {
	if n.p == nil || n.life != life {
		return
	}
	if n.w.now < n.pausedTo {
		n.w.after(n.pausedTo-n.w.now, func() { n.when(life, fn) })
		return
	}
	fn()
}

func (n *node) tick(life int) {
	if n.p == nil || n.life != life {
		return
	}
	if n.w.now >= n.pausedTo {
		n.do(n.p.Tick())
	}
	n.w.after(time.Duration(float64(tick)*n.drift), func() { n.tick(life) })
}

// settle plays the parts of the loop that are not steps: the disk, snapshots, proposals and answers.
func (n *node) settle() {
	n.work(&n.writing, 1, n.p.Disk)
	n.work(&n.saving, 5, n.p.Snapshot)
	n.work(&n.sparing, 50, n.p.Spare)
	n.apply()
	if err := n.p.Flush(); err != nil {
		n.do(err)
		return
	}
	if n.p == nil {
		return
	}
	n.work(&n.writing, 1, n.p.Disk)
	n.observe()
	n.answer()
}

// apply has the next committed entry applied soon, or, on a processor that is busy, a little later.
func (n *node) apply() {
	if n.applying || !n.p.Applying() {
		return
	}
	n.applying = true
	life := n.life
	var wait time.Duration
	if n.w.chance(0.02) {
		wait = n.w.between(0, 200*time.Millisecond)
	}
	n.w.after(wait, func() {
		n.when(life, func() {
			n.applying = false
			n.do(n.p.Apply())
		})
	})
}

// work starts the next work of a kind, if none is on its way.
func (n *node) work(busy *bool, slowness time.Duration, next func() *store.Work) {
	if *busy {
		return
	}
	work := next()
	if work == nil {
		return
	}
	*busy = true
	life := n.life
	n.beforeWork(work)
	n.w.after(slowness*n.disk.delay(n.w), func() {
		n.when(life, func() {
			if err := work.Do(); err != nil && busy != &n.sparing {
				n.do(err)
				return
			}
			*busy = false
			n.afterWork(work)
			n.do(work.Finish())
		})
	})
}

// answer tells the clients what is known now.
func (n *node) answer() {
	rest := n.calls[:0]
	var ready []func()
	for _, c := range n.calls {
		if ok, err := c.pending.Answer(); ok {
			ready = append(ready, func() { c.done(err) })
		} else {
			rest = append(rest, c)
		}
	}
	clear(n.calls[len(rest):])
	n.calls = rest
	for _, do := range ready {
		do()
	}
}
