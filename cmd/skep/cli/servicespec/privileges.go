package servicespec

import (
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// maxProfile is the managers' limit of a seccomp profile, in bytes.
const maxProfile = 256 << 10

// Words of the values of --security-opt and --userns. builtin is Docker's word for its default seccomp profile.
const (
	unconfined = "unconfined"
	byDefault  = "default"
	builtin    = "builtin"
)

// hostNetwork is the node's network.
const hostNetwork = "host"

// privileges are the flags for what isolates a service's containers, as those of docker run.
type privileges struct {
	options          flagvalue.List
	userns, pid, ipc flagvalue.Namespace
	network          flagvalue.Network
	networkRemove    flagvalue.List
}

func (p *privileges) register(set *pflag.FlagSet) {
	set.Var(&p.options, "security-opt", "Security options (seccomp=FILE, apparmor=PROFILE, label=PART:VALUE, no-new-privileges)")
	set.Var(&p.userns, "userns", `User namespace to use ("host", "private")`)
	set.Var(&p.pid, "pid", `PID namespace to use ("host", "private")`)
	set.Var(&p.ipc, "ipc", `IPC namespace to use ("host", "private")`)
}

// registerNetwork declares Docker's flags for networks, of which there is the node's own beside the one that every container has.
func (p *privileges) registerNetwork(set *pflag.FlagSet, create bool) {
	if create {
		set.Var(&p.network, "network", `Network to use ("host")`)
		return
	}
	set.Var(&p.network, "network-add", `Add a network ("host")`)
	set.Var(&p.networkRemove, "network-rm", "Remove a network")
}

// networks lists those that a container is on, by the names that flags have for them.
func networks(p *api.Privileges) []string {
	if p.GetNetwork() == api.NamespaceMode_NAMESPACE_MODE_HOST {
		return []string{hostNetwork}
	}
	return nil
}

// apply changes those parts of a container's privileges that the flags name. A container without any has the default in everything.
func (p *privileges) apply(c *api.ContainerSpec) error {
	out := c.GetPrivileges()
	if out == nil {
		out = &api.Privileges{}
	}
	if p.userns != "" {
		out.Userns = map[bool]api.UsernsMode{true: api.UsernsMode_USERNS_MODE_HOST}[p.userns.Host()]
	}
	shared := map[bool]api.NamespaceMode{true: api.NamespaceMode_NAMESPACE_MODE_HOST}
	if p.pid != "" {
		out.Pid = shared[p.pid.Host()]
	}
	if p.ipc != "" {
		out.Ipc = shared[p.ipc.Host()]
	}
	if p.network != "" || slices.Contains(p.networkRemove, hostNetwork) {
		out.Network = shared[p.network.Host()]
	}
	label := &api.SELinuxContext{}
	for _, option := range p.options {
		if err := set(out, label, option); err != nil {
			return err
		}
	}
	if c.Privileges = nil; proto.Size(out) > 0 {
		c.Privileges = out
	}
	return nil
}

// set takes in one option, KEY=VALUE or, as Docker once wrote it, KEY:VALUE. Labels of one command belong together: label becomes
// the whole of the context.
func set(out *api.Privileges, label *api.SELinuxContext, option string) error {
	key, value, found := strings.Cut(option, "=")
	if !found {
		key, value, found = strings.Cut(option, ":")
	}
	switch {
	case key == "no-new-privileges":
		return setNoNewPrivileges(out, value, found)
	case !found || value == "":
		return fault.New(fault.Invalid, "invalid --security-opt %q: write seccomp=…, apparmor=…, label=… or no-new-privileges[=false]", option)
	case key == "seccomp":
		return setSeccomp(out, value)
	case key == "apparmor":
		setAppArmor(out, value)
		return nil
	case key == "label":
		return setLabel(out, label, value)
	}
	return fault.New(fault.Invalid, "invalid --security-opt %q: write seccomp=…, apparmor=…, label=… or no-new-privileges[=false]", option)
}

func setNoNewPrivileges(out *api.Privileges, value string, given bool) error {
	on := true
	if given {
		var err error
		if on, err = strconv.ParseBool(value); err != nil {
			return fault.New(fault.Invalid, "invalid --security-opt no-new-privileges=%q: write true or false", value)
		}
	}
	out.NewPrivileges = !on
	return nil
}

// setSeccomp takes in a mode, or the name of a file with a profile, which the managers check.
func setSeccomp(out *api.Privileges, value string) error {
	switch value {
	case unconfined:
		out.Seccomp = &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_UNCONFINED}
		return nil
	case byDefault, builtin:
		out.Seccomp = nil
		return nil
	}
	file, err := flagvalue.OpenFile(value)
	if err != nil {
		return fault.New(fault.KindOf(err), "opening seccomp profile (%s) failed: %w", value, err)
	}
	defer file.Close()
	profile, err := io.ReadAll(io.LimitReader(file, maxProfile+1))
	switch {
	case err != nil:
		return fault.New(fault.Invalid, "read seccomp profile %s: %w", value, err)
	case len(profile) > maxProfile:
		return fault.New(fault.Invalid, "seccomp profile %s is too long: at most %d bytes are possible", value, maxProfile)
	}
	out.Seccomp = &api.SeccompOptions{Mode: api.SeccompMode_SECCOMP_MODE_CUSTOM, Profile: profile}
	return nil
}

func setAppArmor(out *api.Privileges, value string) {
	switch value {
	case unconfined:
		out.Apparmor = &api.AppArmorOptions{Mode: api.AppArmorMode_APP_ARMOR_MODE_UNCONFINED}
	case byDefault:
		out.Apparmor = nil
	default:
		out.Apparmor = &api.AppArmorOptions{Mode: api.AppArmorMode_APP_ARMOR_MODE_PROFILE, Profile: value}
	}
}

// setLabel takes in one part of an SELinux label, or that there is to be none.
func setLabel(out *api.Privileges, label *api.SELinuxContext, value string) error {
	part, text, _ := strings.Cut(value, ":")
	switch {
	case value == "disable":
		label.Disable = true
	case value == byDefault:
		out.SelinuxContext = nil
		return nil
	case text == "":
		return fault.New(fault.Invalid, "invalid --security-opt label=%s: write disable, user:USER, role:ROLE, type:TYPE or level:LEVEL", value)
	case part == "user":
		label.User = text
	case part == "role":
		label.Role = text
	case part == "type":
		label.Type = text
	case part == "level":
		label.Level = text
	default:
		return fault.New(fault.Invalid, "invalid --security-opt label=%s: write disable, user:USER, role:ROLE, type:TYPE or level:LEVEL", value)
	}
	out.SelinuxContext = label
	return nil
}
