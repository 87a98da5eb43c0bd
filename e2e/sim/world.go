package main

import (
	"container/heap"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/rand/v2"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/skep-io/skep/store"
)

const (
	managers = 5
	clients  = 10
	keys     = 12
	// election is the longest time-out of an election.
	election = 2 * time.Second
	// round is how long faults go on before the group must come to rest.
	round = 150 * time.Second
)

// event is a function that is due at a virtual time. Equal times run in the order of scheduling.
type event struct {
	at  time.Duration
	seq int64
	do  func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	e := (*q)[len(*q)-1]
	(*q)[len(*q)-1] = event{}
	*q = (*q)[:len(*q)-1]
	return e
}

// violation is what the checks panic with, as they run deep inside of events.
type violation string

// world is one run of one seed.
type world struct {
	bug    bug
	now    time.Duration // since the start
	seq    int64
	queue  queue
	rng    *rand.Rand
	nodes  []*node // by number, from 0
	byRaft map[uint64]*node
	net    network
	// protocol of all managers but the first: in half of the worlds, they don't understand joint changes of the membership.
	protocol uint32
	calm     bool      // no faults now
	done     bool      // clients stop
	trace    hash.Hash // of all that happens
	faults   map[string]int

	history   []porcupine.Operation
	created   map[string]bool // secrets whose creation was acknowledged, and that nobody asked to delete
	alive     []string        // the same, in order
	deleted   map[string]bool // secrets whose deletion was acknowledged
	hashes    map[store.Index][32]byte
	applied   map[string]store.Index // where each effect of a request was applied
	leaders   map[uint64]string      // by term
	nextID    int
	lastWrite time.Duration // when a write was acknowledged
}

// newWorld makes a group of managers; the first one founds it, and the others join.
func newWorld(seed uint64, bug bug) *world {
	seedCrypto(seed)
	w := &world{
		bug: bug, rng: rand.New(rand.NewPCG(seed, 1)), byRaft: map[uint64]*node{}, trace: sha256.New(), faults: map[string]int{},
		created: map[string]bool{}, deleted: map[string]bool{}, hashes: map[store.Index][32]byte{},
		applied: map[string]store.Index{}, leaders: map[uint64]string{},
	}
	w.protocol = store.Protocol * uint32(seed%2)
	for i := range managers {
		w.nodes = append(w.nodes, newNode(w, i))
	}
	w.nodes[0].bootstrap()
	for _, n := range w.nodes[1:] {
		n.join()
	}
	for c := range clients {
		w.after(w.between(0, time.Second), func() { w.client(c) })
	}
	w.after(15*time.Second, w.nemesis)
	return w
}

// seedCrypto makes crypto/rand repeatable in this process: raft's election time-outs, keys and ids come from it. That is why a
// process runs one world at a time.
func seedCrypto(seed uint64) {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	cryptorand.Reader = rand.NewChaCha8(b)
}

func (w *world) close() {
	for _, n := range w.nodes {
		if n.p != nil {
			_ = n.p.Close() // whatever it was doing
		}
		n.mem.Close()
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + d, w.seq, do})
}

func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) run(until time.Duration) {
	for w.queue.Len() > 0 && w.queue[0].at <= until {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = until
}

func (w *world) violated(format string, args ...any) {
	panic(violation(fmt.Sprintf("at %v: ", w.now.Round(time.Millisecond)) + fmt.Sprintf(format, args...)))
}

func (w *world) must(err error) {
	if err != nil {
		w.violated("%v", err)
	}
}

// note adds to the trace.
func (w *world) note(values ...uint64) {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 64), uint64(w.now))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	w.trace.Write(b)
}

// leader returns the manager that leads and can say so, or nil.
func (w *world) leader() *node {
	var leader *node
	var term uint64
	for _, n := range w.nodes {
		if n.p == nil || w.now < n.pausedTo {
			continue
		}
		if lead, _ := n.p.Store().Leadership(); lead.Self && lead.Term > term {
			leader, term = n, lead.Term
		}
	}
	return leader
}
