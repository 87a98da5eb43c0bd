package compose

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/servicespec"
	"github.com/skep-io/skep/internal/fault"
)

// Docker's labels of what belongs to a stack, and of the image as the file names it.
const (
	NamespaceLabel = "com.docker.stack.namespace"
	ImageLabel     = "com.docker.stack.image"
)

// grantsKey is the key of a service for the names of its grants, which the Compose Specification has no key for.
const grantsKey = "x-grants"

// converter makes specs of one project's services.
type converter struct {
	project *types.Project
	stack   string
}

// spec returns the spec of a service. resolve looks up the secrets and configs that it names.
func (c converter) spec(ctx context.Context, s types.ServiceConfig, resolve servicespec.Resolve) (*api.ServiceSpec, error) {
	var create servicespec.Create
	f := flags{set: pflag.NewFlagSet("", pflag.ContinueOnError)}
	create.Register(f.set)
	f.put("name", "name", c.scoped(s.Name))
	container(&f, s)
	c.isolation(&f, s)
	deploy(&f, s)
	c.mounts(&f, s)
	c.values(&f, s)
	ports(&f, s)
	f.each(grantsKey, "grant", grants(&f, s))
	if s.Image == "" {
		f.refuse("image", "there is none: images are not built here: build it, load it with `skep image load`, and name it")
	}
	if f.err != nil {
		return nil, fault.New(fault.Invalid, "service %s: %w", s.Name, f.err)
	}
	spec, err := create.Spec(ctx, s.Image, s.Command, noEnvironment, resolve)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "service %s: %w", s.Name, err)
	}
	made := spec.GetTask().GetContainer()
	made.Command = s.Entrypoint
	made.Health = health(s.HealthCheck)
	made.Labels = c.labelled(made.GetLabels())
	spec.Annotations.Labels = c.labelled(spec.GetAnnotations().GetLabels())
	spec.Annotations.Labels[ImageLabel] = s.Image
	return spec, nil
}

// noEnvironment is for variables without a value: compose-go has looked them up.
func noEnvironment(string) (string, bool) { return "", false }

// scoped returns a name as it is in the swarm.
func (c converter) scoped(name string) string { return c.stack + "_" + name }

func (c converter) labelled(labels map[string]string) map[string]string {
	if labels == nil {
		labels = map[string]string{}
	}
	labels[NamespaceLabel] = c.stack
	return labels
}

// container gives what the process is and has.
func container(f *flags, s types.ServiceConfig) {
	f.pairs("labels", "container-label", s.Labels)
	f.each("environment", "env", environment(s.Environment))
	f.put("user", "user", s.User)
	f.put("working_dir", "workdir", s.WorkingDir)
	f.put("hostname", "hostname", s.Hostname)
	if s.Init != nil {
		f.put("init", "init", strconv.FormatBool(*s.Init))
	}
	f.yes("read_only", "read-only", s.ReadOnly)
	f.yes("tty", "tty", s.Tty)
	f.each("tmpfs", "tmpfs", s.Tmpfs)
	f.put("stop_signal", "stop-signal", s.StopSignal)
	f.duration("stop_grace_period", "stop-grace-period", s.StopGracePeriod)
	f.pairs("sysctls", "sysctl", s.Sysctls)
	for _, name := range slices.Sorted(maps.Keys(s.Ulimits)) {
		f.put("ulimits", "ulimit", ulimit(name, s.Ulimits[name]))
	}
	names(f, s)
	f.each("group_add", "group", s.GroupAdd)
	f.number("shm_size", "shm-size", int64(s.ShmSize))
	f.number("oom_score_adj", "oom-score-adj", s.OomScoreAdj)
	for _, option := range slices.Sorted(maps.Keys(s.StorageOpt)) {
		if option != "size" {
			f.refuse("storage_opt", "there is no option %q: write size", option)
		}
		f.put("storage_opt", "storage-size", s.StorageOpt[option])
	}
	if s.Logging != nil {
		f.put("logging.driver", "log-driver", s.Logging.Driver)
		f.pairs("logging.options", "log-opt", s.Logging.Options)
	}
}

// names gives how the process finds addresses. The library keeps the addresses of a host in order, and not the hosts (I3).
func names(f *flags, s types.ServiceConfig) {
	for _, name := range slices.Sorted(maps.Keys(s.ExtraHosts)) {
		for _, address := range s.ExtraHosts[name] {
			f.put("extra_hosts", "host", name+"="+address)
		}
	}
	f.each("dns", "dns", s.DNS)
	f.each("dns_opt", "dns-option", s.DNSOpts)
	f.each("dns_search", "dns-search", s.DNSSearch)
}

// isolation gives what the process may do beyond the default, and less than it.
func (c converter) isolation(f *flags, s types.ServiceConfig) {
	f.each("cap_add", "cap-add", s.CapAdd)
	f.each("cap_drop", "cap-drop", s.CapDrop)
	for _, option := range s.SecurityOpt {
		f.put("security_opt", "security-opt", c.profile(option))
	}
	f.put("userns_mode", "userns", s.UserNSMode)
	f.put("pid", "pid", s.Pid)
	f.put("ipc", "ipc", s.Ipc)
	if s.NetworkMode != "" && s.NetworkMode != "default" && s.NetworkMode != "bridge" {
		f.put("network_mode", "network", s.NetworkMode)
	}
	for _, network := range slices.Sorted(maps.Keys(s.Networks)) {
		if network != defaultNetwork {
			f.refuse("networks."+network, "%s", noOverlay)
		}
	}
}

// defaultNetwork is the network of services that name none.
const defaultNetwork = "default"

// profile returns a security option with the path of a seccomp profile as it is from anywhere.
func (c converter) profile(option string) string {
	key, value, found := strings.Cut(option, "=")
	if !found {
		key, value, found = strings.Cut(option, ":")
	}
	switch {
	case !found || key != "seccomp" || filepath.IsAbs(value):
		return option
	case value == "unconfined" || value == "default" || value == "builtin":
		return option
	}
	return key + "=" + filepath.Join(c.project.WorkingDir, value)
}

func ulimit(name string, limit *types.UlimitsConfig) string {
	if limit.Single != 0 {
		return fmt.Sprintf("%s=%d", name, limit.Single)
	}
	return fmt.Sprintf("%s=%d:%d", name, limit.Soft, limit.Hard)
}

// environment returns variables in the order of their names (I3), without those that nobody gave a value.
func environment(variables types.MappingWithEquals) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if value := variables[name]; value != nil {
			out = append(out, name+"="+*value)
		}
	}
	return out
}

func sortedPairs(pairs map[string]string) []string {
	out := make([]string, 0, len(pairs))
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		out = append(out, key+"="+pairs[key])
	}
	return out
}

// health returns a check as the API has it, which flags can say only for shell commands; nil is the image's.
func health(check *types.HealthCheckConfig) *api.HealthConfig {
	if check == nil {
		return nil
	}
	if check.Disable {
		return &api.HealthConfig{Test: []string{"NONE"}}
	}
	return &api.HealthConfig{
		Test: check.Test, Interval: period(check.Interval), Timeout: period(check.Timeout), StartPeriod: period(check.StartPeriod),
		StartInterval: period(check.StartInterval), Retries: uint32(*cmp.Or(check.Retries, new(uint64))),
	}
}

func period(d *types.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(duration(*d))
}

// ports gives published ports: each on the nodes of its service's tasks.
func ports(f *flags, s types.ServiceConfig) {
	for _, port := range s.Ports {
		key := fmt.Sprintf("ports: %d", port.Target)
		if port.Mode != "host" {
			f.refuse(key, "publishing through the ingress network needs an overlay network, which skep does not have yet: "+
				"write target: %d, published: %q, protocol: %s, mode: host to publish it on the node of each task", port.Target, port.Published, port.Protocol)
		}
		var value record
		value.add("target", strconv.FormatUint(uint64(port.Target), 10))
		value.add("published", port.Published)
		value.add("protocol", port.Protocol)
		value.add("mode", port.Mode)
		f.put(key, "publish", value.String())
	}
}

// grants returns the names of grants.
func grants(f *flags, s types.ServiceConfig) (names []string) {
	list, isList := s.Extensions[grantsKey].([]any)
	if s.Extensions[grantsKey] != nil && !isList {
		f.refuse(grantsKey, "write a list of the names of grants")
	}
	for _, element := range list {
		name, isName := element.(string)
		if !isName || name == "" {
			f.refuse(grantsKey, "write a list of the names of grants")
		}
		names = append(names, name)
	}
	return names
}
