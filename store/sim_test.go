package store

import (
	"container/heap"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/invariant"
	"github.com/skep-io/skep/store/seal"
)

// The simulation runs a group of managers in one goroutine and in virtual time: the real state machine, log on disk, sealing
// and core, driven by a queue of events instead of goroutines. Disk, network, clocks and processes fail as the seed says, and
// the same seed gives the same run. It checks I1 to I4. The planted bugs check the checks.
//
//	go test ./store -run TestSim -sim.seeds 100 -sim.time 10m [-sim.seed N] [-sim.bug NAME]
var (
	simSeed  = flag.Uint64("sim.seed", 1, "first seed of the simulation")
	simSeeds = flag.Int("sim.seeds", 1, "number of seeds")
	simTime  = flag.Duration("sim.time", 0, "simulated time per seed; by default a minute, or 10 seconds with the race detector")
	simTries = flag.Int("sim.tries", 10, "number of seeds in which a planted bug must be found")
	simBug   = flag.String("sim.bug", "", "planted bug, see simBugs")
)

const (
	simNodes   = 5
	simKeys    = 12
	simClients = 10
	ms         = int64(time.Millisecond)
	sec        = int64(time.Second)
)

// simEvent is a function that is due at a virtual time. Equal times run in the order of scheduling.
type simEvent struct {
	at, seq int64
	do      func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}

// violation is what the checks panic with, as they run deep inside of events.
type violation string

// world is one run.
type world struct {
	t        testing.TB
	bug      string
	now, seq int64
	queue    simQueue
	rng      *rand.Rand
	nodes    []*simNode // by number, from 0
	byRaft   map[uint64]*simNode
	kek      seal.Key
	cut      [simNodes][simNodes]bool
	calm     bool // faults are over
	trace    io.Writer
	sum      func() uint64
	faults   map[string]int

	history []porcupine.Operation
	created map[string]bool // tasks whose creation was acknowledged, and that nobody asked to delete
	alive   []string        // the same, in order
	deleted map[string]bool // tasks whose deletion was acknowledged
	hashes  map[Index][32]byte
	nextID  int
}

func newWorld(t testing.TB, seed uint64, bug string) *world {
	h := fnv.New64a()
	w := &world{
		t: t, bug: bug, rng: rand.New(rand.NewPCG(seed, 1)), byRaft: map[uint64]*simNode{}, kek: seal.NewKey(),
		trace: h, sum: h.Sum64, faults: map[string]int{}, created: map[string]bool{}, deleted: map[string]bool{}, hashes: map[Index][32]byte{},
	}
	for i := range simNodes {
		w.nodes = append(w.nodes, newSimNode(w, i))
	}
	for _, n := range w.nodes {
		n.create()
		n.start()
	}
	for c := range simClients {
		w.after(w.between(0, sec), func() { w.client(c) })
	}
	w.after(3*sec, w.nemesis)
	return w
}

func (w *world) close() {
	for _, n := range w.nodes {
		n.crash()
		n.mem.Close()
	}
}

func (w *world) after(d int64, do func()) {
	w.seq++
	heap.Push(&w.queue, simEvent{w.now + d, w.seq, do})
}

func (w *world) between(lo, hi int64) int64 { return lo + w.rng.Int64N(hi-lo+1) }

func (w *world) run(until int64) {
	for w.queue.Len() > 0 && w.queue[0].at <= until {
		e := heap.Pop(&w.queue).(simEvent)
		w.now = e.at
		e.do()
	}
	w.now = until
}

func (w *world) violated(format string, args ...any) {
	panic(violation(fmt.Sprintf("at %v: ", time.Duration(w.now)) + fmt.Sprintf(format, args...)))
}

func (w *world) must(err error) {
	if err != nil {
		w.violated("%v", err)
	}
}

// nemesis injects a fault, heals it later, and comes back.
func (w *world) nemesis() {
	if w.calm {
		return
	}
	w.after(w.between(sec/2, 6*sec), w.nemesis)
	n := w.nodes[w.rng.IntN(simNodes)]
	hold := w.between(100*ms, 10*sec)
	switch w.rng.IntN(8) {
	case 0, 1:
		w.faults["crash"]++
		n.crash()
		w.after(hold/2, n.start)
	case 2:
		w.faults["blackout"]++
		for _, n := range w.nodes {
			n.crash()
			w.after(w.between(100*ms, 3*sec), n.start)
		}
	case 3:
		w.faults["partition"]++
		w.partition()
		w.after(hold, func() { w.cut = [simNodes][simNodes]bool{} })
	case 4:
		w.faults["pause"]++
		n.pausedTo = w.now + hold/2
	case 5:
		w.faults["skew"]++
		n.drift = 0.5 + 1.5*w.rng.Float64()
		w.after(hold, func() { n.drift = 1 })
	case 6:
		w.faults["slow disk"]++
		n.slowTo = w.now + hold
	case 7:
		w.faults["lost disk"]++
		n.replace()
	}
}

// partition splits the group, sometimes in one direction only.
func (w *world) partition() {
	oneWay := w.rng.IntN(3) == 0
	var side [simNodes]bool
	for i := range side {
		side[i] = w.rng.IntN(2) == 0
	}
	for a := range simNodes {
		for b := range simNodes {
			if side[a] != side[b] && (!oneWay || side[a]) {
				w.cut[a][b] = true
			}
		}
	}
}

// finish ends all faults, lets the group settle, and compares the states (I2, I3, I4).
func (w *world) finish() {
	w.calm = true
	w.cut = [simNodes][simNodes]bool{}
	for _, n := range w.nodes {
		n.pausedTo, n.slowTo, n.drift = w.now, w.now, 1
		n.start()
	}
	w.run(w.now + 30*sec)
	first := w.nodes[0]
	_, want, err := first.c.machine.freeze().hash()
	w.must(err)
	for _, n := range w.nodes {
		if n.c == nil {
			w.violated("%s is not a member again", n.name)
		}
		index, hash, err := n.c.machine.freeze().hash()
		w.must(err)
		if index != first.c.machine.index || hash != want {
			w.violated("I3: %s at %d and %s at %d differ in the end", first.name, first.c.machine.index, n.name, index)
		}
		n.checkCopy()
	}
	tx := first.c.machine.view().read()
	for id := range w.created {
		if _, err := Get[*api.Task](tx, id); err != nil {
			w.violated("I2: its creation was acknowledged: %v", err)
		}
	}
	for id := range w.deleted {
		if _, err := Get[*api.Task](tx, id); !errors.Is(err, ErrNotFound) {
			w.violated("I2: task %s is there, although its deletion was acknowledged", id)
		}
	}
}

// simModel is one register per key (I1).
var simModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, simKeys)
		for _, o := range history {
			key := o.Input.(*simOp).key
			parts[key] = append(parts[key], o)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		if o := input.(*simOp); o.kind == opPut {
			return true, o.value
		}
		return output.(uint64) == state.(uint64), state
	},
}

// simulate runs a seed and returns what it violates, or "".
func simulate(t *testing.T, seed uint64, bug string, length time.Duration) (w *world, broken string) {
	cryptotest.SetGlobalRandom(t, seed)
	w = newWorld(t, seed, bug)
	defer w.close()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case violation:
			broken = string(r)
		default:
			broken = fmt.Sprint("panic: ", r)
		}
	}()
	w.run(int64(length))
	w.finish()
	result := porcupine.CheckOperationsTimeout(simModel, w.history, 20*time.Second)
	if result != porcupine.Ok { // not knowing is a failure, too
		return w, fmt.Sprintf("I1: the history is %s", result)
	}
	return w, ""
}

func TestSim(t *testing.T) {
	if *simBug != "" {
		t.Skip("a bug is planted: see TestSim_FindsPlantedBugs")
	}
	length := *simTime
	switch {
	case length == 0 && invariant.Enabled:
		length = 10 * time.Second
	case length == 0:
		length = time.Minute
	}
	began := time.Now()
	acknowledged, faults := 0, 0
	for i := range *simSeeds {
		seed := *simSeed + uint64(i)
		w, broken := simulate(t, seed, "", length)
		if broken != "" {
			t.Errorf("seed %d: %s\nrepeat with: go test ./store -run 'TestSim$' -sim.seed %d -sim.seeds 1 -sim.time %v", seed, broken, seed, length)
		}
		acknowledged += len(w.history) + len(w.created) + 2*len(w.deleted)
		for _, n := range w.faults {
			faults += n
		}
		if i == 0 {
			again, _ := simulate(t, seed, "", length/4)
			once, _ := simulate(t, seed, "", length/4)
			if again.sum() != once.sum() {
				t.Errorf("seed %d: two runs differ: %x, %x", seed, again.sum(), once.sum())
			}
		}
	}
	total := time.Duration(*simSeeds) * length
	t.Logf("%v simulated, %.0f times real time; %d operations, %d faults", total, total.Seconds()/time.Since(began).Seconds(), acknowledged, faults)
	if acknowledged < *simSeeds*int(length.Seconds())*10 {
		t.Errorf("only %d operations: the run says nothing", acknowledged)
	}
}

// simBugs are planted at the edges of the simulation; each must be found. The seed is one that finds it in the simulated time.
// Those that take seconds to find are left out with the race detector.
var simBugs = []struct {
	name   string
	seed   uint64
	length time.Duration
	slow   bool
}{
	{"sendearly", 5, 2 * time.Minute, true},       // messages leave before what they acknowledge is durable
	{"losehardstate", 1, 2 * time.Minute, false},  // term and vote do not reach the disk
	{"lostsync", 1, 40 * time.Second, true},       // a crash takes back what the disk said was durable
	{"ackearly", 1, 40 * time.Second, false},      // a write is acknowledged when it is proposed
	{"staleread", 1, 40 * time.Second, true},      // a read does not ask the leader
	{"dropdedup", 1, 40 * time.Second, false},     // the memory of requests is lost at a restart, and clients try again
	{"watchdrops", 1, 40 * time.Second, true},     // a resumed watcher misses the next batch
	{"shortsnapshot", 1, 40 * time.Second, false}, // a snapshot lacks an object
}

func TestSim_FindsPlantedBugs(t *testing.T) {
	for _, bug := range simBugs {
		if *simBug != "" && *simBug != bug.name || invariant.Enabled && *simBug == "" && bug.slow {
			continue
		}
		t.Run(bug.name, func(t *testing.T) {
			for seed := bug.seed; seed < bug.seed+uint64(*simTries); seed++ {
				if _, broken := simulate(t, seed, bug.name, bug.length); broken != "" {
					t.Logf("seed %d: %s", seed, broken)
					return
				}
			}
			t.Errorf("not found in %d runs of %v", *simTries, bug.length)
		})
	}
}
