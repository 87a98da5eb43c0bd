package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/specdiff"
)

// Plan is what a change of a service would do. Docker has none.
type Plan struct {
	// ServiceID is empty for a new service.
	ServiceID   string `json:",omitempty"`
	ServiceName string `json:",omitempty"`
	// Changes are in what the spec would differ; none when nothing would change.
	Changes []specdiff.Difference
	// Tasks are those that something happens to, in that order, then the others.
	Tasks        []PlannedTask
	TasksLeftOut uint32 `json:",omitempty"`
	Warnings     []string
	// Update is nil when no task is replaced.
	Update *PlannedUpdate `json:",omitempty"`
}

// PlannedTask is what becomes of a task.
type PlannedTask struct {
	Slot uint64
	// TaskID and NodeID are of the task that there is; empty for a new one.
	TaskID   string `json:",omitempty"`
	NodeID   string `json:",omitempty"`
	Hostname string `json:",omitempty"`
	// Action is stay, replace, remove or create.
	Action string
	Why    string `json:",omitempty"`
	// ToNodeID is where the new task goes; where it is empty and a new one is to be, the refusal says why.
	ToNodeID   string `json:",omitempty"`
	ToHostname string `json:",omitempty"`
	Refusal    string `json:",omitempty"`
	// Step numbers what happens at once; 0 is nothing, or too far ahead to be known.
	Step uint32 `json:",omitempty"`
}

// PlannedUpdate is how tasks are replaced.
type PlannedUpdate struct {
	Parallelism uint64 // 0 is all at once
	StartFirst  bool
	Delay       time.Duration
	// AtLeast is how long it takes when tasks start and stop at once; 0 is not known.
	AtLeast time.Duration
	Stops   string `json:",omitempty"`
}

// NewPlan converts a plan.
func NewPlan(p *api.PlanServiceResponse) Plan {
	out := Plan{
		ServiceID: p.GetServiceId(), ServiceName: p.GetServiceName(), Changes: []specdiff.Difference{}, Tasks: []PlannedTask{},
		TasksLeftOut: p.GetTasksLeftOut(), Warnings: append([]string{}, p.GetWarnings()...),
	}
	for _, c := range p.GetChanges() {
		out.Changes = append(out.Changes, specdiff.Difference{Field: c.GetField(), Old: c.GetOld(), New: c.GetNew()})
	}
	for _, t := range p.GetTasks() {
		out.Tasks = append(out.Tasks, PlannedTask{
			Slot: t.GetSlot(), TaskID: t.GetTaskId(), NodeID: t.GetNodeId(), Hostname: t.GetHostname(), Why: t.GetWhy(),
			Action:   strings.ToLower(strings.TrimPrefix(t.GetAction().String(), "PLANNED_ACTION_")),
			ToNodeID: t.GetToNodeId(), ToHostname: t.GetToHostname(), Refusal: t.GetRefusal(), Step: t.GetStep(),
		})
	}
	if u := p.GetUpdate(); u != nil {
		out.Update = &PlannedUpdate{
			Parallelism: u.GetParallelism(), StartFirst: u.GetStartFirst(), Delay: u.GetDelay().AsDuration(),
			AtLeast: u.GetAtLeast().AsDuration(), Stops: u.GetStops(),
		}
	}
	return out
}

// String says in a line how tasks are replaced.
func (u PlannedUpdate) String() string {
	text := "Replaced all at once"
	if u.Parallelism > 0 {
		text = fmt.Sprintf("Replaced %d at a time", u.Parallelism)
	}
	if u.StartFirst {
		text += ", the new one first"
	}
	if u.Delay > 0 {
		text += fmt.Sprintf(", %v apart", u.Delay)
	}
	if u.Stops != "" {
		return text + "; it would stop: " + u.Stops
	}
	return text + "."
}
