package compose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// Condition is what a service is to have reached before another one is made.
type Condition string

// The words of depends_on.
const (
	Started   Condition = types.ServiceConditionStarted
	Healthy   Condition = types.ServiceConditionHealthy
	Completed Condition = types.ServiceConditionCompletedSuccessfully
)

// Need is a service that another one depends on.
type Need struct {
	// Name is the service's in the swarm.
	Name      string
	Condition Condition
}

// needs returns what a service waits for, in the order of names.
func (c converter) needs(s types.ServiceConfig) (out []Need) {
	for _, name := range slices.Sorted(maps.Keys(s.DependsOn)) {
		if _, there := c.project.Services[name]; there { // one that is not required may be of a profile that is off
			out = append(out, Need{Name: c.scoped(name), Condition: Condition(s.DependsOn[name].Condition)})
		}
	}
	return out
}

// wording says what a condition waits for.
func (c Condition) wording() string {
	switch c {
	case Healthy:
		return "healthy"
	case Completed:
		return "completed"
	default:
		return "running"
	}
}

// Progress is how far a service is on its way to a condition.
type Progress struct {
	Reached bool
	// Text says it in a few words.
	Text string
	// Failed says why the service never gets there as it is, or is empty.
	Failed string
}

// Of returns how far a service with these tasks is. counts are the managers'.
func (c Condition) Of(service *api.Service, tasks []*api.Task, counts *api.ServiceCounts) Progress {
	wanted, there := wantedTasks(service.GetSpec(), counts), uint64(0)
	var out Progress
	for _, task := range newestTasks(tasks) {
		status := task.GetStatus()
		complete := status.GetState() == api.TaskState_TASK_STATE_COMPLETE
		runs := status.GetState() == api.TaskState_TASK_STATE_RUNNING
		switch {
		case complete && (c != Healthy || isJob(service.GetSpec())):
			there++
		case runs && (c == Started || c == Healthy && (status.GetReadiness() == nil || status.GetReadiness().GetReady())):
			there++
		case status.GetState() > api.TaskState_TASK_STATE_RUNNING && final(task, service.GetSpec().GetTask().GetRestart()):
			out.Failed = cmp.Or(status.GetErr(), "a task ended")
		case status.GetErr() != "":
			out.Text = ": " + status.GetErr()
		}
	}
	out.Reached = there >= wanted
	out.Text = fmt.Sprintf("%d out of %d tasks %s%s", min(there, wanted), wanted, c.wording(), out.Text)
	return out
}

func isJob(spec *api.ServiceSpec) bool {
	return spec.GetReplicatedJob() != nil || spec.GetGlobalJob() != nil
}

// wantedTasks is the number of tasks that a service is to have, or a job is to complete.
func wantedTasks(spec *api.ServiceSpec, counts *api.ServiceCounts) uint64 {
	switch {
	case spec.GetReplicatedJob() != nil:
		return spec.GetReplicatedJob().GetTotalCompletions()
	case spec.GetGlobalJob() != nil:
		return counts.GetTotal()
	case spec.GetReplicated() != nil:
		return spec.GetReplicated().GetReplicas()
	default:
		return counts.GetDesired()
	}
}

// newestTasks returns the last task of each slot.
func newestTasks(tasks []*api.Task) []*api.Task {
	type slot struct {
		number uint64
		node   string
	}
	newest := map[slot]*api.Task{}
	for _, task := range tasks {
		at := slot{task.GetSlot(), task.GetBoundNodeId()}
		if other := newest[at]; other == nil || task.GetMeta().GetCreatedAt().AsTime().After(other.GetMeta().GetCreatedAt().AsTime()) {
			newest[at] = task
		}
	}
	return slices.SortedFunc(maps.Values(newest), func(a, b *api.Task) int { return cmp.Compare(a.GetSlot(), b.GetSlot()) })
}

// final reports whether no task follows one that ended. Within a window attempts count anew, so that nobody knows there.
func final(task *api.Task, policy *api.RestartPolicy) bool {
	if task.GetStatus().GetState() == api.TaskState_TASK_STATE_SHUTDOWN {
		return false // it was told to: another one follows
	}
	most := policy.GetMaxAttempts()
	return policy.GetCondition() == api.RestartCondition_RESTART_CONDITION_NONE ||
		most > 0 && policy.GetWindow().AsDuration() == 0 && task.GetRestartCount() >= most
}

// checkNeeds refuses a wait for the end of a service that never ends.
func checkNeeds(stack *Stack, specs map[string]*api.ServiceSpec) error {
	for _, service := range stack.Services {
		for _, need := range service.Needs {
			spec := specs[need.Name]
			if condition := spec.GetTask().GetRestart().GetCondition(); need.Condition == Completed && !isJob(spec) &&
				condition != api.RestartCondition_RESTART_CONDITION_NONE && condition != api.RestartCondition_RESTART_CONDITION_ON_FAILURE {
				return fault.New(fault.Invalid, "service %s: depends_on: %s is started again whenever it ends, and never completes: write deploy.mode: replicated-job for it", service.Name, need.Name)
			}
		}
	}
	return nil
}
