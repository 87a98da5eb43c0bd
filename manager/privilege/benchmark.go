package privilege

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/security"
)

// Benchmark holds running tasks against section 5 of the CIS Docker Benchmark, item by item and in its order. What the runtime gives every
// container, whatever a service asks for, passes with the reason. What an administrator granted is a warning that names the grant, unless
// the benchmark leaves no room for it.
//
// What confines processes beyond the defaults, the nodes say: of themselves, and of each task. isolation has what a node says of itself, by its id.
func Benchmark(tasks []*api.Task, isolation map[string][]string) []*api.SecurityCheck {
	weak := map[*api.Task]differences{} // what weakens each; a profile of seccomp takes some time to read
	for _, t := range tasks {
		var d differences
		d.weaknesses(t.GetSpec(), t.GetGrants())
		weak[t] = d
	}
	all := []check{
		item("5.1", "AppArmor profile", option(weak, "apparmor=", confined("apparmor", "AppArmor", isolation))),
		item("5.2", "SELinux security options", option(weak, "label=", confined("selinux", "SELinux", isolation))),
		item("5.3", "Linux kernel capabilities are restricted", capabilityCheck),
		item("5.4", "Privileged containers are not used", privilegedCheck),
		item("5.5", "Sensitive host directories are not mounted", mountCheck),
		item("5.6", "sshd is not run within containers", sshd),
		item("5.7", "Privileged ports are not mapped", privilegedPorts),
		item("5.8", "Only needed ports are open", portsCheck),
		item("5.9", "The host's network namespace is not shared", option(weak, security.NetworkHost, always("every container has its own network namespace"))),
		item("5.10", "Memory usage is limited", limited("memory", "--limit-memory", func(r *api.Resources) bool { return r.GetMemoryBytes() > 0 })),
		item("5.11", "CPU priority is set", limited("CPU", "--limit-cpu", func(r *api.Resources) bool { return r.GetNanoCpus() > 0 })),
		item("5.12", "The root file system is read-only", readOnly),
		item("5.13", "Incoming traffic is bound to a specific host interface", boundPorts),
		item("5.14", "Restarts are bounded", restarts),
		item("5.15", "The host's process namespace is not shared", option(weak, security.PIDHost, always("every container has its own process namespace"))),
		item("5.16", "The host's IPC namespace is not shared", option(weak, security.IPCHost, always("every container has its own IPC namespace"))),
		item("5.17", "Host devices are not exposed", devices),
		item("5.18", "Default ulimits are overwritten if needed", always("every container has bounds for files and core dumps; --ulimit sets others")),
		item("5.19", "Mount propagation is not shared", propagationCheck),
		item("5.20", "The host's UTS namespace is not shared", always("every container has its own UTS namespace")),
		item("5.21", "The default seccomp profile is not disabled", option(weak, "seccomp=", always("every process is filtered by the default profile, or by one that allows no more"))),
		item("5.22", "Exec is not used with --privileged", always("a command that is run in a task gets no more than the task has; there is no --privileged")),
		item("5.23", "Exec is not used with --user=root", notSeen("who runs commands in a task, and as whom, is in the audit log")),
		item("5.24", "Control group usage is confirmed", always("every container has control groups of its own, and can't choose others")),
		item("5.25", "No additional privileges are acquired", option(weak, "no-new-privileges=", always("every process has no_new_privs"))),
		item("5.26", "Container health is checked", healthCheck),
		item("5.27", "The image is the version that was meant", pinned),
		item("5.28", "The PIDs cgroup limit is used", always("every container has a limit of processes, 4096 unless the service says otherwise")),
		item("5.29", "The default bridge docker0 is not used", always("containers are on Skep's own bridge")),
		item("5.30", "The host's user namespaces are not shared", option(weak, "userns=", always("every container has a range of user ids of its own"))),
		item("5.31", "No engine's socket is mounted", sockets),
	}
	out := make([]*api.SecurityCheck, 0, len(all))
	for _, c := range all {
		out = append(out, c.hold(tasks))
	}
	return out
}

// verdict is what a check says of one task.
type verdict struct {
	result api.CheckResult
	reason string
}

// check is one item. Its about looks at one task, which is nil where none runs: then only what holds for every container is known.
type check struct {
	id, title string
	about     func(*api.Task) verdict
}

func item(id, title string, about func(*api.Task) verdict) check { return check{id, title, about} }

// hold is the worst that the item says of any task, with the services that it says it of.
func (c check) hold(tasks []*api.Task) *api.SecurityCheck {
	worst, services := c.about(nil), map[string]bool{}
	for _, t := range tasks {
		v := c.about(t)
		if severity(v.result) > severity(worst.result) {
			worst = v
			clear(services)
		}
		if v.result == worst.result && (v.result == api.CheckResult_CHECK_RESULT_WARN || v.result == api.CheckResult_CHECK_RESULT_FAIL) {
			services[t.GetServiceName()] = true
		}
	}
	return &api.SecurityCheck{
		Id: c.id, Title: c.title, Result: worst.result, Reason: worst.reason, Services: slices.Sorted(maps.Keys(services)),
	}
}

func severity(r api.CheckResult) int {
	switch r {
	case api.CheckResult_CHECK_RESULT_FAIL:
		return 3
	case api.CheckResult_CHECK_RESULT_WARN:
		return 2
	case api.CheckResult_CHECK_RESULT_NOT_APPLICABLE:
		return 1 // what passes elsewhere is not known here
	default:
		return 0
	}
}

func pass(reason string) verdict { return verdict{api.CheckResult_CHECK_RESULT_PASS, reason} }

// unknown is about what can't be seen from here.
func unknown(reason string) verdict {
	return verdict{api.CheckResult_CHECK_RESULT_NOT_APPLICABLE, reason}
}

func warn(format string, args ...any) verdict {
	return verdict{api.CheckResult_CHECK_RESULT_WARN, fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) verdict {
	return verdict{api.CheckResult_CHECK_RESULT_FAIL, fmt.Sprintf(format, args...)}
}

// always passes: the runtime gives it to every container.
func always(reason string) func(*api.Task) verdict {
	return func(*api.Task) verdict { return pass(reason) }
}

// notSeen is about what can't be seen from here, of any task.
func notSeen(reason string) func(*api.Task) verdict {
	return func(*api.Task) verdict { return unknown(reason) }
}

// beyond judges what a task has beyond the default: a warning where a grant has it, else a failure.
func beyond(grant, what string) verdict {
	if grant == "" {
		return fail("%s, and no grant has it", what)
	}
	return warn("%s, by grant %s", what, grant)
}

// option judges the security options that begin with a prefix: a task that none of them weakens is as otherwise says.
func option(weak map[*api.Task]differences, prefix string, otherwise func(*api.Task) verdict) func(*api.Task) verdict {
	return func(t *api.Task) verdict {
		for _, one := range weak[t] {
			if strings.HasPrefix(one.GetWhat(), prefix) {
				return beyond(one.GetGrant(), one.GetWhat())
			}
		}
		return otherwise(t)
	}
}

// confined judges whether mandatory access control of a kind confines a task, by what its node reports.
func confined(kind, name string, isolation map[string][]string) func(*api.Task) verdict {
	reports := func(all []string) bool {
		return slices.ContainsFunc(all, func(one string) bool { return one == kind || strings.HasPrefix(one, kind+"=") })
	}
	return func(t *api.Task) verdict {
		switch {
		case t == nil:
			return pass("every container is confined where its node has " + name)
		case reports(t.GetStatus().GetContainer().GetIsolation()):
			return pass("nodes with " + name + " report every process as confined by it")
		case reports(isolation[t.GetNodeId()]):
			return fail("its node has %s in force, and reports the task as not confined by it", name)
		}
		return unknown("the node has no " + name + " in force; `skep swarm update --require " + kind + "` places tasks only where it is")
	}
}

// privilegedCheck finds what is --privileged by another name.
func privilegedCheck(t *api.Task) verdict {
	c := t.GetSpec().GetContainer()
	const admin = "CAP_SYS_ADMIN"
	if sharesUsers(c) && slices.Contains(effective(slices.Concat(c.GetCapabilityAdd(), grantedCapabilities(t.GetGrants())), c.GetCapabilityDrop()), admin) {
		return beyond(granting(t.GetGrants(), admin), admin+" with the node's user ids is as much as --privileged gives")
	}
	return pass("there is no --privileged: each privilege is in a grant, by its name")
}

func healthCheck(t *api.Task) verdict {
	switch t.GetStatus().GetContainer().GetHealth() {
	case api.HealthState_HEALTH_STATE_UNSPECIFIED:
		if t != nil {
			return warn("no health check (--health-cmd, or HEALTHCHECK in the image): a program that hangs is not replaced")
		}
	case api.HealthState_HEALTH_STATE_UNHEALTHY:
		return warn("a task is unhealthy")
	}
	return pass("every task's health is checked")
}

func capabilityCheck(t *api.Task) verdict {
	var d differences
	d.capabilities(t.GetSpec().GetContainer(), t.GetGrants())
	for _, one := range d {
		if !one.GetStricter() {
			return beyond(one.GetGrant(), one.GetWhat())
		}
	}
	return pass("no container has more than Docker's fourteen")
}

func mountCheck(t *api.Task) verdict {
	for _, g := range t.GetGrants() {
		for _, m := range g.GetSpec().GetMounts() {
			if sensitive(m.GetSource()) {
				return fail("%s of the node is mounted, by grant %s", m.GetSource(), nameOf(g))
			}
		}
	}
	return pass("no directory of the node is mounted that the node itself consists of")
}

func propagationCheck(t *api.Task) verdict {
	for _, g := range t.GetGrants() {
		for _, m := range g.GetSpec().GetMounts() {
			if reach(m.GetPropagation()) == 2 {
				return beyond(nameOf(g), "mounts of the container below "+m.GetSource()+" are the node's, too")
			}
		}
	}
	return pass("every mount of a container is private or receives only")
}

func sshd(t *api.Task) verdict {
	c := t.GetSpec().GetContainer()
	for _, word := range slices.Concat(c.GetCommand(), c.GetArgs()) {
		if strings.Contains(word, "sshd") {
			return fail("a service's command names sshd: `skep exec` reaches a task without it")
		}
	}
	return pass("no service's command names sshd; what an image starts by itself is not seen from here")
}

// lowestFree is the first port that is nobody's privilege.
const lowestFree = 1024

func privilegedPorts(t *api.Task) verdict {
	for _, port := range t.GetEndpoint().GetPorts() {
		if p := port.GetPublishedPort(); p > 0 && p < lowestFree {
			return warn("port %d of the node is published", port.GetPublishedPort())
		}
	}
	return pass("no port below 1024 is published")
}

func portsCheck(t *api.Task) verdict {
	if n := len(t.GetEndpoint().GetPorts()); n > 0 {
		return unknown("only what --publish names can be reached from outside; whether it is needed, people know")
	}
	return pass("nothing is published that no service names with --publish")
}

func boundPorts(t *api.Task) verdict {
	if len(t.GetEndpoint().GetPorts()) > 0 {
		return warn("published ports are open on all addresses of a node: a firewall has to say who may come")
	}
	return pass("no port is published")
}

func limited(what, flag string, has func(*api.Resources) bool) func(*api.Task) verdict {
	return func(t *api.Task) verdict {
		if t != nil && !has(t.GetSpec().GetResources().GetLimits()) {
			return warn("no %s limit (%s): one task can take all of its node's", what, flag)
		}
		return pass("every task has a " + what + " limit")
	}
}

func readOnly(t *api.Task) verdict {
	if t != nil && !t.GetSpec().GetContainer().GetReadOnly() {
		return warn("the root file system can be written to (--read-only, with --tmpfs where it must)")
	}
	return pass("every root file system is read-only")
}

func restarts(t *api.Task) verdict {
	r := t.GetSpec().GetRestart()
	if t != nil && r.GetCondition() == api.RestartCondition_RESTART_CONDITION_ANY && r.GetDelay().AsDuration() == 0 && r.GetMaxAttempts() == 0 {
		return warn("a task is replaced at once and for ever (--restart-delay 0s without --restart-max-attempts)")
	}
	return pass("a task that ended is replaced by a new one after a delay, or not at all")
}

func devices(t *api.Task) verdict {
	for _, g := range t.GetGrants() {
		for _, device := range g.GetSpec().GetDevices() {
			return beyond(nameOf(g), "device "+device.GetPath())
		}
		for _, name := range g.GetSpec().GetCdiDevices() {
			return beyond(nameOf(g), "device "+name)
		}
	}
	return pass("no device of the node is in a container; all but those that every container has are denied")
}

func pinned(t *api.Task) verdict {
	if t != nil && !strings.Contains(t.GetSpec().GetContainer().GetImage(), "@") {
		return fail("an image is named without its digest")
	}
	return pass("every image is pinned to its digest when a service is made or updated")
}

func sockets(t *api.Task) verdict {
	for _, g := range t.GetGrants() {
		for _, m := range g.GetSpec().GetMounts() {
			if socket := controlSocket(m.GetSource()); socket != "" {
				return fail("%s is within %s, which grant %s mounts", socket, m.GetSource(), nameOf(g))
			}
		}
	}
	return pass("no socket of an engine is mounted")
}
