package view

import (
	"fmt"
	"strconv"
	"time"

	"github.com/skep-io/skep/api"
)

// Task is one try of one slot of a service.
type Task struct {
	Meta
	Spec         TaskSpec
	ServiceID    string
	ServiceName  string
	Slot         uint64
	NodeID       string `json:",omitempty"`
	Status       TaskStatus
	DesiredState string
	// GenericResources are what the task has of its node's.
	GenericResources []GenericResource `json:",omitempty"`
	// SpiffeID is whom the task's certificate names; Docker has none.
	SpiffeID string `json:",omitempty"`
}

// TaskStatus is what the node says of the task.
type TaskStatus struct {
	Timestamp       time.Time
	State           string
	Message         string           `json:",omitempty"`
	Err             string           `json:",omitempty"`
	ContainerStatus *ContainerStatus `json:",omitempty"`
	Readiness       *Readiness       `json:",omitempty"`
}

// ContainerStatus is the container behind a task.
type ContainerStatus struct {
	ContainerID string
	PID         int32
	ExitCode    int32
	OOMKilled   bool   `json:",omitempty"`
	Address     string `json:",omitempty"`
	// Isolation is what isolates the container. Docker has none.
	Isolation []string `json:",omitempty"`
	// Health is what checks say, as State.Health of Docker's containers; its tasks have none.
	Health *Health `json:",omitempty"`
}

// TaskSpec is the template of tasks.
type TaskSpec struct {
	ContainerSpec *ContainerSpec        `json:",omitempty"`
	Resources     *ResourceRequirements `json:",omitempty"`
	RestartPolicy *RestartPolicy        `json:",omitempty"`
	Placement     *Placement            `json:",omitempty"`
	ForceUpdate   uint64
	LogDriver     *LogDriver `json:",omitempty"`
}

// LogDriver is where the output of containers goes.
type LogDriver struct {
	Name    string
	Options map[string]string `json:",omitempty"`
}

// ResourceRequirements are bounds and reservations.
type ResourceRequirements struct {
	Limits       *Resources `json:",omitempty"`
	Reservations *Resources `json:",omitempty"`
	// MemorySwap is memory and swap together in bytes; -1 is no limit.
	MemorySwap  int64        `json:",omitempty"`
	CpusetCpus  string       `json:",omitempty"`
	DeviceRates []DeviceRate `json:",omitempty"`
	NetworkRate *NetworkRate `json:",omitempty"`
}

// NetworkRate are bounds on what a task receives and sends, in bits a second; 0 is none.
type NetworkRate struct {
	In  uint64 `json:",omitempty"`
	Out uint64 `json:",omitempty"`
}

// DeviceRate are bounds on a device of the node, in bytes and operations a second; 0 is none.
type DeviceRate struct {
	Path      string
	ReadBps   uint64 `json:",omitempty"`
	WriteBps  uint64 `json:",omitempty"`
	ReadIOps  uint64 `json:",omitempty"`
	WriteIOps uint64 `json:",omitempty"`
}

// RestartPolicy says when an ended task is replaced.
type RestartPolicy struct {
	Condition   string         `json:",omitempty"`
	Delay       *time.Duration `json:",omitempty"`
	MaxAttempts uint64
	Window      *time.Duration `json:",omitempty"`
	// Backoff and MaxDelay are what Docker lacks.
	Backoff  string         `json:",omitempty"`
	MaxDelay *time.Duration `json:",omitempty"`
}

// Placement restricts the nodes.
type Placement struct {
	Constraints []string              `json:",omitempty"`
	Preferences []PlacementPreference `json:",omitempty"`
	MaxReplicas uint64                `json:",omitempty"`
	// Strategy is spread or binpack, or empty for spread.
	Strategy string `json:",omitempty"`
}

// PlacementPreference says what the tasks are divided by.
type PlacementPreference struct{ Spread SpreadOver }

// SpreadOver is the label of a preference.
type SpreadOver struct{ SpreadDescriptor string }

// ContainerSpec is the process of a task.
type ContainerSpec struct {
	Image           string
	Labels          map[string]string `json:",omitempty"`
	Command         []string          `json:",omitempty"`
	Args            []string          `json:",omitempty"`
	Hostname        string            `json:",omitempty"`
	Env             []string          `json:",omitempty"`
	Dir             string            `json:",omitempty"`
	User            string            `json:",omitempty"`
	ReadOnly        bool              `json:",omitempty"`
	StopSignal      string            `json:",omitempty"`
	StopGracePeriod *time.Duration    `json:",omitempty"`
	Secrets         []SecretReference `json:",omitempty"`
	Configs         []ConfigReference `json:",omitempty"`
	SecretOffline   bool              `json:",omitempty"`
	Mounts          []Mount           `json:",omitempty"`
	Grants          []GrantReference  `json:",omitempty"`
	CapabilityAdd   []string          `json:",omitempty"`
	CapabilityDrop  []string          `json:",omitempty"`
	Groups          []string          `json:",omitempty"`
	TTY             bool              `json:",omitempty"`
	Init            bool              `json:",omitempty"`
	Sysctls         map[string]string `json:",omitempty"`
	Ulimits         []Ulimit          `json:",omitempty"`
	OomScoreAdj     int64             `json:",omitempty"`
	ShmSize         int64             `json:",omitempty"`
	StorageSize     int64             `json:",omitempty"`
	Healthcheck     *Healthcheck      `json:",omitempty"`
	Hosts           []string          `json:",omitempty"`
	DNSConfig       *DNSConfig        `json:",omitempty"`
	// Readycheck is how it is found out whether a task is ready. Docker has none.
	Readycheck *Healthcheck `json:",omitempty"`
	Privileges *Privileges  `json:",omitempty"`
}

// Healthcheck is how a container's health is checked.
type Healthcheck struct {
	Test          []string       `json:",omitempty"`
	Interval      *time.Duration `json:",omitempty"`
	Timeout       *time.Duration `json:",omitempty"`
	StartPeriod   *time.Duration `json:",omitempty"`
	StartInterval *time.Duration `json:",omitempty"`
	Retries       uint32         `json:",omitempty"`
}

// DNSConfig is what a container has in /etc/resolv.conf instead of what its node has.
type DNSConfig struct {
	Nameservers []string `json:",omitempty"`
	Search      []string `json:",omitempty"`
	Options     []string `json:",omitempty"`
}

// Ulimit is a resource limit of the process; -1 is none.
type Ulimit struct {
	Name       string
	Hard, Soft int64
}

// ConfigReference gives a task one config.
type ConfigReference struct {
	ConfigID   string
	ConfigName string
	File       SecretFile
	ValueChoice
}

// ValueChoice says which version of a secret or config is given, and whether it stays that one. OnChange is signal:NAME or none where tasks
// get new values in their files, and empty where they are replaced.
type ValueChoice struct {
	Version  uint64 `json:",omitempty"`
	Pinned   bool   `json:",omitempty"`
	OnChange string `json:",omitempty"`
}

// Of names what has a version, for people.
func (c ValueChoice) Of(name string) string {
	switch {
	case c.Pinned:
		return fmt.Sprintf("%s@%d", name, c.Version)
	case c.Version > 1:
		return fmt.Sprintf("%s (version %d)", name, c.Version)
	default:
		return name
	}
}

// SecretReference gives a task one secret.
type SecretReference struct {
	File       SecretFile
	SecretID   string
	SecretName string
	ValueChoice
}

// SecretFile is the file that a secret becomes. Docker's ids are strings.
type SecretFile struct {
	Name string
	UID  uint32 `json:",string"`
	GID  uint32 `json:",string"`
	Mode uint32
}

// Mount is a file system of a container.
type Mount struct {
	Type          string
	Source        string `json:",omitempty"`
	Target        string
	ReadOnly      bool           `json:",omitempty"`
	BindOptions   *BindOptions   `json:",omitempty"`
	TmpfsOptions  *TmpfsOptions  `json:",omitempty"`
	VolumeOptions *VolumeOptions `json:",omitempty"`
	ImageOptions  *ImageOptions  `json:",omitempty"`
}

// ImageOptions say what of an image is shown.
type ImageOptions struct {
	Subpath string
}

// BindOptions say how mounts travel between a bind mount and the node, and what becomes of those below its source, in the words of
// Docker's API.
type BindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

// VolumeOptions say what of a volume is shown, whether it begins empty, and whether tasks may leave the node that has it, which Docker's
// always may.
type VolumeOptions struct {
	NoCopy   bool   `json:",omitempty"`
	Subpath  string `json:",omitempty"`
	Anywhere bool   `json:",omitempty"`
}

// TmpfsOptions are a size in bytes and permission bits, and options as Docker's API has them: [["exec"],["uid","1000"]].
type TmpfsOptions struct {
	SizeBytes int64      `json:",omitempty"`
	Mode      uint32     `json:",omitempty"`
	Options   [][]string `json:",omitempty"`
}

// TaskName returns the name of a task's place: web.1.
func TaskName(service string, slot uint64) string {
	return service + "." + strconv.FormatUint(slot, 10)
}

// NewTask shows a task.
func NewTask(t *api.Task) Task {
	status := t.GetStatus()
	out := Task{
		Meta: metaOf(t.GetId(), t.GetMeta()), Spec: newTaskSpec(t.GetSpec()), ServiceID: t.GetServiceId(),
		ServiceName: t.GetServiceName(), Slot: t.GetSlot(), NodeID: t.GetNodeId(), DesiredState: TaskState(t.GetDesiredState()),
		SpiffeID: t.GetSpiffeId(), GenericResources: genericOf(t.GetGenericResources()),
		Status: TaskStatus{
			Timestamp: timeOf(status.GetTimestamp()), State: TaskState(status.GetState()),
			Message: status.GetMessage(), Err: status.GetErr(), Readiness: newReadiness(status),
		},
	}
	if c := status.GetContainer(); c != nil {
		out.Status.ContainerStatus = &ContainerStatus{
			ContainerID: c.GetContainerId(), PID: c.GetPid(), ExitCode: c.GetExitCode(),
			OOMKilled: c.GetOomKilled(), Address: c.GetAddress(),
			Isolation: c.GetIsolation(), Health: newHealth(c.GetHealth(), c.GetHealthChecks()),
		}
	}
	return out
}

func newTaskSpec(s *api.TaskSpec) TaskSpec {
	out := TaskSpec{ContainerSpec: newContainerSpec(s.GetContainer()), ForceUpdate: s.GetForceUpdate()}
	if l := s.GetLogDriver(); l != nil {
		out.LogDriver = &LogDriver{l.GetName(), l.GetOptions()}
	}
	if r := s.GetResources(); r != nil {
		out.Resources = requirements(r)
	}
	if r := s.GetRestart(); r != nil {
		out.RestartPolicy = &RestartPolicy{
			Condition: RestartCondition(r.GetCondition()), Delay: durationOf(r.GetDelay()),
			MaxAttempts: r.GetMaxAttempts(), Window: durationOf(r.GetWindow()),
			Backoff: word(r.GetBackoff().String(), "RESTART_BACKOFF_"), MaxDelay: durationOf(r.GetMaxDelay()),
		}
	}
	if p := s.GetPlacement(); p != nil {
		out.Placement = &Placement{Constraints: p.GetConstraints(), MaxReplicas: p.GetMaxReplicas(), Strategy: word(p.GetStrategy().String(), "PLACEMENT_STRATEGY_")}
		for _, preference := range p.GetPreferences() {
			out.Placement.Preferences = append(out.Placement.Preferences, PlacementPreference{SpreadOver{preference.GetSpread()}})
		}
	}
	return out
}

func requirements(r *api.ResourceRequirements) *ResourceRequirements {
	out := &ResourceRequirements{
		Limits: resources(r.GetLimits()), Reservations: resources(r.GetReservations()),
		MemorySwap: r.GetMemorySwapBytes(), CpusetCpus: r.GetCpusetCpus(),
	}
	if n := r.GetNetworkRate(); n != nil {
		out.NetworkRate = &NetworkRate{n.GetInBps(), n.GetOutBps()}
	}
	for _, d := range r.GetDeviceRates() {
		out.DeviceRates = append(out.DeviceRates, DeviceRate{
			Path: d.GetPath(), ReadBps: d.GetReadBps(), WriteBps: d.GetWriteBps(), ReadIOps: d.GetReadIops(), WriteIOps: d.GetWriteIops(),
		})
	}
	return out
}

func resources(r *api.Resources) *Resources {
	if r == nil {
		return nil
	}
	out := resourcesOf(r)
	return &out
}

func newContainerSpec(c *api.ContainerSpec) *ContainerSpec {
	if c == nil {
		return nil
	}
	out := &ContainerSpec{
		Image: c.GetImage(), Labels: c.GetLabels(), Command: c.GetCommand(), Args: c.GetArgs(), Hostname: c.GetHostname(),
		Env: c.GetEnv(), Dir: c.GetDir(), User: c.GetUser(), ReadOnly: c.GetReadOnly(), StopSignal: c.GetStopSignal(),
		StopGracePeriod: durationOf(c.GetStopGracePeriod()),
		Grants:          grantReferences(c.GetGrants()),
		CapabilityAdd:   c.GetCapabilityAdd(), CapabilityDrop: c.GetCapabilityDrop(),
		Groups: c.GetGroups(), TTY: c.GetTty(), Init: c.GetInit(), Sysctls: c.GetSysctls(), OomScoreAdj: c.GetOomScoreAdj(),
		ShmSize: c.GetShmSizeBytes(), StorageSize: c.GetStorageSizeBytes(), Privileges: newPrivileges(c.GetPrivileges()),
	}
	out.SecretOffline, out.Hosts = c.GetSecretOffline(), c.GetHosts()
	if d := c.GetDns(); d != nil {
		out.DNSConfig = &DNSConfig{d.GetNameservers(), d.GetSearch(), d.GetOptions()}
	}
	out.Healthcheck, out.Readycheck = newCheck(c.GetHealth()), newCheck(c.GetReady())
	for _, u := range c.GetUlimits() {
		out.Ulimits = append(out.Ulimits, Ulimit{Name: u.GetName(), Hard: u.GetHard(), Soft: u.GetSoft()})
	}
	for _, s := range c.GetSecrets() {
		out.Secrets = append(out.Secrets, SecretReference{SecretID: s.GetSecretId(), SecretName: s.GetSecretName(), File: secretFile(s), ValueChoice: choiceOf(s)})
	}
	for _, s := range c.GetConfigs() {
		out.Configs = append(out.Configs, ConfigReference{ConfigID: s.GetSecretId(), ConfigName: s.GetSecretName(), File: secretFile(s), ValueChoice: choiceOf(s)})
	}
	for _, m := range c.GetMounts() {
		out.Mounts = append(out.Mounts, newMount(m))
	}
	return out
}

func choiceOf(r *api.SecretReference) ValueChoice {
	return ValueChoice{Version: r.GetVersion(), Pinned: r.GetPinned(), OnChange: onChange(r)}
}

// onChange is as a flag has it.
func onChange(r *api.SecretReference) string {
	switch r.GetOnChange() {
	case api.OnChange_ON_CHANGE_UNSPECIFIED:
		return ""
	case api.OnChange_ON_CHANGE_SIGNAL:
		return "signal:" + r.GetSignal()
	case api.OnChange_ON_CHANGE_NONE:
		return "none"
	default:
		return r.GetOnChange().String()
	}
}

func secretFile(r *api.SecretReference) SecretFile {
	t := r.GetTarget()
	return SecretFile{Name: t.GetName(), UID: t.GetUid(), GID: t.GetGid(), Mode: t.GetMode()}
}

func newMount(m *api.Mount) Mount {
	out := Mount{Type: MountType(m.GetType()), Source: m.GetSource(), Target: m.GetTarget(), ReadOnly: m.GetReadOnly()}
	tmpfs := TmpfsOptions{SizeBytes: m.GetTmpfsSizeBytes(), Mode: m.GetTmpfsMode()}
	if m.GetTmpfsExec() {
		tmpfs.Options = append(tmpfs.Options, []string{"exec"})
	}
	if id := m.GetTmpfsUid(); id != 0 {
		tmpfs.Options = append(tmpfs.Options, []string{"uid", strconv.FormatUint(uint64(id), 10)})
	}
	if id := m.GetTmpfsGid(); id != 0 {
		tmpfs.Options = append(tmpfs.Options, []string{"gid", strconv.FormatUint(uint64(id), 10)})
	}
	if tmpfs.SizeBytes != 0 || tmpfs.Mode != 0 || tmpfs.Options != nil {
		out.TmpfsOptions = &tmpfs
	}
	bind := BindOptions{
		Propagation:            propagationWord(m.GetBindPropagation()),
		NonRecursive:           m.GetBindRecursive() == api.BindRecursive_BIND_RECURSIVE_DISABLED,
		ReadOnlyNonRecursive:   m.GetBindRecursive() == api.BindRecursive_BIND_RECURSIVE_WRITABLE,
		ReadOnlyForceRecursive: m.GetBindRecursive() == api.BindRecursive_BIND_RECURSIVE_READONLY,
	}
	if bind != (BindOptions{}) {
		out.BindOptions = &bind
	}
	if sub := m.GetImageSubpath(); sub != "" {
		out.ImageOptions = &ImageOptions{sub}
	}
	if volume := (VolumeOptions{m.GetVolumeNoCopy(), m.GetVolumeSubpath(), m.GetVolumeAnywhere()}); volume != (VolumeOptions{}) {
		out.VolumeOptions = &volume
	}
	return out
}
