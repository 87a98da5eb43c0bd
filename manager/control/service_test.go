package control_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func TestCreateService_SpellsOutTheDefaults(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "db")
	service := s.createService(t, web(func(spec *api.ServiceSpec) {
		spec.Task.Container.Secrets = []*api.SecretReference{{SecretName: "db"}}
		spec.Task.Container.CapabilityAdd = []string{"net_raw", "cap_kill"}
		spec.Endpoint = &api.EndpointSpec{Ports: []*api.PortConfig{{TargetPort: 80}}}
	}))
	secret := storetest.List[*api.Secret](t, s.store)[0]
	replacing := &api.UpdateConfig{
		Parallelism: 1, Delay: &durationpb.Duration{}, Order: api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, Monitor: durationpb.New(5 * time.Second),
		Deadline: durationpb.New(10 * time.Minute), FailureAction: api.FailureAction_FAILURE_ACTION_PAUSE,
	}
	want := &api.ServiceSpec{
		Annotations: &api.Annotations{Name: "web"},
		Replicated:  &api.ReplicatedService{Replicas: 1},
		Update:      replacing, Rollback: replacing,
		Endpoint: &api.EndpointSpec{Ports: []*api.PortConfig{{
			TargetPort: 80, PublishedPort: 80, Protocol: api.Protocol_PROTOCOL_TCP, PublishMode: api.PublishMode_PUBLISH_MODE_HOST,
		}}},
		Task: &api.TaskSpec{
			Resources: &api.ResourceRequirements{Limits: &api.Resources{}, Reservations: &api.Resources{}},
			Placement: &api.Placement{},
			Restart: &api.RestartPolicy{
				Condition: api.RestartCondition_RESTART_CONDITION_ANY, Delay: durationpb.New(5 * time.Second), Window: &durationpb.Duration{},
			},
			Container: &api.ContainerSpec{
				Image: "docker.io/library/app:1@" + digestA, StopGracePeriod: durationpb.New(10 * time.Second),
				CapabilityAdd: []string{"CAP_NET_RAW", "CAP_KILL"},
				Secrets: []*api.SecretReference{{
					SecretId: secret.GetId(), SecretName: "db", Version: 1, Target: &api.SecretTarget{Name: "db", Mode: 0o444},
				}},
			},
		},
	}
	if diff := cmp.Diff(want, service.GetSpec(), protocmp.Transform()); diff != "" {
		t.Errorf("stored spec (-want +got):\n%s", diff)
	}
	if service.GetSpecVersion() != 1 || service.GetMeta().GetVersion() == 0 || !object.ValidID(service.GetId()) {
		t.Errorf("got id %q, spec version %d, version %d", service.GetId(), service.GetSpecVersion(), service.GetMeta().GetVersion())
	}
}

func TestCreateService_Refuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*api.ServiceSpec)
		want   string
	}{
		{"name with a dot", func(s *api.ServiceSpec) { s.Annotations.Name = "a.b" }, "annotations.name: name must be valid as a DNS name component"},
		{"long name", func(s *api.ServiceSpec) { s.Annotations.Name = strings.Repeat("a", 64) }, "name must be 63 characters or fewer"},
		{"empty label", func(s *api.ServiceSpec) { s.Annotations.Labels = map[string]string{"": "x"} }, "annotations.labels: a label has an empty key"},
		{"field of the future", func(s *api.ServiceSpec) {
			const field100 = "\xa2\x06\x01x"
			s.Task.Container.ProtoReflect().SetUnknown([]byte(field100))
		}, "spec: has fields that this version does not know"},
		{"no image", func(s *api.ServiceSpec) { s.Task.Container.Image = "" }, "task.container.image: image reference must be provided"},
		{"bad image", func(s *api.ServiceSpec) { s.Task.Container.Image = "UP" }, "the name must be lower case"},
		{"ratio", func(s *api.ServiceSpec) { s.Update = &api.UpdateConfig{MaxFailureRatio: 1.5} }, "update.max_failure_ratio: invalid ratio 1.5"},
		{"no ratio", func(s *api.ServiceSpec) { s.Rollback = &api.UpdateConfig{MaxFailureRatio: float32(math.NaN())} }, "rollback.max_failure_ratio: invalid ratio NaN"},
		{"rollback of a rollback", func(s *api.ServiceSpec) {
			s.Rollback = &api.UpdateConfig{FailureAction: api.FailureAction_FAILURE_ACTION_ROLLBACK}
		}, "rollback.failure_action: a rollback can't be rolled back"},
		{"monitor", func(s *api.ServiceSpec) { s.Update = &api.UpdateConfig{Monitor: durationpb.New(-1)} }, "update.monitor: cannot be negative"},
		{"replicas", func(s *api.ServiceSpec) { s.Replicated = &api.ReplicatedService{Replicas: 1e9} }, "replicated.replicas: 1000000000 replicas are too many"},
		{"memory limit", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 4<<20 - 1}}
		}, "task.resources.limits.memory_bytes: invalid memory value 4194303: Must be at least 4MiB"},
		{"memory reservation", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{Reservations: &api.Resources{MemoryBytes: -1}}
		}, "task.resources.reservations.memory_bytes: invalid memory value -1"},
		{"cpu", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCpus: 999_999}}
		}, "invalid cpu value 0.000999999: Must be at least 0.001"},
		{"pids", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{Limits: &api.Resources{Pids: -1}}
		}, "invalid pids value -1"},
		{"swap without memory", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{MemorySwapBytes: -1}
		}, "task.resources.memory_swap_bytes: a limit of memory and swap needs a memory limit"},
		{"swap below memory", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 8 << 20}, MemorySwapBytes: 4 << 20}
		}, "task.resources.memory_swap_bytes: memory and swap together, 4194304 bytes, should be larger than the memory limit, 8388608"},
		{"swap", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 8 << 20}, MemorySwapBytes: -2}
		}, "task.resources.memory_swap_bytes: invalid memory swap value -2"},
		{"cpuset", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{CpusetCpus: "0-"}
		}, `task.resources.cpuset_cpus: invalid list of CPUs "0-"`},
		{"cpuset backwards", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{CpusetCpus: "0,3-1"}
		}, `task.resources.cpuset_cpus: invalid list of CPUs "0,3-1"`},
		{"network rate", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{NetworkRate: &api.NetworkRate{OutBps: 7999}}
		}, "task.resources.network_rate.out_bps: invalid network rate 7999"},
		{"device path", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{DeviceRates: []*api.DeviceRate{{Path: "/dev/../etc"}}}
		}, `task.resources.device_rates[0].path: invalid device "/dev/../etc"`},
		{"device twice", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{DeviceRates: []*api.DeviceRate{{Path: "/dev/sda"}, {Path: "/dev/sda"}}}
		}, "task.resources.device_rates[1].path: duplicate device: /dev/sda"},
		{"operations", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{DeviceRates: []*api.DeviceRate{{Path: "/dev/sda", ReadIops: 1 << 32}}}
		}, "task.resources.device_rates[0]: too many operations a second"},
		{"generic limit", func(s *api.ServiceSpec) {
			s.Task.Resources = &api.ResourceRequirements{Limits: &api.Resources{Generic: []*api.GenericResource{{Kind: "gpu", Count: 1}}}}
		}, "task.resources.limits.generic: generic resources are reserved, not limited"},
		{"generic kind", reserved(&api.GenericResource{Kind: "g=u", Count: 1}), "reservations.generic[0].kind: invalid kind of generic resource"},
		{"generic kinds", reserved(&api.GenericResource{Kind: "gpu", Count: 1}, &api.GenericResource{Kind: "GPU", Count: 1}), "duplicate kind of generic resource: GPU"},
		{"generic number", reserved(&api.GenericResource{Kind: "gpu"}), "invalid number of gpu: 0"},
		{"generic ids", reserved(&api.GenericResource{Kind: "gpu", Count: 1, Ids: []string{"a"}}), "which ones a task gets is decided with its node"},
		{"log driver", func(s *api.ServiceSpec) { s.Task.LogDriver = &api.LogDriver{Name: "splunk"} }, `task.log_driver: unknown log driver "splunk": the drivers are`},
		{"log options", func(s *api.ServiceSpec) {
			s.Task.LogDriver = &api.LogDriver{Options: map[string]string{"max-file": "many", "mode": "blocking"}}
		}, `task.log_driver: max-file: invalid number of files "many": write 1 to 100; unknown option "mode" of the log driver file: it has`},
		{"restart condition", func(s *api.ServiceSpec) { s.Task.Restart = &api.RestartPolicy{Condition: 9} }, "task.restart.condition: has no value"},
		{"restart delay", func(s *api.ServiceSpec) {
			s.Task.Restart = &api.RestartPolicy{Delay: durationpb.New(-time.Second)}
		}, "task.restart.delay: cannot be negative, got -1s"},
		{"back-off of nothing", func(s *api.ServiceSpec) {
			s.Task.Restart = &api.RestartPolicy{Backoff: api.RestartBackoff_RESTART_BACKOFF_EXPONENTIAL, Delay: &durationpb.Duration{}}
		}, "task.restart.delay: with an exponential back-off it must be above 0"},
		{"longest delay", func(s *api.ServiceSpec) {
			s.Task.Restart = &api.RestartPolicy{Backoff: api.RestartBackoff_RESTART_BACKOFF_EXPONENTIAL, MaxDelay: durationpb.New(time.Second)}
		}, "task.restart.max_delay: 1s is below the delay, 5s"},
		{"longest delay without back-off", func(s *api.ServiceSpec) {
			s.Task.Restart = &api.RestartPolicy{MaxDelay: durationpb.New(time.Minute)}
		}, "task.restart.max_delay: without an exponential back-off the delay does not grow"},
		{"unknown back-off", func(s *api.ServiceSpec) { s.Task.Restart = &api.RestartPolicy{Backoff: 7} }, "task.restart.backoff: has no value"},
		{"update order", func(s *api.ServiceSpec) { s.Update = &api.UpdateConfig{Order: 7} }, "update.order: has no value"},
		{"update delay", func(s *api.ServiceSpec) { s.Update = &api.UpdateConfig{Delay: durationpb.New(-1)} }, "update.delay: cannot be negative"},
		{"grace period", func(s *api.ServiceSpec) { s.Task.Container.StopGracePeriod = durationpb.New(-1) }, "stop_grace_period: cannot be negative"},
		{"constraint", func(s *api.ServiceSpec) { s.Task.Placement = &api.Placement{Constraints: []string{"node.role=worker"}} }, "task.placement.constraints: invalid constraint \"node.role=worker\": expected one operator from ==, !="},
		{"preference", func(s *api.ServiceSpec) {
			s.Task.Placement = &api.Placement{Preferences: []*api.PlacementPreference{{Spread: "node.labels.a"}, {Spread: "node.role"}}}
		}, "task.placement.preferences[1].spread: key 'node.role' is no label: use node.labels.LABEL or engine.labels.LABEL"},
		{"preferences", func(s *api.ServiceSpec) {
			s.Task.Placement = &api.Placement{Preferences: make([]*api.PlacementPreference, 9)}
		}, "task.placement.preferences: 9 preferences are too many"},
		{"strategy", func(s *api.ServiceSpec) { s.Task.Placement = &api.Placement{Strategy: 7} }, "task.placement.strategy: has no value"},
		{"constraint key", func(s *api.ServiceSpec) { s.Task.Placement = &api.Placement{Constraints: []string{"rack==a"}} }, "key 'rack' is invalid: use node.id"},
		{"target port", func(s *api.ServiceSpec) { s.Endpoint = ports(&api.PortConfig{TargetPort: 70000}) }, "endpoint.ports[0].target_port: target port must be 1 to 65535"},
		{"published twice", func(s *api.ServiceSpec) {
			s.Endpoint = ports(&api.PortConfig{TargetPort: 80}, &api.PortConfig{TargetPort: 81, PublishedPort: 80})
		}, "duplicate published ports provided: 80"},
		{"hostname", func(s *api.ServiceSpec) { s.Task.Container.Hostname = "a_b" }, "invalid hostname"},
		{"hostname template", func(s *api.ServiceSpec) {
			s.Task.Container.Hostname = "{{.Node.ID"
		}, "task.container.hostname: template: value:1: unclosed action"},
		{"env template", func(s *api.ServiceSpec) {
			s.Task.Container.Env = []string{"A=b", "T={{secret \"db\"}}"}
		}, "task.container.env[1]: template: value:1: function \"secret\" not defined"},
		{"long template", func(s *api.ServiceSpec) {
			s.Task.Container.Env = []string{"A={{.Node.ID}}" + strings.Repeat("x", 64<<10)}
		}, "task.container.env[0]: a template of 65550 bytes, at most 65536 are allowed"},
		{"bind template", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_BIND, Source: "/srv/{{.Service.Name}}", Target: "/data"}}
		}, "task.container.mounts[0].source: templates such as"},
		{"mount template", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/data/{{.Task.Slot}}"}}
		}, "task.container.mounts[0].target: templates such as {{.Node.Hostname}} can be used in variables, the host name, and the names of volumes"},
		{"workdir", func(s *api.ServiceSpec) { s.Task.Container.Dir = "tmp" }, "the working directory 'tmp' is invalid, it needs to be an absolute path"},
		{"signal", func(s *api.ServiceSpec) { s.Task.Container.StopSignal = "SIGNOPE" }, "invalid signal: SIGNOPE"},
		{"env", func(s *api.ServiceSpec) { s.Task.Container.Env = []string{"=x"} }, "env[0]: invalid environment variable"},
		{"zero byte", func(s *api.ServiceSpec) { s.Task.Container.Args = []string{"a\x00b"} }, "task.container.args: contains a zero byte"},
		{"capability", func(s *api.ServiceSpec) { s.Task.Container.CapabilityDrop = []string{"fly"} }, `unknown capability: "CAP_FLY"`},
		{"seccomp profile", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = seccompProfile("{\n \"defaultAction\": \"ALLOW\"\n}")
		}, `task.container.privileges.seccomp.profile: line 2, column 19: defaultAction: unknown action "ALLOW"`},
		{"profile without its mode", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Seccomp: &api.SeccompOptions{Profile: []byte("{}")}}
		}, "seccomp.profile: is for the mode of a custom profile only"},
		{"seccomp mode of the future", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Seccomp: &api.SeccompOptions{Mode: 99}}
		}, "seccomp.mode: has no value that this version knows"},
		{"AppArmor profile", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Apparmor: &api.AppArmorOptions{Mode: api.AppArmorMode_APP_ARMOR_MODE_PROFILE, Profile: "a\nb"}}
		}, `apparmor.profile: invalid name of an AppArmor profile: "a\nb"`},
		{"AppArmor profile without its mode", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Apparmor: &api.AppArmorOptions{Profile: "web"}}
		}, "apparmor.profile: is for the mode of a profile only"},
		{"SELinux label", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{SelinuxContext: &api.SELinuxContext{Level: "s0:x"}}
		}, `selinux_context.level: invalid level of an SELinux label: "s0:x"`},
		{"SELinux label that is disabled", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{SelinuxContext: &api.SELinuxContext{Disable: true, Type: "t"}}
		}, "selinux_context.type: can't be given where labels are disabled"},
		{"mount type", func(s *api.ServiceSpec) { s.Task.Container.Mounts = []*api.Mount{{Target: "/x"}} }, "mounts[0].type: has no value"},
		{"mount target", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/../"}}
		}, "must be an absolute path other than /"},
		{"mount over the kernel's files", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/x/../proc/y"}}
		}, "mounts[0].target: /x/../proc/y would hide what isolates the container"},
		{"deep mount", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: strings.Repeat("/d", 129)}}
		}, "has more than 128 directories"},
		{"mounted twice", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{
				{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/x"}, {Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/x/"},
			}
		}, "duplicate mount point: /x/"},
		{"health check", func(s *api.ServiceSpec) {
			s.Task.Container.Health = &api.HealthConfig{Test: []string{"true"}}
		}, "health.test: invalid health check: write NONE, CMD and a program"},
		{"health interval", func(s *api.ServiceSpec) {
			s.Task.Container.Health = &api.HealthConfig{Interval: durationpb.New(-1)}
		}, "health.interval: cannot be negative"},
		{"health timeout", func(s *api.ServiceSpec) {
			s.Task.Container.Health = &api.HealthConfig{Timeout: durationpb.New(time.Microsecond)}
		}, "health.timeout: cannot be less than 1ms, got 1µs"},
		{"user", func(s *api.ServiceSpec) { s.Task.Container.User = "a:b:c" }, `container.user: invalid user "a:b:c"`},
		{"user id", func(s *api.ServiceSpec) { s.Task.Container.User = "70000" }, `container.user: invalid id "70000": containers have those from 0 to 65535`},
		{"group id", func(s *api.ServiceSpec) { s.Task.Container.User = "app:007" }, `container.user: invalid id "007"`},
		{"group ids", func(s *api.ServiceSpec) { s.Task.Container.Groups = []string{"staff", "65536"} }, `container.groups[1]: invalid id "65536"`},
		{"readiness check without a command", func(s *api.ServiceSpec) {
			s.Task.Container.Ready = &api.HealthConfig{Retries: 2}
		}, "ready.test: a readiness check needs a command"},
		{"readiness interval", func(s *api.ServiceSpec) {
			s.Task.Container.Ready = &api.HealthConfig{Test: []string{"CMD", "x"}, Interval: durationpb.New(time.Millisecond)}
		}, "ready.interval: must be at least 1s, got 1ms"},
		{"readiness of a job", func(s *api.ServiceSpec) {
			s.Replicated, s.ReplicatedJob = nil, &api.ReplicatedJob{TotalCompletions: 1}
			s.Task.Container.Ready = &api.HealthConfig{Test: []string{"CMD", "x"}}
		}, "task.container.ready: a job has no readiness check"},
		{"relative bind mount", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_BIND, Source: "etc", Target: "/x"}}
		}, "mounts[0].source: invalid mount source \"etc\": must be an absolute path"},
		{"writable below nothing", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{
				Type: api.MountType_MOUNT_TYPE_BIND, Source: "/x", Target: "/x", BindRecursive: api.BindRecursive_BIND_RECURSIVE_WRITABLE,
			}}
		}, "requires 'readonly'"},
		{"read-only and told by the node", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{
				Type: api.MountType_MOUNT_TYPE_BIND, Source: "/x", Target: "/x", ReadOnly: true, BindRecursive: api.BindRecursive_BIND_RECURSIVE_READONLY,
				BindPropagation: api.MountPropagation_MOUNT_PROPAGATION_SLAVE,
			}}
		}, "'bind-recursive=readonly' requires 'bind-propagation=rprivate'"},
		{"unknown propagation", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_BIND, Source: "/x", Target: "/x", BindPropagation: 99}}
		}, "mounts[0].bind_propagation: has no value that this version knows: 99"},
		{"bind options of a volume", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{
				Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "db", Target: "/x", BindRecursive: api.BindRecursive_BIND_RECURSIVE_DISABLED,
			}}
		}, "bind options are for mounts of the type bind"},
		{"storage size", func(s *api.ServiceSpec) { s.Task.Container.StorageSizeBytes = 1<<20 - 1 }, "storage_size_bytes: invalid storage size 1048575: it must be at least 1 MiB"},
		{"negative storage size", func(s *api.ServiceSpec) { s.Task.Container.StorageSizeBytes = -1 }, "invalid storage size -1"},
		{"storage size with the node's ids", func(s *api.ServiceSpec) {
			s.Task.Container.StorageSizeBytes = 1 << 20
			s.Task.Container.Privileges = &api.Privileges{Userns: api.UsernsMode_USERNS_MODE_HOST}
		}, "can't be held with --userns host"},
		{"mount of no image", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_IMAGE, Target: "/x"}}
		}, "mounts[0].source: an image mount needs an image"},
		{"subpath out of an image", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_IMAGE, Source: "app", Target: "/x", ImageSubpath: "../x"}}
		}, "mounts[0].image_subpath: invalid subpath \"../x\": must be a relative path within the image"},
		{"image options of a volume", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "db", Target: "/x", ImageSubpath: "a"}}
		}, "image options are for mounts of the type image"},
		{"nameless volume", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Target: "/x"}}
		}, "mounts[0].source: a volume needs a name"},
		{"volume by a path", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "/etc", Target: "/x"}}
		}, `invalid volume name "/etc"`},
		{"subpath outside of the volume", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "db", Target: "/x", VolumeSubpath: "a/../../b"}}
		}, `invalid subpath "a/../../b"`},
		{"volume as a tmpfs", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "db", Target: "/x", TmpfsExec: true}}
		}, "tmpfs options are for mounts of the type tmpfs"},
		{"tmpfs as a volume", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Source: "db", Target: "/x", VolumeNoCopy: true}}
		}, "a tmpfs has no source; task.container.mounts[0]: volume options are for"},
		{"tmpfs anywhere", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/x", VolumeAnywhere: true}}
		}, "volume options are for"},
		{"group", func(s *api.ServiceSpec) { s.Task.Container.Groups = []string{"staff", "a:b"} }, `groups[1]: invalid group "a:b"`},
		{"sysctl of the node", func(s *api.ServiceSpec) {
			s.Task.Container.Sysctls = map[string]string{"kernel.core_pattern": "|/x"}
		}, "sysctl 'kernel.core_pattern' is not one of the container's own namespaces"},
		{"sysctl outside of its directory", func(s *api.ServiceSpec) {
			s.Task.Container.Sysctls = map[string]string{"net...kernel.core_pattern": "|/x"}
		}, "is not one of the container's own namespaces"},
		{"namespace of nobody", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Pid: 7}
		}, "privileges.pid: has no value that this version knows: 7"},
		{"size of the node's shared memory", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Ipc: api.NamespaceMode_NAMESPACE_MODE_HOST}
			s.Task.Container.ShmSizeBytes = 1 << 20
		}, "/dev/shm is the node's with --ipc host"},
		{"sysctl of the node's IPC", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Ipc: api.NamespaceMode_NAMESPACE_MODE_HOST}
			s.Task.Container.Sysctls = map[string]string{"kernel.shmmax": "1"}
		}, "sysctl 'kernel.shmmax' is the node's with --ipc host"},
		{"port on the node's network", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Network: api.NamespaceMode_NAMESPACE_MODE_HOST}
			s.Endpoint = &api.EndpointSpec{Ports: []*api.PortConfig{{TargetPort: 80, PublishedPort: 80}}}
		}, "no port can be published with --network host"},
		{"rate of the node's network", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Network: api.NamespaceMode_NAMESPACE_MODE_HOST}
			s.Task.Resources = &api.ResourceRequirements{NetworkRate: &api.NetworkRate{OutBps: 1e6}}
		}, "can't be held with --network host"},
		{"sysctl of the node's network", func(s *api.ServiceSpec) {
			s.Task.Container.Privileges = &api.Privileges{Network: api.NamespaceMode_NAMESPACE_MODE_HOST}
			s.Task.Container.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"}
		}, "sysctl 'net.ipv4.ip_forward' is the node's with --network host"},
		{"sysctl without a value", func(s *api.ServiceSpec) {
			s.Task.Container.Sysctls = map[string]string{"net.ipv4.ip_forward": ""}
		}, "sysctl 'net.ipv4.ip_forward' has no value"},
		{"ulimit", func(s *api.ServiceSpec) { s.Task.Container.Ulimits = []*api.Ulimit{{Name: "memory"}} }, "invalid ulimit type: memory"},
		{"soft ulimit", func(s *api.ServiceSpec) {
			s.Task.Container.Ulimits = []*api.Ulimit{{Name: "nofile", Soft: -1, Hard: 5}}
		}, "ulimit nofile: soft limit -1 must be less than or equal to hard limit 5"},
		{"ulimit twice", func(s *api.ServiceSpec) {
			s.Task.Container.Ulimits = []*api.Ulimit{{Name: "core"}, {Name: "core"}}
		}, "duplicate ulimit: core"},
		{"real-time priority", func(s *api.ServiceSpec) {
			s.Task.Container.Ulimits = []*api.Ulimit{{Name: "rtprio", Soft: 1, Hard: 1}}
		}, "real-time priority takes the processor from the node itself"},
		{"OOM score", func(s *api.ServiceSpec) { s.Task.Container.OomScoreAdj = -999 }, "oom_score_adj: invalid OOM score -999"},
		{"size of /dev/shm", func(s *api.ServiceSpec) { s.Task.Container.ShmSizeBytes = -1 }, "invalid size of /dev/shm -1"},
		{"owner of a tmpfs", func(s *api.ServiceSpec) {
			s.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: "/x", TmpfsUid: 65536}}
		}, "owner 65536:0 of a tmpfs is not within the 65536 ids"},
		{"unknown secret", func(s *api.ServiceSpec) {
			s.Task.Container.Secrets = []*api.SecretReference{{SecretName: "nope"}}
		}, "secret not found: nope"},
		{"unknown secrets", func(s *api.ServiceSpec) {
			s.Task.Container.Secrets = []*api.SecretReference{{SecretName: "nope"}, {SecretId: "none"}}
		}, "secrets not found: nope, none"},
		{"missing config", func(s *api.ServiceSpec) {
			s.Task.Container.Configs = []*api.SecretReference{{SecretName: "nope"}}
		}, "config not found: nope"},
		{"config's target", func(s *api.ServiceSpec) {
			s.Task.Container.Configs = []*api.SecretReference{{SecretName: "db", Target: &api.SecretTarget{Name: "a/../b"}}}
		}, "invalid config target \"a/../b\""},
		{"too many", func(s *api.ServiceSpec) {
			s.Task.Container.Secrets = make([]*api.SecretReference, 128)
			s.Task.Container.Configs = make([]*api.SecretReference, 129)
		}, "257 secrets and configs are too many"},
		{"nameless secret", func(s *api.ServiceSpec) { s.Task.Container.Secrets = []*api.SecretReference{{}} }, "secrets[0]: malformed secret reference"},
		{"secret target", func(s *api.ServiceSpec) {
			s.Task.Container.Secrets = []*api.SecretReference{{SecretName: "db", Target: &api.SecretTarget{Name: "../x"}}}
		}, "invalid secret target"},
		{"one target twice", func(s *api.ServiceSpec) {
			s.Task.Container.Secrets = []*api.SecretReference{
				{SecretName: "db"}, {SecretName: "key", Target: &api.SecretTarget{Name: "/run/secrets/db"}},
			}
		}, "secret references 'db' and 'key' have a conflicting target: '/run/secrets/db'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSwarm(t)
				s.createSecret(t, "db")
				s.createSecret(t, "key")
				_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(tt.change)})
				wantFault(t, err, fault.Invalid, tt.want)
				if services := storetest.List[*api.Service](t, s.store); len(services) > 0 {
					t.Errorf("a refused service was stored: %v", services)
				}
			})
		})
	}
}

func ports(list ...*api.PortConfig) *api.EndpointSpec { return &api.EndpointSpec{Ports: list} }

func TestCreateService_ReportsAllProblemsAtOnce(t *testing.T) {
	s := newSwarm(t)
	_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(func(spec *api.ServiceSpec) {
		spec.Annotations.Name = "-"
		spec.Task.Container.Dir = "tmp"
		spec.Task.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 1}}
	})})
	for _, path := range []string{"annotations.name: ", "task.container.dir: ", "task.resources.limits.memory_bytes: "} {
		wantFault(t, err, fault.Invalid, path)
	}
}

func TestCreateService_RefusesATakenName(t *testing.T) {
	s := newSwarm(t)
	s.createService(t, web())
	_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web()})
	wantFault(t, err, fault.AlreadyExists, "name conflicts with an existing object: service web already exists")
}

func TestCreateService_GeneratesAName(t *testing.T) {
	s := newSwarm(t)
	seen := map[string]bool{}
	for range 60 {
		name := s.createService(t, web(func(spec *api.ServiceSpec) { spec.Annotations = nil })).GetSpec().GetAnnotations().GetName()
		if !strings.Contains(name, "_") || seen[name] {
			t.Fatalf("generated the name %q", name)
		}
		seen[name] = true
	}
}

func TestCreateService_RetryReturnsTheSameService(t *testing.T) {
	s := newSwarm(t)
	ctx := withRequestID(t, "one")
	var first *api.Service
	for range 3 {
		response, err := s.CreateService(ctx, &api.CreateServiceRequest{Spec: web()})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = response.GetService()
		}
		if diff := cmp.Diff(first, response.GetService(), protocmp.Transform()); diff != "" {
			t.Errorf("the retry answers otherwise (-first +again):\n%s", diff)
		}
	}
	if _, err := s.CreateSecret(ctx, &api.CreateSecretRequest{Spec: secretSpec("db", []byte("x"))}); err != nil {
		t.Errorf("the same id for another method: %v", err)
	}
}

func TestCreateService_RefusesABadRequestID(t *testing.T) {
	s := newSwarm(t)
	_, err := s.CreateService(withRequestID(t, strings.Repeat("x", 65)), &api.CreateServiceRequest{Spec: web()})
	wantFault(t, err, fault.Invalid, "skep-request-id: give one id of 1 to 64 characters")
}

func TestCreateService_WarnsWhenNoNodeFits(t *testing.T) {
	s := newSwarm(t)
	response, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(func(spec *api.ServiceSpec) {
		spec.Task.Placement = &api.Placement{Constraints: []string{"node.labels.gpu==yes"}}
	})})
	if err != nil || len(response.GetWarnings()) != 1 || !strings.Contains(response.GetWarnings()[0], "no node satisfies the constraints (node.labels.gpu==yes)") {
		t.Errorf("got %v, %v", response.GetWarnings(), err)
	}
}

func TestUpdateService_ReplacesTasksOnlyWhenItMust(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*api.ServiceSpec)
		replace bool
	}{
		{"replicas", func(s *api.ServiceSpec) { s.Replicated.Replicas = 5 }, false},
		{"labels", func(s *api.ServiceSpec) { s.Annotations.Labels = map[string]string{"a": "b"} }, false},
		{"update config", func(s *api.ServiceSpec) { s.Update.Parallelism = 3 }, false},
		{"constraint that holds", func(s *api.ServiceSpec) { s.Task.Placement.Constraints = []string{"node.role==worker"} }, false},
		{"constraint that fails", func(s *api.ServiceSpec) { s.Task.Placement.Constraints = []string{"node.role==manager"} }, true},
		{"max replicas that holds", func(s *api.ServiceSpec) { s.Task.Placement.MaxReplicas = 2 }, false},
		{"max replicas that fails", func(s *api.ServiceSpec) { s.Task.Placement.MaxReplicas = 1 }, true},
		{"env", func(s *api.ServiceSpec) { s.Task.Container.Env = []string{"A=b"} }, true},
		{"ports", func(s *api.ServiceSpec) { s.Endpoint = ports(&api.PortConfig{TargetPort: 80}) }, true},
		{"force", func(s *api.ServiceSpec) { s.Task.ForceUpdate++ }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSwarm(t)
			old := s.createService(t, web())
			for i := range 2 {
				storetest.Create(t, s.store, &api.Task{
					Id: fmt.Sprint("task", i), ServiceId: old.GetId(), NodeId: "worker1", DesiredState: api.TaskState_TASK_STATE_RUNNING,
				})
			}
			spec := proto.CloneOf(old.GetSpec())
			tt.change(spec)
			response, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{
				ServiceId: old.GetId(), Version: old.GetMeta().GetVersion(), Spec: spec,
			})
			if err != nil {
				t.Fatal(err)
			}
			service := response.GetService()
			if got := service.GetSpecVersion() == 2; got != tt.replace {
				t.Errorf("spec version %d, want tasks replaced: %v", service.GetSpecVersion(), tt.replace)
			}
			if got := service.GetUpdateStatus().GetState() == api.UpdateState_UPDATE_STATE_UPDATING; got != tt.replace {
				t.Errorf("update status %v, want tasks replaced: %v", service.GetUpdateStatus(), tt.replace)
			}
			if diff := cmp.Diff(old.GetSpec(), service.GetPreviousSpec(), protocmp.Transform()); diff != "" {
				t.Errorf("previous spec (-want +got):\n%s", diff)
			}
		})
	}
}

// changeTo gives the service web another spec.
func (s *swarm) changeTo(t *testing.T, change func(*api.ServiceSpec)) *api.Service {
	t.Helper()
	old, err := s.GetService(t.Context(), &api.GetServiceRequest{Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	spec := proto.CloneOf(old.GetService().GetSpec())
	change(spec)
	response, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{
		ServiceId: "web", Version: old.GetService().GetMeta().GetVersion(), Spec: spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetService()
}

// setUpdateState says how far the update of a service is, as the updater does.
func (s *swarm) setUpdateState(t *testing.T, id string, state api.UpdateState) {
	t.Helper()
	err := s.store.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[*api.Service](tx, id)
		if err != nil {
			return err
		}
		service := proto.CloneOf(old)
		service.UpdateStatus = &api.UpdateStatus{State: state}
		return tx.Update(service)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUpdateService_PreviousSpecIsTheLastThatWasThere(t *testing.T) {
	s := newSwarm(t)
	first := s.createService(t, web())
	bad := func(spec *api.ServiceSpec) { spec.Task.Container.Args = []string{"bad"} }
	s.changeTo(t, bad)
	// What is under way is nothing to go back to, whatever is changed meanwhile; but a scale is not undone by going back.
	s.changeTo(t, func(spec *api.ServiceSpec) { spec.Annotations.Labels = map[string]string{"a": "b"} })
	s.changeTo(t, func(spec *api.ServiceSpec) { spec.Replicated.Replicas = 7 })
	got := s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Container.Args = []string{"bad, too"} })
	want := proto.CloneOf(first.GetSpec())
	want.Replicated.Replicas = 7
	if diff := cmp.Diff(want, got.GetPreviousSpec(), protocmp.Transform()); diff != "" || got.GetPreviousSpecVersion() != 1 {
		t.Errorf("previous spec of version %d, want the first (-want +got):\n%s", got.GetPreviousSpecVersion(), diff)
	}
	// What was completed is.
	s.setUpdateState(t, got.GetId(), api.UpdateState_UPDATE_STATE_COMPLETED)
	next := s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Container.Args = []string{"next"} })
	if diff := cmp.Diff(got.GetSpec(), next.GetPreviousSpec(), protocmp.Transform()); diff != "" || next.GetPreviousSpecVersion() != got.GetSpecVersion() {
		t.Errorf("previous spec of version %d, want the present one of before (-want +got):\n%s", next.GetPreviousSpecVersion(), diff)
	}
}

func TestUpdateService_OfASpecThatWasRolledBackToLeavesTheRollbackAlone(t *testing.T) {
	s := newSwarm(t)
	old := s.createService(t, web())
	s.setUpdateState(t, old.GetId(), api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED)
	got := s.changeTo(t, func(spec *api.ServiceSpec) { spec.Annotations.Labels = map[string]string{"a": "b"} })
	if state := got.GetUpdateStatus().GetState(); state != api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED {
		t.Errorf("the update is %v", state)
	}
}

// TestUpdateService_SameSpecChangesNothing: nor does it go on with an update that was paused.
func TestUpdateService_SameSpecChangesNothing(t *testing.T) {
	s := newSwarm(t)
	id := s.createService(t, web()).GetId()
	change(t, s.store, id, func(service *api.Service) {
		service.UpdateStatus = &api.UpdateStatus{State: api.UpdateState_UPDATE_STATE_PAUSED, Message: "update paused due to failure"}
	})
	old := storetest.Get[*api.Service](t, s.store, id)
	response, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: "web", Version: old.GetMeta().GetVersion(), Spec: old.GetSpec()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(old, response.GetService(), protocmp.Transform()); diff != "" {
		t.Errorf("the service changed (-old +new):\n%s", diff)
	}
}

func TestUpdateService_Refuses(t *testing.T) {
	s := newSwarm(t)
	old := s.createService(t, web())
	update := func(id string, version uint64, spec *api.ServiceSpec) error {
		_, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: id, Version: version, Spec: spec})
		return err
	}
	version := old.GetMeta().GetVersion()
	wantFault(t, update("web", version-1, web()), fault.Conflict, "update out of sequence")
	wantFault(t, update("nope", version, web()), fault.NotFound, "service nope not found")
	wantFault(t, update("web", version, nil), fault.Invalid, "spec: the service's spec is missing")
	wantFault(t, update("web", version, web(func(s *api.ServiceSpec) { s.Annotations.Name = "www" })), fault.Invalid, "renaming services is not supported")
}

func TestUpdateService_RetryIsNotOutOfSequence(t *testing.T) {
	s := newSwarm(t)
	old := s.createService(t, web())
	spec := proto.CloneOf(old.GetSpec())
	spec.Task.ForceUpdate = 1
	for range 2 {
		response, err := s.UpdateService(withRequestID(t, "up"), &api.UpdateServiceRequest{
			ServiceId: "web", Version: old.GetMeta().GetVersion(), Spec: spec,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := response.GetService().GetSpecVersion(); got != 2 {
			t.Errorf("spec version: got %d, want 2", got)
		}
	}
}

func TestService_IsFoundByNameIDAndPrefix(t *testing.T) {
	s := newSwarm(t)
	web := s.createService(t, web())
	storetest.Create(t, s.store, &api.Service{Id: "aab1", Spec: named("one")}, &api.Service{Id: "aab2", Spec: named("two")},
		&api.Service{Id: "zzz", Spec: named("aab")})
	for key, want := range map[string]string{
		"web": web.GetId(), web.GetId(): web.GetId(), web.GetId()[:20]: web.GetId(), "aab1": "aab1", "aab": "zzz",
	} {
		response, err := s.GetService(t.Context(), &api.GetServiceRequest{Service: key})
		if err != nil || response.GetService().GetId() != want {
			t.Errorf("%s: got %v, %v, want %s", key, response.GetService().GetId(), err, want)
		}
	}
	_, err := s.GetService(t.Context(), &api.GetServiceRequest{Service: "aa"})
	wantFault(t, err, fault.Invalid, "service aa is ambiguous (2 matches found): aab1 (one), aab2 (two)")
	_, err = s.GetService(t.Context(), &api.GetServiceRequest{Service: "none"})
	wantFault(t, err, fault.NotFound, "service none not found")
	_, err = s.GetService(t.Context(), &api.GetServiceRequest{})
	wantFault(t, err, fault.Invalid, "the name or id of a service is missing")
}

func named(name string) *api.ServiceSpec {
	return &api.ServiceSpec{Annotations: &api.Annotations{Name: name}}
}

func TestListServices_CountsTasksThatRun(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web(func(spec *api.ServiceSpec) { spec.Replicated = &api.ReplicatedService{Replicas: 4} }))
	down := node("worker2", api.Role_ROLE_WORKER)
	down.Status.State = api.NodeState_NODE_STATE_DOWN
	storetest.Create(t, s.store, down)
	for i, task := range []struct {
		node           string
		state, desired api.TaskState
		readiness      *api.Readiness
	}{
		{"worker1", api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_RUNNING, nil},
		{"worker1", api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_RUNNING, &api.Readiness{Ready: true}},
		{"worker1", api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_RUNNING, &api.Readiness{}},
		{"worker2", api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_RUNNING, &api.Readiness{}},
		{"worker1", api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_SHUTDOWN, &api.Readiness{}},
		{"worker1", api.TaskState_TASK_STATE_PREPARING, api.TaskState_TASK_STATE_RUNNING, nil},
	} {
		storetest.Create(t, s.store, &api.Task{
			Id: fmt.Sprint("task", i), ServiceId: service.GetId(), NodeId: task.node,
			Status: &api.TaskStatus{State: task.state, Readiness: task.readiness}, DesiredState: task.desired,
		})
	}
	response, err := s.ListServices(t.Context(), &api.ListServicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]*api.ServiceCounts{service.GetId(): {Running: 3, Desired: 4, NotReady: 1}}
	if diff := cmp.Diff(want, response.GetCounts(), protocmp.Transform()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestRemoveService_IsIdempotentByRequestID(t *testing.T) {
	s := newSwarm(t)
	s.createService(t, web())
	for range 2 {
		if _, err := s.RemoveService(withRequestID(t, "rm"), &api.RemoveServiceRequest{Service: "web"}); err != nil {
			t.Error(err)
		}
	}
	_, err := s.RemoveService(t.Context(), &api.RemoveServiceRequest{Service: "web"})
	wantFault(t, err, fault.NotFound, "service web not found")
}

func seccompProfile(text string) *api.Privileges {
	return &api.Privileges{Seccomp: &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_CUSTOM, Profile: []byte(text)}}
}

func TestServices_AreNotIsolatedLessWithoutAGrant(t *testing.T) {
	s := newSwarm(t)
	strict := seccompProfile(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`)
	service := s.createService(t, web(func(spec *api.ServiceSpec) { spec.Task.Container.Privileges = strict }))
	if diff := cmp.Diff(strict, service.GetSpec().GetTask().GetContainer().GetPrivileges(), protocmp.Transform()); diff != "" {
		t.Errorf("a stricter profile needs no grant (-want +got):\n%s", diff)
	}
	for want, weak := range map[string]*api.Privileges{
		"seccomp=unconfined (":      {Seccomp: &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_UNCONFINED}},
		"seccomp=PROFILE (":         seccompProfile(`{"defaultAction":"SCMP_ACT_ALLOW"}`),
		"no-new-privileges=false (": {NewPrivileges: true},
		"label=disable (":           {SelinuxContext: &api.SELinuxContext{Disable: true}},
		"apparmor=unconfined (":     {Apparmor: &api.AppArmorOptions{Mode: api.AppArmorMode_APP_ARMOR_MODE_UNCONFINED}},
	} {
		_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(func(spec *api.ServiceSpec) {
			spec.Annotations.Name = "weak"
			spec.Task.Container.Privileges = weak
		})})
		wantFault(t, err, fault.Precondition, want)
		wantFault(t, err, fault.Precondition, "skep grant create")
		spec := proto.CloneOf(service.GetSpec())
		spec.Task.Container.Privileges = weak
		_, err = s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: service.GetId(), Version: service.GetMeta().GetVersion(), Spec: spec})
		wantFault(t, err, fault.Precondition, want)
	}
}

// reserved returns a change that reserves generic resources.
func reserved(generic ...*api.GenericResource) func(*api.ServiceSpec) {
	return func(s *api.ServiceSpec) {
		s.Task.Resources = &api.ResourceRequirements{Reservations: &api.Resources{Generic: generic}}
	}
}
