package global

import (
	"maps"
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// New returns the loop; it runs on the leader only.
func New(cfg orchestrator.Config) (*orchestrator.Loop, error) {
	isGlobal := func(s *api.Service) bool { return s.GetSpec().GetGlobal() != nil }
	return orchestrator.New("global", Step, cfg, orchestrator.Only(isGlobal), orchestrator.EveryNode(isGlobal))
}

// Step decides about all slots of one service.
func Step(_ time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
	if v.Service.GetSpec().GetGlobal() == nil {
		return nil, time.Time{}
	}
	slots := taskstate.Slots(v.Tasks)
	slotOf := map[string]uint64{}
	has := map[string]bool{}
	var effects []orchestrator.Effect
	for _, slot := range slices.Sorted(maps.Keys(slots)) {
		node := slots[slot][0].GetBoundNodeId()
		slotOf[node] = slot
		if v.Eligible.Keep[node] == nil {
			effects = append(effects, orchestrator.Remove(slots[slot])...)
			continue
		}
		has[node] = has[node] || slices.ContainsFunc(slots[slot], taskstate.Kept)
	}
	free := uint64(1)
	for _, node := range v.Eligible.Take {
		if has[node] {
			continue
		}
		slot, known := slotOf[node]
		for !known && slots[free] != nil {
			free++
		}
		if !known {
			slot = free
			free++
		}
		effects = append(effects, create(v, slot, slots[slot], node))
	}
	return effects, time.Time{}
}

// create makes a node's task in its slot, which may have tasks that still stop.
func create(v orchestrator.View, slot uint64, tasks []*api.Task, node string) orchestrator.Effect {
	c := v.Replacement(slot, tasks, nil)
	c.BoundNodeID = node
	return orchestrator.Effect{Create: c}
}
