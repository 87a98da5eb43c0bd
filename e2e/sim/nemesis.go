package main

import "time"

// fault is something that the nemesis does to a manager, or to the group. It holds for a while.
type fault struct {
	name   string
	weight int
	do     func(w *world, n *node, hold time.Duration)
}

func faults() []fault {
	return []fault{
		{"crash", 4, func(w *world, n *node, hold time.Duration) { w.crash(n, true, hold/2) }},
		{"kill", 2, func(w *world, n *node, hold time.Duration) { w.crash(n, false, hold/4) }},
		{"crash within a write", 4, func(_ *world, n *node, _ time.Duration) { n.dieSoon(1, 12) }},
		{"blackout", 2, func(w *world, _ *node, _ time.Duration) {
			for _, n := range w.nodes {
				w.crash(n, true, 3*time.Second)
			}
		}},
		{"crash storm", 1, func(w *world, _ *node, hold time.Duration) { w.storm(w.now + hold) }},
		{"partition", 3, func(w *world, _ *node, hold time.Duration) {
			w.partition()
			w.after(hold, w.net.heal)
		}},
		{"lonely leader", 3, func(w *world, _ *node, hold time.Duration) {
			if leader := w.leader(); leader != nil {
				w.isolate(leader.number, true)
				leader.drift = 2
				w.after(hold, func() { leader.drift = 1 })
				w.after(hold, w.net.heal)
			}
		}},
		{"swizzle", 1, func(w *world, _ *node, hold time.Duration) { w.swizzle(hold) }},
		{"bad network", 2, func(w *world, _ *node, hold time.Duration) { w.net.badTo = w.now + hold }},
		{"pause", 3, func(w *world, n *node, hold time.Duration) { n.pausedTo = w.now + hold/2 }},
		{"tick skew", 2, func(_ *world, n *node, hold time.Duration) { n.skew(hold) }},
		{"clock jump", 1, func(w *world, n *node, _ time.Duration) {
			n.clock = w.between(-1000*time.Hour, 1000*time.Hour)
		}},
		{"slow disk", 2, func(w *world, n *node, hold time.Duration) { n.disk.slowTo = w.now + hold }},
		{"stuck disk", 1, func(w *world, n *node, hold time.Duration) { n.disk.stuckTo = w.now + hold + 2*time.Second }},
		{"disk error", 2, func(_ *world, n *node, hold time.Duration) { n.fill(hold / 2) }},
		{"flipped byte", 1, func(w *world, n *node, hold time.Duration) {
			if !w.someoneJoins() {
				n.stop(false)
				n.flip()
				w.after(hold/4, n.start)
			}
		}},
		{"lost disk", 1, func(_ *world, n *node, _ time.Duration) { n.lose() }},
		{"leave", 1, func(_ *world, n *node, _ time.Duration) { n.leave() }},
		{"transfer", 2, func(w *world, _ *node, _ time.Duration) {
			if leader := w.leader(); leader != nil {
				leader.do(leader.p.Transfer())
			}
		}},
		{"new keys", 2, func(_ *world, n *node, _ time.Duration) { n.reseal() }},
		{"new keys and a crash", 2, func(_ *world, n *node, _ time.Duration) {
			n.reseal()
			n.dieSoon(1, 40)
		}},
	}
}

// nemesis injects a fault, and comes back.
func (w *world) nemesis() {
	if w.done {
		return
	}
	w.after(w.between(time.Second/2, 6*time.Second), w.nemesis)
	if w.calm {
		return
	}
	all, sum := faults(), 0
	for _, f := range all {
		sum += f.weight
	}
	pick := w.rng.IntN(sum)
	for _, f := range all {
		if pick -= f.weight; pick < 0 {
			w.faults[f.name]++
			w.note(uint64(len(f.name)))
			f.do(w, w.anyNode(), w.between(100*time.Millisecond, 10*time.Second))
			return
		}
	}
}

// crash ends a process, with or without loss of power, and starts it again within a time.
func (w *world) crash(n *node, power bool, within time.Duration) {
	n.stop(power)
	w.after(w.between(5*time.Millisecond, max(within, 200*time.Millisecond)), n.start)
}

// storm crashes managers again and again, for a moment each, while the network is bad: elections fail halfway.
func (w *world) storm(until time.Duration) {
	if w.calm || w.now >= until {
		return
	}
	w.net.badTo = until
	w.crash(w.anyNode(), true, 0)
	w.after(w.between(50*time.Millisecond, 500*time.Millisecond), func() { w.storm(until) })
}

// skew makes a manager's ticks too fast or too slow for a while.
func (n *node) skew(hold time.Duration) {
	n.drift = 0.5 + 1.5*n.w.rng.Float64()
	n.w.after(hold, func() { n.drift = 1 })
}
