package job

import (
	"maps"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

func global(v orchestrator.View) (effects []orchestrator.Effect) {
	all := taskstate.Slots(v.Tasks)
	slots := map[string]slot{} // by node
	for _, number := range slices.Sorted(maps.Keys(all)) {
		s := look(v, number, all[number])
		node := s.tasks[0].GetBoundNodeId()
		slots[node] = s
		switch {
		case v.Node(node) == nil:
			effects = append(effects, orchestrator.Remove(s.tasks)...)
		case v.Eligible.Keep[node] == nil:
			effects = append(effects, orchestrator.Remove(s.withdrawn())...)
		case s.place != free || !v.Eligible.Takes(node):
			effects = append(effects, s.keep()...)
		}
	}
	number := uint64(0)
	for _, node := range v.Eligible.Take {
		s, known := slots[node]
		if s.place != free {
			continue
		}
		if !known {
			for number++; all[number] != nil; number++ {
			}
			s.number = number
		}
		e := s.begin(v)
		e.Create.BoundNodeID = node
		effects = append(effects, e)
	}
	return effects
}

// withdrawn are the tasks that the slot of a node loses when it fits no more. With what is to run go the failures before it: alone, they
// would say that the slot had its tries, and the node would get no task when it fits again.
func (s slot) withdrawn() []*api.Task {
	active := slices.DeleteFunc(slices.Clone(s.tasks), idle)
	if len(active) > 0 && s.place != done {
		return s.tasks
	}
	return active
}

// idle reports whether a task is none that a node loses when it fits no more.
func idle(t *api.Task) bool { return !taskstate.Live(t) || taskstate.Ended(t) }
