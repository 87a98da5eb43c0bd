package control

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image/reference"
	"github.com/skep-io/skep/internal/expand"
	"github.com/skep-io/skep/internal/logdriver"
	"github.com/skep-io/skep/manager/privilege"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store/object"
)

// Limits of a service spec. Docker's are the least memory and CPU; the others keep a spec far below what the store takes.
const (
	minMemory   = 4 << 20   // bytes: less cannot start a process
	minNanoCPUs = 1_000_000 // 0.001 CPU
	maxReplicas = 100_000
	maxPorts    = 256
	maxSecrets  = 256 // and configs, together: the runtime takes twice as many files
	maxMounts   = 96  // the runtime takes 128, which the defaults are part of
	maxPort     = 65535
	maxModeBits = 0o7777
	maxHostname = 63 // bytes: the kernel's limit is 64
	maxSignal   = 64
	maxTemplate = 64 << 10 // bytes
	// nanosPerCPU converts the unit of a spec to the one that people type.
	nanosPerCPU = 1e9
)

var hostnamePattern = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)

// validateService reports all problems that a filled spec has whatever the state of the cluster.
func validateService(spec *api.ServiceSpec) error {
	p := new(problems)
	p.knownFields(spec)
	p.serviceName("annotations.name", spec.GetAnnotations().GetName())
	p.labels("annotations.labels", spec.GetAnnotations().GetLabels())
	p.mode(spec)
	if !taskstate.Job(spec) {
		p.updateConfig("update", spec.GetUpdate())
		p.updateConfig("rollback", spec.GetRollback())
	}
	if spec.GetRollback().GetFailureAction() == api.FailureAction_FAILURE_ACTION_ROLLBACK {
		p.add("rollback.failure_action", "a rollback can't be rolled back: use pause or continue")
	}
	p.ports("endpoint.ports", spec.GetEndpoint().GetPorts())
	p.requirements("task.resources", spec.GetTask().GetResources())
	p.known("task.restart.condition", spec.GetTask().GetRestart().GetCondition())
	p.duration("task.restart.delay", spec.GetTask().GetRestart().GetDelay())
	p.duration("task.restart.window", spec.GetTask().GetRestart().GetWindow())
	p.backoff("task.restart", spec.GetTask().GetRestart())
	p.placement("task.placement", spec.GetTask().GetPlacement())
	if _, err := logdriver.Parse(spec.GetTask().GetLogDriver()); err != nil {
		p.add("task.log_driver", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	p.container("task.container", spec.GetTask().GetContainer())
	if spec.GetTask().GetContainer().GetPrivileges().GetNetwork() == api.NamespaceMode_NAMESPACE_MODE_HOST {
		p.sharedNetwork(spec)
	}
	return p.err()
}

// updateConfig checks how tasks are to be replaced.
func (p *problems) updateConfig(path string, u *api.UpdateConfig) {
	p.duration(path+".delay", u.GetDelay())
	p.duration(path+".monitor", u.GetMonitor())
	p.duration(path+".deadline", u.GetDeadline())
	p.known(path+".order", u.GetOrder())
	p.known(path+".failure_action", u.GetFailureAction())
	if ratio := u.GetMaxFailureRatio(); !(ratio >= 0 && ratio <= 1) { // which NaN is not, either
		p.add(path+".max_failure_ratio", "invalid ratio %g: must be 0 to 1", ratio)
	}
}

// known checks that an enum has a value with a name, and not the unset one.
func (p *problems) known(path string, value protoreflect.Enum) {
	if n := value.Number(); n == 0 || value.Descriptor().Values().ByNumber(n) == nil {
		p.add(path, "has no value that this version knows: %d", n)
	}
}

// value checks that an enum, whose unset value is a default of its own, has one that this version knows.
func (p *problems) value(path string, value protoreflect.Enum) {
	if n := value.Number(); value.Descriptor().Values().ByNumber(n) == nil {
		p.add(path, "has no value that this version knows: %d", n)
	}
}

func (p *problems) serviceName(path, name string) {
	switch {
	case name == "":
		p.add(path, "name must be provided")
	case len(name) > maxServiceName:
		p.add(path, "name must be %d characters or fewer", maxServiceName)
	case !serviceNamePattern.MatchString(name):
		p.add(path, "name must be valid as a DNS name component: letters, digits, - and _, with a letter or digit at both ends")
	}
}

func (p *problems) resources(path string, r *api.Resources) {
	if cpus := r.GetNanoCpus(); cpus != 0 && cpus < minNanoCPUs {
		p.add(path+".nano_cpus", "invalid cpu value %g: Must be at least %g", float64(cpus)/nanosPerCPU, minNanoCPUs/nanosPerCPU)
	}
	if memory := r.GetMemoryBytes(); memory != 0 && memory < minMemory {
		p.add(path+".memory_bytes", "invalid memory value %d: Must be at least 4MiB", memory)
	}
	if r.GetPids() < 0 {
		p.add(path+".pids", "invalid pids value %d: Must not be negative", r.GetPids())
	}
}

func (p *problems) ports(path string, ports []*api.PortConfig) {
	if len(ports) > maxPorts {
		p.add(path, "%d ports are too many: at most %d are allowed", len(ports), maxPorts)
		return
	}
	type published struct {
		protocol api.Protocol
		port     uint32
	}
	taken := map[published]bool{}
	for i, port := range ports {
		at := fmt.Sprintf("%s[%d]", path, i)
		p.known(at+".protocol", port.GetProtocol())
		p.known(at+".publish_mode", port.GetPublishMode())
		if port.GetTargetPort() == 0 || port.GetTargetPort() > maxPort {
			p.add(at+".target_port", "target port must be 1 to %d, got %d", maxPort, port.GetTargetPort())
		}
		if port.GetPublishedPort() > maxPort {
			p.add(at+".published_port", "published port must be at most %d, got %d", maxPort, port.GetPublishedPort())
		}
		key := published{port.GetProtocol(), port.GetPublishedPort()}
		if taken[key] {
			p.add(at, "duplicate published ports provided: %d", port.GetPublishedPort())
		}
		taken[key] = true
	}
}

func (p *problems) container(at string, c *api.ContainerSpec) {
	if c.GetImage() == "" {
		p.add(at+".image", "image reference must be provided")
	} else if _, err := reference.Parse(c.GetImage()); err != nil && imageID(c.GetImage()) == "" {
		p.add(at+".image", "%v", err)
	}
	p.duration(at+".stop_grace_period", c.GetStopGracePeriod())
	p.labels(at+".labels", c.GetLabels())
	h := c.GetHostname()
	if !p.template(at+".hostname", h) && h != "" && (len(h) > maxHostname || !hostnamePattern.MatchString(h)) {
		p.add(at+".hostname", "invalid hostname %q: use letters, digits, - and ., at most %d", clip(h), maxHostname)
	}
	if d := c.GetDir(); d != "" && !path.IsAbs(d) {
		p.add(at+".dir", "the working directory '%s' is invalid, it needs to be an absolute path", clip(d))
	}
	if s := c.GetStopSignal(); s != "" {
		p.signal(at+".stop_signal", s)
	}
	for i, variable := range c.GetEnv() {
		field := fmt.Sprintf("%s.env[%d]", at, i)
		if name, _, _ := strings.Cut(variable, "="); name == "" {
			p.add(field, "invalid environment variable: it has no name")
		}
		p.template(field, variable)
	}
	p.noNUL(at, c)
	p.capabilities(at+".capability_add", c.GetCapabilityAdd())
	p.capabilities(at+".capability_drop", c.GetCapabilityDrop())
	p.mounts(at+".mounts", c.GetMounts())
	if n := len(c.GetSecrets()) + len(c.GetConfigs()); n > maxSecrets {
		p.add(at, "%d secrets and configs are too many: at most %d are allowed", n, maxSecrets)
	} else {
		p.targets(at, object.KindSecret, c.GetSecrets())
		p.targets(at, object.KindConfig, c.GetConfigs())
	}
	p.hosts(at+".hosts", c.GetHosts())
	p.dns(at+".dns", c.GetDns())
	p.process(at, c)
	p.privileges(at+".privileges", c.GetPrivileges())
}

// template checks a text that each task's node fills in. It reports whether it is one: what it becomes the node checks.
func (p *problems) template(path, value string) bool {
	if !expand.Templated(value) {
		return false
	}
	if len(value) > maxTemplate {
		p.add(path, "a template of %d bytes, at most %d are allowed", len(value), maxTemplate)
	} else if err := expand.Check(value, false); err != nil {
		p.add(path, "%v", err)
	}
	return true
}

// literal refuses a template where nobody fills it in: taken literally it would be wrong in silence. It reports whether it did.
func (p *problems) literal(path, value string) bool {
	if !expand.Templated(value) {
		return false
	}
	p.add(path, "templates such as {{.Node.Hostname}} can be used in variables, the host name, and the names of volumes: give the value itself")
	return true
}

// noNUL refuses what no system call takes: text with a zero byte.
func (p *problems) noNUL(path string, c *api.ContainerSpec) {
	for _, field := range []struct {
		name   string
		values []string
	}{
		{"command", c.GetCommand()},
		{"args", c.GetArgs()},
		{"env", c.GetEnv()},
		{"dir", []string{c.GetDir()}},
		{"user", []string{c.GetUser()}},
		{"groups", c.GetGroups()},
	} {
		for _, value := range field.values {
			if strings.ContainsRune(value, 0) {
				p.add(path+"."+field.name, "contains a zero byte")
			}
		}
	}
}

func (p *problems) capabilities(path string, names []string) {
	for _, name := range names {
		if !privilege.KnownCapability(name) {
			p.add(path, "unknown capability: %q", clip(name))
		}
	}
}

// targets checks the files that secrets or configs become. A reference without a target name gets the value's name later, which is
// right in itself.
func (p *problems) targets(container string, kind object.Kind, references []*api.SecretReference) {
	list := container + "." + kind.String() + "s"
	for i, reference := range references {
		at := fmt.Sprintf("%s[%d]", list, i)
		if reference.GetSecretId() == "" && reference.GetSecretName() == "" {
			p.add(at, "malformed %[1]s reference: it names no %[1]s", kind)
		}
		if mode := reference.GetTarget().GetMode(); mode > maxModeBits {
			p.add(at+".target.mode", "invalid file mode %#o", mode)
		}
		if name := reference.GetTarget().GetName(); name != "" && !validTarget(name) {
			p.add(at+".target.name", "invalid %s target %q: use a file name, or an absolute path", kind, clip(name))
		}
		p.onChange(at, kind, reference)
	}
}

// onChange checks what becomes of tasks when a value changes.
func (p *problems) onChange(at string, kind object.Kind, r *api.SecretReference) {
	p.value(at+".on_change", r.GetOnChange())
	signals := r.GetOnChange() == api.OnChange_ON_CHANGE_SIGNAL
	switch {
	case r.GetOnChange() != api.OnChange_ON_CHANGE_UNSPECIFIED && (r.GetPinned() || r.GetVersion() != 0):
		p.add(at+".on_change", "a %s with a version never changes: leave out the version, or what is to be done on a change", kind)
	case signals:
		p.signal(at+".signal", r.GetSignal())
	case r.GetSignal() != "":
		p.add(at+".signal", "a signal is sent with on-change=signal only")
	}
}

// validTarget reports whether a file below /run/secrets, or an absolute path, is meant, and nothing that leaves it.
func validTarget(name string) bool {
	if strings.ContainsRune(name, 0) || strings.HasSuffix(name, "/") {
		return false
	}
	if path.IsAbs(name) {
		return path.Clean(name) == name && name != "/"
	}
	return path.Clean(name) == name && name != "." && name != ".." && !strings.HasPrefix(name, "../")
}

// signal checks a name or a number.
func (p *problems) signal(at, name string) {
	if !knownSignal(name) {
		p.add(at, "invalid signal: %s: write a name, such as HUP, or a number of signal(7)", clip(name))
	}
}

// knownSignal reports whether s is a number, or a name with or without SIG.
func knownSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= maxSignal
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	return unix.SignalNum(name) != 0
}
