package control

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/logdriver"
	"github.com/skep-io/skep/manager/taskstate"
)

// Docker's defaults, in seconds where they are times.
const (
	defaultReplicas     = 1
	defaultRestartDelay = 5
	defaultGracePeriod  = 10
	defaultParallelism  = 1
	defaultMonitor      = 5
	defaultMaxDelay     = 300 // of an exponential back-off; Kubernetes'
	defaultSecretMode   = 0o444
	// defaultDeadline is Kubernetes': Swarm waits for ever for a task that no node takes, and says nothing.
	defaultDeadline = 600
)

// orNew makes the message at field when there is none.
func orNew[T any](field **T) *T {
	if *field == nil {
		*field = new(T)
	}
	return *field
}

// fillService spells out the defaults of a spec that nobody else can see yet (C3).
func fillService(spec *api.ServiceSpec) {
	orNew(&spec.Annotations)
	if modeOf(spec) == "" {
		spec.Replicated = &api.ReplicatedService{Replicas: defaultReplicas}
	}
	if !taskstate.Job(spec) {
		fillUpdate(&spec.Update)
		fillUpdate(&spec.Rollback)
	}
	for _, port := range orNew(&spec.Endpoint).GetPorts() {
		fillPort(port)
	}
	fillTask(orNew(&spec.Task))
	if taskstate.Job(spec) && spec.Task.Restart.Condition == api.RestartCondition_RESTART_CONDITION_ANY {
		spec.Task.Restart.Condition = api.RestartCondition_RESTART_CONDITION_ON_FAILURE // what ended well is done
	}
}

// fillUpdate spells out how tasks are replaced, or go back.
func fillUpdate(config **api.UpdateConfig) {
	if *config == nil {
		*config = &api.UpdateConfig{Parallelism: defaultParallelism}
	}
	u := *config
	if u.GetDelay() == nil {
		u.Delay = seconds(0)
	}
	if u.GetMonitor() == nil {
		u.Monitor = seconds(defaultMonitor)
	}
	if u.GetDeadline() == nil {
		u.Deadline = seconds(defaultDeadline)
	}
	if u.GetOrder() == api.UpdateOrder_UPDATE_ORDER_UNSPECIFIED {
		u.Order = api.UpdateOrder_UPDATE_ORDER_STOP_FIRST
	}
	if u.GetFailureAction() == api.FailureAction_FAILURE_ACTION_UNSPECIFIED {
		u.FailureAction = api.FailureAction_FAILURE_ACTION_PAUSE
	}
}

func fillPort(port *api.PortConfig) {
	if port.GetProtocol() == api.Protocol_PROTOCOL_UNSPECIFIED {
		port.Protocol = api.Protocol_PROTOCOL_TCP
	}
	if port.GetPublishMode() == api.PublishMode_PUBLISH_MODE_UNSPECIFIED {
		port.PublishMode = api.PublishMode_PUBLISH_MODE_HOST
	}
	if port.GetPublishedPort() == 0 {
		port.PublishedPort = port.GetTargetPort()
	}
}

func fillTask(task *api.TaskSpec) {
	for _, m := range task.GetContainer().GetMounts() {
		m.ReadOnly = m.GetReadOnly() || m.GetType() == api.MountType_MOUNT_TYPE_IMAGE // nobody writes to an image
	}
	if l := task.GetLogDriver(); l != nil {
		l.Name = logdriver.Name(l.GetName())
	}
	orNew(&orNew(&task.Resources).Limits)
	orNew(&task.Resources.Reservations)
	orNew(&task.Placement)
	restart := orNew(&task.Restart)
	if restart.GetCondition() == api.RestartCondition_RESTART_CONDITION_UNSPECIFIED {
		restart.Condition = api.RestartCondition_RESTART_CONDITION_ANY
	}
	if restart.GetDelay() == nil {
		restart.Delay = seconds(defaultRestartDelay)
	}
	if restart.GetBackoff() == api.RestartBackoff_RESTART_BACKOFF_EXPONENTIAL && restart.GetMaxDelay() == nil {
		restart.MaxDelay = durationpb.New(max(defaultMaxDelay*time.Second, restart.GetDelay().AsDuration()))
	}
	if restart.GetWindow() == nil {
		restart.Window = seconds(0)
	}
	container := orNew(&task.Container)
	if container.GetStopGracePeriod() == nil {
		container.StopGracePeriod = seconds(defaultGracePeriod)
	}
	for _, reference := range slices.Concat(container.GetSecrets(), container.GetConfigs()) {
		if target := orNew(&reference.Target); target.GetMode() == 0 {
			target.Mode = defaultSecretMode
		}
	}
	normalizeCapabilities(container.GetCapabilityAdd())
	normalizeCapabilities(container.GetCapabilityDrop())
}

// normalizeCapabilities turns net_admin into CAP_NET_ADMIN, and all into ALL.
func normalizeCapabilities(names []string) {
	for i, name := range names {
		name = strings.ToUpper(strings.TrimSpace(name))
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		names[i] = name
	}
}

// fillCluster spells out the defaults of a spec that nobody else can see yet (C3). Most numbers have none: 0 is what somebody asked
// for. No backups kept at all is nothing that anybody asks for.
func fillCluster(spec *api.ClusterSpec) {
	defaults := DefaultClusterSpec()
	if orNew(&spec.Annotations).GetName() == "" {
		spec.Annotations.Name = defaults.GetAnnotations().GetName()
	}
	if spec.GetCertExpiry() == nil {
		spec.CertExpiry = defaults.GetCertExpiry()
	}
	if spec.GetDispatcherHeartbeat() == nil {
		spec.DispatcherHeartbeat = defaults.GetDispatcherHeartbeat()
	}
	if spec.GetDataKeyRotation() == nil {
		spec.DataKeyRotation = defaults.GetDataKeyRotation()
	}
	if spec.GetBackupRetention() == 0 {
		spec.BackupRetention = defaults.GetBackupRetention()
	}
}

// DefaultClusterSpec returns the spec of a new cluster: Swarm's defaults, and data keys that change monthly: a key that leaked
// opens a month, and nobody has to think of it.
func DefaultClusterSpec() *api.ClusterSpec {
	return &api.ClusterSpec{
		Annotations:         &api.Annotations{Name: "default"},
		CertExpiry:          seconds(90 * 24 * 3600),
		DispatcherHeartbeat: seconds(5),
		TaskHistoryLimit:    5,
		SnapshotInterval:    10000,
		DataKeyRotation:     seconds(30 * 24 * 3600),
		BackupRetention:     7,
	}
}

// sameTemplate reports whether two specs make the same tasks, wherever those are placed.
func sameTemplate(a, b *api.ServiceSpec) bool {
	left, right := proto.CloneOf(a.GetTask()), proto.CloneOf(b.GetTask())
	left.Placement, right.Placement = nil, nil
	return proto.Equal(left, right) && proto.Equal(a.GetEndpoint(), b.GetEndpoint())
}
