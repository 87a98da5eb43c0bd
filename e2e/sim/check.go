package main

import (
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/store"
)

// settleTime is how long the group may take to come to rest after faults: a manager that lost its disk has to be removed, be
// added, get a snapshot and become a voter.
const settleTime = 30 * time.Second

// patience bounds how long the history of one seed is searched, in real time. Not knowing is a failure, too.
const patience = 30 * time.Second

// appliedOnce checks that no request takes effect twice (I1): each value is written once, each secret made once.
func (w *world) appliedOnce(change store.Change, index store.Index) {
	effect := ""
	switch o := change.Object.(type) {
	case *api.Service:
		effect = fmt.Sprint("value ", o.GetSpecVersion())
	case *api.Secret:
		effect = fmt.Sprint(change.Action, " ", o.GetId())
	case *api.AuditSegment: // see checkAudit
		return
	}
	if before, ok := w.applied[effect]; ok && before != index {
		w.violated("I1: %q was applied twice, at %d and at %d", effect, before, index)
	}
	w.applied[effect] = index
}

// rest ends all faults, and checks that the group comes to rest: it has a leader within ten election time-outs (Q1), takes
// writes, and everybody is a member again (Q3) with the same state (I3).
func (w *world) rest() {
	w.calm = true
	w.net.heal()
	for _, n := range w.nodes {
		n.pausedTo, n.drift = w.now, 1
		n.disk.slowTo, n.disk.stuckTo, n.disk.err, n.disk.dieIn = w.now, w.now, nil, 0
		n.start()
	}
	began := w.now
	w.run(began + 10*election)
	if w.leader() == nil || w.lastWrite < began {
		w.violated("Q1: %v after the last fault there is no leader that takes writes", 10*election)
	}
	w.run(began + settleTime)
	for _, n := range w.nodes {
		if n.p == nil || n.joining {
			w.violated("Q3: %s is not a member again", n.name)
		}
	}
	w.calm = false
}

// finish compares what is there in the end with what was acknowledged (I2, I3, I4).
func (w *world) finish() {
	w.rest()
	w.calm, w.done = true, true
	w.run(w.now + giveUp + settleTime/10)
	first := w.nodes[0]
	index, want, err := first.p.StateHash()
	w.must(err)
	for _, n := range w.nodes {
		i, hash, err := n.p.StateHash()
		w.must(err)
		if i != index || hash != want {
			w.violated("I3: %s at %d and %s at %d differ in the end", first.name, index, n.name, i)
		}
		n.checkCopy()
		n.checkClear()
	}
	w.must(first.p.Store().View(w.checkAcknowledged))
	w.must(first.p.Store().View(w.checkAudit))
}

func (w *world) checkAcknowledged(tx store.ReadTx) error {
	for id := range w.created {
		if _, err := store.Get[*api.Secret](tx, id); err != nil {
			w.violated("I2: its creation was acknowledged: %v", err)
		}
	}
	for id := range w.deleted {
		if _, err := store.Get[*api.Secret](tx, id); !errors.Is(err, store.ErrNotFound) {
			w.violated("I2: secret %s is there, although its deletion was acknowledged", id)
		}
	}
	return nil
}

// checkAudit checks that the audit log is one chain, which has each acknowledged change once (I16).
func (w *world) checkAudit(tx store.ReadTx) error {
	if w.protocol == 0 {
		return nil
	}
	segments, err := store.List[*api.AuditSegment](tx)
	if err != nil || len(segments) == 0 {
		return err
	}
	v, err := chain.NewVerifier(cluster, chain.Anchor(segments[0]))
	if err != nil {
		w.violated("I16: %v", err)
	}
	once := map[string]bool{}
	for _, s := range segments {
		for link, err := range chain.Links(s) {
			w.must(err)
			e, err := link.Entry()
			w.must(err)
			if err := v.Add(e); err != nil {
				w.violated("I16: %v", err)
			}
			if id := e.GetEvent().GetRequestId(); once[id] {
				w.violated("I16: %s is in the audit log twice", id)
			}
			once[e.GetEvent().GetRequestId()] = true
		}
	}
	for id := range w.created {
		if !once[id] {
			w.violated("I16: %s was acknowledged and is not in the audit log", id)
		}
	}
	return nil
}

// model is one register per key (I1).
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, keys)
			for _, o := range history {
				key := o.Input.(*op).key
				parts[key] = append(parts[key], o)
			}
			return parts
		},
		Init: func() any { return uint64(0) },
		Step: func(state, input, output any) (bool, any) {
			if o := input.(*op); o.kind == opPut {
				return true, o.value
			}
			return output.(uint64) == state.(uint64), state
		},
	}
}

// report is what a run found.
type report struct {
	Seed       uint64
	Simulated  time.Duration
	Operations int
	Faults     map[string]int
	Broken     string // what is violated, or empty
	Trace      string // equal for equal runs
}

// simulate runs a seed for some simulated time.
func simulate(seed uint64, bug bug, length time.Duration) (r report) {
	w := newWorld(seed, bug)
	defer w.close()
	r.Broken = w.broken(func() {
		for w.now < length {
			w.run(min(length, w.now+round))
			if w.now < length {
				w.rest()
			}
		}
		w.finish()
	})
	if r.Broken == "" {
		if result := porcupine.CheckOperationsTimeout(model(), w.history, patience); result != porcupine.Ok {
			r.Broken = fmt.Sprintf("I1: the history is %s", result)
		}
	}
	r.Seed, r.Simulated, r.Faults, r.Trace = seed, w.now, w.faults, fmt.Sprintf("%x", w.trace.Sum(nil)[:8])
	r.Operations = len(w.history) + len(w.created) + 2*len(w.deleted)
	return r
}

// standstill is a violation of the kind that no planted bug leads to.
var standstill = regexp.MustCompile(`(^|: )Q\d: `)

// finds reports whether a planted bug was found. A swarm that does not get on finds none: else one that never did would find them all.
func (r report) finds() bool { return r.Broken != "" && !standstill.MatchString(r.Broken) }

// broken runs fn and returns what it violates, or "".
func (w *world) broken(fn func()) (broken string) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case violation:
			broken = string(r)
		default:
			broken = fmt.Sprintf("at %v: panic: %v\n%s", w.now, r, debug.Stack())
		}
	}()
	fn()
	return ""
}
