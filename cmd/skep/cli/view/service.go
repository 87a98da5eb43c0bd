package view

import (
	"cmp"
	"time"

	"github.com/skep-io/skep/api"
)

// Service is a wish for running tasks.
type Service struct {
	Meta
	Spec         ServiceSpec
	PreviousSpec *ServiceSpec  `json:",omitempty"`
	UpdateStatus *UpdateStatus `json:",omitempty"`
	// ServiceStatus counts tasks, where they were asked for.
	ServiceStatus *ServiceStatus `json:",omitempty"`
}

// ServiceStatus counts tasks.
type ServiceStatus struct {
	RunningTasks uint64
	// NotReadyTasks are those of them that are not ready; Docker has none.
	NotReadyTasks uint64 `json:",omitempty"`
	DesiredTasks  uint64
	// CompletedTasks are those of a job that ended well. TotalTasks is how many are to, which Docker does not say.
	CompletedTasks uint64 `json:",omitempty"`
	TotalTasks     uint64 `json:",omitempty"`
}

// UpdateStatus is the last rolling update.
type UpdateStatus struct {
	State       string
	StartedAt   time.Time
	CompletedAt *time.Time `json:",omitempty"`
	Message     string
}

// ServiceSpec is what people may change.
type ServiceSpec struct {
	Name           string
	Labels         map[string]string
	TaskTemplate   TaskSpec
	Mode           ServiceMode
	UpdateConfig   *UpdateConfig `json:",omitempty"`
	RollbackConfig *UpdateConfig `json:",omitempty"`
	EndpointSpec   *EndpointSpec `json:",omitempty"`
}

// ServiceMode says how many tasks.
type ServiceMode struct {
	Replicated *ReplicatedService `json:",omitempty"`
	Global     *GlobalService     `json:",omitempty"`

	ReplicatedJob *ReplicatedJob `json:",omitempty"`
	GlobalJob     *GlobalService `json:",omitempty"`
}

// ReplicatedJob is a number of tasks that are to end.
type ReplicatedJob struct{ MaxConcurrent, TotalCompletions uint64 }

// String returns the mode's name.
func (m ServiceMode) String() string {
	switch {
	case m.Global != nil:
		return "global"
	case m.ReplicatedJob != nil:
		return "replicated job"
	case m.GlobalJob != nil:
		return "global job"
	}
	return "replicated"
}

// GlobalService is a task on every node.
type GlobalService struct{}

// ReplicatedService is a fixed number of tasks.
type ReplicatedService struct{ Replicas uint64 }

// UpdateConfig is how tasks are replaced. Durations are nanoseconds in JSON, as everywhere here.
type UpdateConfig struct {
	Parallelism     uint64
	Delay           time.Duration `json:",omitempty"`
	FailureAction   string        `json:",omitempty"`
	Monitor         time.Duration `json:",omitempty"`
	MaxFailureRatio float32
	Order           string
	// Deadline is how long a new task may take until it runs; 0 is for ever.
	Deadline time.Duration `json:",omitempty"`
}

// EndpointSpec lists published ports.
type EndpointSpec struct {
	Ports []PortConfig `json:",omitempty"`
}

// PortConfig is one published port.
type PortConfig struct {
	Protocol      string
	TargetPort    uint32
	PublishedPort uint32 `json:",omitempty"`
	PublishMode   string
}

// NewService shows a service.
func NewService(s *api.Service) Service {
	out := Service{Meta: metaOf(s.GetId(), s.GetMeta()), Spec: newServiceSpec(s.GetSpec())}
	if previous := s.GetPreviousSpec(); previous != nil {
		spec := newServiceSpec(previous)
		out.PreviousSpec = &spec
	}
	if status := s.GetUpdateStatus(); status.GetState() != api.UpdateState_UPDATE_STATE_UNSPECIFIED {
		out.UpdateStatus = &UpdateStatus{
			State: UpdateState(status.GetState()), StartedAt: timeOf(status.GetStartedAt()), Message: status.GetMessage(),
		}
		if status.GetCompletedAt() != nil {
			completed := timeOf(status.GetCompletedAt())
			out.UpdateStatus.CompletedAt = &completed
		}
	}
	return out
}

// WithCounts adds the numbers of tasks.
func (s Service) WithCounts(counts *api.ServiceCounts) Service {
	s.ServiceStatus = &ServiceStatus{
		RunningTasks: counts.GetRunning(), NotReadyTasks: counts.GetNotReady(), DesiredTasks: counts.GetDesired(), CompletedTasks: counts.GetCompleted(), TotalTasks: counts.GetTotal(),
	}
	return s
}

func newServiceSpec(s *api.ServiceSpec) ServiceSpec {
	out := ServiceSpec{
		Name: s.GetAnnotations().GetName(), Labels: labelsOf(s.GetAnnotations().GetLabels()),
		TaskTemplate: newTaskSpec(s.GetTask()),
		EndpointSpec: newEndpointSpec(s.GetEndpoint()),
	}
	if replicated := s.GetReplicated(); replicated != nil {
		out.Mode.Replicated = &ReplicatedService{Replicas: replicated.GetReplicas()}
	}
	if s.GetGlobal() != nil {
		out.Mode.Global = &GlobalService{}
	}
	if job := s.GetReplicatedJob(); job != nil {
		out.Mode.ReplicatedJob = &ReplicatedJob{
			MaxConcurrent: cmp.Or(job.GetMaxConcurrent(), job.GetTotalCompletions()), TotalCompletions: job.GetTotalCompletions(),
		}
	}
	if s.GetGlobalJob() != nil {
		out.Mode.GlobalJob = &GlobalService{}
	}
	out.UpdateConfig, out.RollbackConfig = newUpdateConfig(s.GetUpdate()), newUpdateConfig(s.GetRollback())
	return out
}

func newUpdateConfig(u *api.UpdateConfig) *UpdateConfig {
	if u == nil {
		return nil
	}
	return &UpdateConfig{
		Parallelism: u.GetParallelism(), Delay: u.GetDelay().AsDuration(), FailureAction: FailureAction(u.GetFailureAction()),
		Monitor: u.GetMonitor().AsDuration(), MaxFailureRatio: u.GetMaxFailureRatio(), Order: UpdateOrder(u.GetOrder()),
		Deadline: u.GetDeadline().AsDuration(),
	}
}

func newEndpointSpec(e *api.EndpointSpec) *EndpointSpec {
	if e == nil {
		return nil
	}
	out := &EndpointSpec{}
	for _, port := range e.GetPorts() {
		out.Ports = append(out.Ports, PortConfig{
			Protocol: Protocol(port.GetProtocol()), TargetPort: port.GetTargetPort(),
			PublishedPort: port.GetPublishedPort(), PublishMode: PublishMode(port.GetPublishMode()),
		})
	}
	return out
}
