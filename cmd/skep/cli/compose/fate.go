package compose

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/skep-io/skep/internal/fault"
)

// fate is what becomes of a key.
type fate struct {
	// refused says why the file can't be deployed with the key, and what to write instead; empty is not refused.
	refused string
	// ignored is for a key that is warned of.
	ignored bool
}

// Keys that are part of the stack: what they hold is looked at further.
const taken = `
services services.profiles services.deploy services.restart services.scale services.extends services.extends.file services.extends.service services.name
services.cap_add services.cap_drop services.command services.configs services.cpus services.cpuset services.entrypoint
services.environment services.env_file services.group_add services.hostname services.image services.init services.ipc
services.labels services.label_file services.logging services.mem_limit services.mem_reservation services.memswap_limit
services.network_mode services.networks services.oom_score_adj services.pid services.pids_limit services.read_only
services.secrets services.security_opt services.shm_size services.stop_grace_period services.stop_signal
services.dns services.dns_opt services.dns_search services.extra_hosts
services.storage_opt services.sysctls services.tmpfs services.ulimits services.user services.userns_mode
services.volumes services.working_dir services.depends_on services.healthcheck services.ports services.tty
services.env_file.path services.env_file.required services.env_file.format
services.configs.source services.configs.target services.configs.uid services.configs.gid services.configs.mode
services.secrets.source services.secrets.target services.secrets.uid services.secrets.gid services.secrets.mode
services.deploy.mode services.deploy.replicas services.deploy.labels services.deploy.update_config
services.deploy.rollback_config services.deploy.resources services.deploy.restart_policy services.deploy.placement
services.deploy.update_config.parallelism services.deploy.update_config.delay services.deploy.update_config.failure_action
services.deploy.update_config.monitor services.deploy.update_config.max_failure_ratio services.deploy.update_config.order
services.deploy.rollback_config.parallelism services.deploy.rollback_config.delay services.deploy.rollback_config.failure_action
services.deploy.rollback_config.monitor services.deploy.rollback_config.max_failure_ratio services.deploy.rollback_config.order
services.deploy.resources.limits services.deploy.resources.reservations services.deploy.resources.limits.cpus
services.deploy.resources.limits.memory services.deploy.resources.limits.pids services.deploy.resources.reservations.cpus
services.deploy.resources.reservations.memory services.deploy.resources.reservations.generic_resources
services.deploy.resources.reservations.generic_resources.discrete_resource_spec
services.deploy.resources.reservations.generic_resources.discrete_resource_spec.kind
services.deploy.resources.reservations.generic_resources.discrete_resource_spec.value
services.deploy.restart_policy.condition services.deploy.restart_policy.delay services.deploy.restart_policy.max_attempts
services.deploy.restart_policy.window services.deploy.placement.constraints services.deploy.placement.preferences
services.deploy.placement.preferences.spread services.deploy.placement.max_replicas_per_node
services.depends_on.condition services.depends_on.required
services.healthcheck.test services.healthcheck.timeout services.healthcheck.interval services.healthcheck.retries
services.healthcheck.start_period services.healthcheck.start_interval services.healthcheck.disable
services.logging.driver services.logging.options services.ports.mode services.ports.target services.ports.published
services.ports.protocol services.ulimits.single services.ulimits.soft services.ulimits.hard
services.volumes.type services.volumes.source services.volumes.target services.volumes.read_only services.volumes.bind
services.volumes.volume services.volumes.tmpfs services.volumes.image services.volumes.bind.propagation
services.volumes.bind.create_host_path services.volumes.bind.recursive services.volumes.volume.nocopy
services.volumes.volume.subpath services.volumes.tmpfs.size services.volumes.tmpfs.mode services.volumes.image.subpath
name networks networks.name networks.ipam volumes volumes.name volumes.external volumes.driver
secrets secrets.name secrets.file secrets.environment secrets.content secrets.external secrets.labels secrets.template_driver
configs configs.name configs.file configs.environment configs.content configs.external configs.labels configs.template_driver
`

// Keys that have no meaning here: the service runs without what they ask for, and nothing is lost by that.
const ignored = `
services.annotations services.attach services.build services.cgroup services.cgroup_parent services.container_name
services.depends_on.restart services.deploy.endpoint_mode services.develop services.dockerfile services.domainname services.expose services.external_links
services.isolation services.links services.mac_address services.mem_swappiness services.platform services.pull_policy
services.pull_refresh_after services.stdin_open services.uts services.volumes.bind.selinux services.volumes.consistency
services.volumes.volume.labels services.ports.name services.ports.app_protocol volumes.labels
`

// Texts of keys that are refused for one reason.
const (
	noOverlay     = "there are no overlay networks yet, and each container is on a network of its node's: leave it out"
	byLimits      = "write deploy.resources.limits and reservations instead"
	byGrant       = "a device comes by a grant: have an administrator run `skep grant create`, and name the grant in x-grants"
	noHooks       = "programs before and after a container's own can't be run: make them a service that the other one depends on"
	noDriver      = "the managers keep all secrets and configs: leave out the driver"
	noLegacy      = "the Compose Specification does not have it any more"
	noReservation = "it can't be reserved or limited so: write reservations.generic_resources for what is counted"
)

// refused says of each key that can't be had what to do.
func refused() map[string]string {
	return map[string]string{
		"services.blkio_config": "rates of devices are options of `skep service create` and `service update` only: leave it out",
		"services.cpu_count":    byLimits, "services.cpu_percent": byLimits, "services.cpu_period": byLimits, "services.cpu_quota": byLimits,
		"services.cpu_rt_period": byLimits, "services.cpu_rt_runtime": byLimits, "services.cpu_shares": byLimits,
		"services.credential_spec":     "it is for containers of Windows: leave it out",
		"services.device_cgroup_rules": byGrant, "services.devices": byGrant, "services.gpus": byGrant,
		"services.log_driver": noLegacy + ": write logging", "services.log_opt": noLegacy + ": write logging", "services.net": noLegacy + ": write network_mode",
		"services.volume_driver":    noLegacy + ": write the driver of the volume",
		"services.models":           "models can't be run: leave it out",
		"models":                    "models can't be run: leave it out",
		"jobs":                      "write a service with deploy.mode replicated-job or global-job",
		"services.oom_kill_disable": "a container that has used up its memory is ended: write oom_score_adj to change which one is first",
		"services.post_start":       noHooks, "services.pre_start": noHooks, "services.pre_stop": noHooks,
		"services.privileged":                      "no container is privileged: write cap_add for what it needs, or have an administrator grant it, and name the grant in x-grants",
		"services.provider":                        "a service runs containers: leave it out",
		"services.runtime":                         "containers have one runtime: leave it out",
		"services.umask":                           "it can't be set: have the program set it",
		"services.use_api_socket":                  "containers don't get at the daemon: leave it out",
		"services.volumes_from":                    "share a named volume instead",
		"services.ports.host_ip":                   "a port is published on all addresses of a node: leave it out, or have the node's firewall say who gets at it",
		"services.deploy.resources.limits.devices": noReservation, "services.deploy.resources.limits.generic_resources": noReservation,
		"services.deploy.resources.reservations.devices": noReservation, "services.deploy.resources.reservations.pids": noReservation,
		"services.networks.aliases": noOverlay, "services.networks.driver_opts": noOverlay, "services.networks.gw_priority": noOverlay,
		"services.networks.interface_name": noOverlay, "services.networks.ipv4_address": noOverlay, "services.networks.ipv6_address": noOverlay,
		"services.networks.link_local_ips": noOverlay, "services.networks.mac_address": noOverlay, "services.networks.priority": noOverlay,
		"services.networks.use_service_name_alias": noOverlay,
		"networks.driver":                          noOverlay, "networks.driver_opts": noOverlay, "networks.external": noOverlay, "networks.internal": noOverlay,
		"networks.attachable": noOverlay, "networks.labels": noOverlay, "networks.enable_ipv4": noOverlay, "networks.enable_ipv6": noOverlay,
		"networks.ipam.driver": noOverlay, "networks.ipam.config": noOverlay, "networks.ipam.options": noOverlay,
		"volumes.driver_opts": "volumes are directories of their nodes: leave it out, or bind what is mounted there",
		"secrets.driver":      noDriver, "secrets.driver_opts": noDriver, "configs.driver": noDriver, "configs.driver_opts": noDriver,
	}
}

// fates returns what becomes of each key, by its path without the names of services and the like.
func fates() map[string]fate {
	out := map[string]fate{}
	for _, path := range strings.Fields(taken) {
		out[path] = fate{}
	}
	for _, path := range strings.Fields(ignored) {
		out[path] = fate{ignored: true}
	}
	for path, why := range refused() {
		out[path] = fate{refused: why}
	}
	return out
}

// sift returns warnings about keys that are ignored, or an error for those that are refused (I1, I2).
func sift(project *types.Project) ([]string, error) {
	s := sifter{fates: fates(), ignored: map[string]bool{}}
	s.fields(reflect.ValueOf(project).Elem(), "", "")
	if len(s.refused) > 0 {
		slices.Sort(s.refused)
		return nil, fault.New(fault.Invalid, "%s", strings.Join(s.refused, "\n"))
	}
	if len(s.ignored) == 0 {
		return nil, nil
	}
	return []string{"Ignoring unsupported options: " + strings.Join(slices.Sorted(maps.Keys(s.ignored)), ", ")}, nil
}

// sifter walks over what a project says.
type sifter struct {
	fates   map[string]fate
	ignored map[string]bool
	refused []string
}

// fields looks at the keys of a struct. path is where it is without names, and place with them.
func (s *sifter) fields(v reflect.Value, path, place string) {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		key, embedded := keyOf(field)
		switch {
		case embedded:
			s.fields(value, path, place)
		case key != "" && !empty(value):
			s.key(value, join(path, key), join(place, key))
		}
	}
}

// keyOf returns the key of a field in files, or "" when it has none there.
func keyOf(field reflect.StructField) (key string, embedded bool) {
	if field.Anonymous {
		return "", true
	}
	key, _, _ = strings.Cut(field.Tag.Get("yaml"), ",")
	if key == "" {
		key = field.Tag.Get("json") // the library's DiscreteGenericResource, and the parts of blkio_config
	}
	if !field.IsExported() || key == "-" || strings.HasPrefix(key, "#") {
		return "", false
	}
	return key, false
}

func join(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

func (s *sifter) key(v reflect.Value, path, place string) {
	switch f, known := s.fates[path]; {
	case !known:
		s.refused = append(s.refused, place+": this version does not know it: leave it out")
	case f.refused != "":
		s.refused = append(s.refused, place+": "+f.refused)
	case f.ignored:
		s.ignored[strings.TrimPrefix(path, "services.")] = true
	default:
		s.inside(v, path, place)
	}
}

// inside goes on to the keys in a value, if there are any.
func (s *sifter) inside(v reflect.Value, path, place string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			s.inside(v.Elem(), path, place)
		}
	case reflect.Struct:
		s.fields(v, path, place)
	case reflect.Slice:
		for i := range v.Len() {
			s.inside(v.Index(i), path, fmt.Sprintf("%s[%d]", place, i))
		}
	case reflect.Map:
		for _, name := range v.MapKeys() {
			s.inside(v.MapIndex(name), path, join(place, name.String()))
		}
	}
}

// empty reports whether a key was not given, or says nothing.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}
