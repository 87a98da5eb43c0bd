package update

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
)

// defaultMonitor is for a spec that says nothing; Docker's.
const defaultMonitor = 5 * time.Second

// policy is how the tasks of a service are replaced now: as its update config says, or on the way back, its rollback config.
type policy struct {
	back        bool // it is a rollback
	parallelism uint64
	delay       time.Duration
	monitor     time.Duration
	deadline    time.Duration // 0 is none
	ratio       float32
	action      api.FailureAction
	order       api.UpdateOrder
}

// Way says how the tasks of a service are replaced now: how many at once, in what order, and how long after each other.
func Way(s *api.Service) *api.PlannedUpdate {
	p := policyOf(s)
	return &api.PlannedUpdate{Parallelism: p.parallelism, StartFirst: p.startsFirst(s), Delay: durationpb.New(p.delay)}
}

// startsFirst reports whether a new task starts before the old one stops.
func (p policy) startsFirst(s *api.Service) bool { return orchestrator.StartsFirst(s, p.order) }

func policyOf(s *api.Service) policy {
	var p policy
	config := s.GetSpec().GetUpdate()
	switch s.GetUpdateStatus().GetState() {
	case api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED:
		p.back = true
		config = s.GetSpec().GetRollback()
	}
	p.parallelism, p.monitor = 1, defaultMonitor
	if config == nil {
		return p
	}
	p.parallelism, p.delay, p.order = config.GetParallelism(), config.GetDelay().AsDuration(), config.GetOrder()
	p.deadline, p.ratio, p.action = config.GetDeadline().AsDuration(), config.GetMaxFailureRatio(), config.GetFailureAction()
	if config.GetMonitor() != nil {
		p.monitor = config.GetMonitor().AsDuration()
	}
	return p
}
