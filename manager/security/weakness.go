package security

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/logdriver"
)

// Weakness is one thing that a spec takes away from the default isolation.
type Weakness struct {
	// Option is what asks for it, as people type it: "seccomp=unconfined", "userns=host".
	Option string
	// Means says in a few words what the process can do for it.
	Means string
}

// The options that share a namespace of the node. On the command line each is a flag of its own, such as --pid host.
const (
	UsernsHost = "userns=host"
	PIDHost    = "pid=host"
	IPCHost    = "ipc=host"
	// NetworkHost is with the namespaces because that is what it is.
	NetworkHost = "network=host"
)

// LogPrefix begins the options that let the lines of a task go somewhere else than into its own files.
const LogPrefix = "log="

// Weaknesses returns what a task takes away from the default isolation, always in the same order; none for the
// defaults and for what is stricter. The spec must be valid: a profile that can't be read counts as one that allows everything.
func Weaknesses(task *api.TaskSpec) []Weakness {
	p := task.GetContainer().GetPrivileges()
	var out []Weakness
	add := func(weak bool, option, means string) {
		if weak {
			out = append(out, Weakness{Option: option, Means: means})
		}
	}
	const host = api.NamespaceMode_NAMESPACE_MODE_HOST
	add(p.GetUserns() == api.UsernsMode_USERNS_MODE_HOST, UsernsHost, "root in the container is root on the node")
	add(p.GetPid() == host, PIDHost, "all processes of the node can be seen, and signalled by who has their user ids")
	add(p.GetIpc() == host, IPCHost, "shared memory of the node's programs is open to who has their user ids")
	add(p.GetNetwork() == host, NetworkHost, "it is in the node's network: services of the node that listen on 127.0.0.1 are open to it, and no rule of Skep's holds")
	add(p.GetNewPrivileges(), "no-new-privileges=false", "set-user-id programs in the image give their rights")
	switch seccomp := p.GetSeccomp(); seccomp.GetMode() {
	case api.SeccompMode_SECCOMP_MODE_UNCONFINED:
		add(true, "seccomp=unconfined", "every system call can be made")
	case api.SeccompMode_SECCOMP_MODE_CUSTOM:
		more := Beyond(seccomp.GetProfile())
		add(len(more) > 0, "seccomp=PROFILE", "system calls can be made that the default profile refuses: "+few(more))
	}
	add(p.GetApparmor().GetMode() == api.AppArmorMode_APP_ARMOR_MODE_UNCONFINED, "apparmor=unconfined",
		"no AppArmor profile confines the process")
	add(p.GetApparmor().GetMode() == api.AppArmorMode_APP_ARMOR_MODE_PROFILE, "apparmor="+p.GetApparmor().GetProfile(),
		"whatever that AppArmor profile of the node allows, instead of Skep's")
	if log, err := logdriver.Parse(task.GetLogDriver()); err == nil && log.Destination() != "" {
		means := "each node's root sends what it writes to " + log.Destination()
		if log.Destination() == logdriver.Journald || log.Syslog.Network == logdriver.Unixgram {
			means = "what it writes is in a log of the node, beside the node's own lines, and can take their place"
		}
		add(true, LogPrefix+log.Destination(), means)
	}
	selinux := p.GetSelinuxContext()
	add(selinux.GetDisable(), "label=disable", "no SELinux label confines the process")
	for _, part := range []struct{ name, value string }{
		{"user", selinux.GetUser()}, {"role", selinux.GetRole()}, {"type", selinux.GetType()}, {"level", selinux.GetLevel()},
	} {
		add(part.value != "", "label="+part.name+":"+part.value, "whatever the node's SELinux policy allows to that "+part.name)
	}
	return out
}

// few names the first of a list, and how many there are more.
func few(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// everything stands for all calls that no rule names.
const everything = "those that it does not name"

// Beyond returns the system calls that a profile allows, under some condition, though the default profile does not, sorted and each
// once. A rule is within the default one if that has the same condition on arguments or none, for capabilities that the rule
// asks for, too.
func Beyond(profile []byte) []string {
	var custom moby.Seccomp
	if err := json.Unmarshal(profile, &custom); err != nil {
		return []string{everything}
	}
	var out []string
	if permissive(custom.DefaultAction) {
		out = append(out, everything)
	}
	byName := map[string][]*moby.Syscall{}
	for _, rule := range moby.DefaultProfile().Syscalls {
		if rule.Action != specs.ActAllow {
			continue
		}
		for _, name := range rule.Names {
			byName[name] = append(byName[name], rule)
		}
	}
	for _, rule := range custom.Syscalls {
		if rule == nil || !permissive(rule.Action) {
			continue
		}
		//lint:ignore SA1019 old profiles have it, and Docker's reader takes it
		for _, name := range append(slices.Clone(rule.Names), rule.Name) {
			allows := func(d *moby.Syscall) bool { return covers(d, rule) }
			if name != "" && !slices.ContainsFunc(byName[name], allows) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// permissive reports whether an action lets a call through.
func permissive(a specs.LinuxSeccompAction) bool {
	return a == specs.ActAllow || a == specs.ActLog || a == specs.ActTrace
}

// covers reports whether a rule of the default profile allows what another rule allows.
func covers(d, rule *moby.Syscall) bool {
	if len(d.Args) > 0 && !slices.Equal(d.Args, rule.Args) {
		return false
	}
	if d.Includes == nil {
		return true
	}
	var has []string
	if rule.Includes != nil {
		has = rule.Includes.Caps
	}
	for _, capability := range d.Includes.Caps {
		if !slices.Contains(has, capability) {
			return false
		}
	}
	return true
}
