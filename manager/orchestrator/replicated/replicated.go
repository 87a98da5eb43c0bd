package replicated

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// New returns the loop; it runs on the leader only.
func New(cfg orchestrator.Config) (*orchestrator.Loop, error) {
	only := func(s *api.Service) bool { return s == nil || s.GetSpec().GetReplicated() != nil }
	return orchestrator.New("replicated", Step, cfg, orchestrator.Only(only), orchestrator.Heeds(heeds))
}

// heeds reports whether Step may decide otherwise because of a change of a task, whose slot v shows. What becomes of a slot's one live task, as
// of most tasks all their lives, matters only when it has to leave its node, or the slot lost all that made it count.
func heeds(v orchestrator.View, old, now *api.Task) bool {
	live := 0
	for _, t := range v.Tasks {
		if taskstate.Live(t) && !taskstate.Ended(t) {
			live++
		}
	}
	switch {
	case v.Service == nil:
		return old == nil // all others were told to go
	case old != nil && taskstate.Kept(old) && !slices.ContainsFunc(v.Tasks, taskstate.Kept):
		return true
	case live > 1, slices.ContainsFunc(v.Tasks, func(t *api.Task) bool { return v.Drained(t) || taskstate.Live(t) && v.Lost(t) }):
		return true
	case now == nil:
		return v.Drained(old) // it showed that its slot moves
	case old != nil && old.GetNodeId() != now.GetNodeId():
		// The scheduler chose by the task's placement, Step goes by the service's.
		return !proto.Equal(now.GetSpec().GetPlacement(), v.Service.GetSpec().GetTask().GetPlacement())
	default:
		return false
	}
}

// Step decides about all slots of one service.
func Step(now time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
	if v.Service == nil {
		return orchestrator.Stand(orchestrator.Remove(v.Tasks)), time.Time{}
	}
	if v.Service.GetSpec().GetReplicated() == nil {
		return nil, time.Time{}
	}
	all := taskstate.Slots(v.Tasks)
	kept := keptSlots(all)
	var effects []orchestrator.Effect
	wanted := v.Service.GetSpec().GetReplicated().GetReplicas()
	if uint64(len(kept)) > wanted {
		ordered := spare(v, all, kept)
		over := uint64(len(kept)) - wanted
		for _, slot := range ordered[:over] {
			effects = append(effects, orchestrator.Stand(orchestrator.Remove(all[slot]))...)
		}
		kept = slices.Sorted(slices.Values(ordered[over:]))
	}
	leave := evacuate(now, v, all, kept)
	effects = append(effects, leave.effects...)
	for _, slot := range kept {
		if e, ok := v.Rescue(slot, all[slot], leave.stays); ok {
			effects = append(effects, e)
		}
	}
	for slot, missing := uint64(1), wanted-uint64(len(kept)); missing > 0; slot++ {
		if _, taken := slices.BinarySearch(kept, slot); taken {
			continue
		}
		effects = append(effects, orchestrator.Effect{Create: v.Replacement(slot, all[slot], nil), Stands: len(all[slot]) == 0})
		missing--
	}
	return effects, leave.wake()
}

// keptSlots returns the slots that count, in ascending order.
func keptSlots(all map[uint64][]*api.Task) []uint64 {
	kept := slices.Sorted(maps.Keys(all))
	return slices.DeleteFunc(kept, func(slot uint64) bool { return !slices.ContainsFunc(all[slot], taskstate.Kept) })
}

// spare orders the kept slots: those that are removed first come first.
func spare(v orchestrator.View, all map[uint64][]*api.Task, kept []uint64) []uint64 {
	crowd := map[uint64]int{} // ready slots: how many lower ones are on the same node; others: a number above all
	seen := map[string]int{}
	for _, slot := range kept {
		node := readyNode(v, all[slot])
		crowd[slot] = seen[node]
		seen[node]++
		if node == "" {
			crowd[slot] = len(kept)
		}
	}
	return slices.SortedFunc(slices.Values(kept), func(a, b uint64) int {
		if c := cmp.Compare(crowd[b], crowd[a]); c != 0 {
			return c
		}
		return cmp.Compare(b, a)
	})
}

// readyNode returns the node on which a slot has a task that is ready, or "".
func readyNode(v orchestrator.View, tasks []*api.Task) string {
	for _, t := range tasks {
		if taskstate.Ready(t) && !v.Lost(t) {
			return t.GetNodeId()
		}
	}
	return ""
}
