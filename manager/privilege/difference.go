package privilege

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/security"
)

// What a difference takes from the score.
const (
	pointsTakeover = 50 // with it, the container is the node
	pointsGrave    = 25 // one mistake elsewhere away from that
	pointsNode     = 15 // something of the node can be reached
	pointsWeak     = 10 // the kernel has more to get wrong
	pointsSlight   = 5
)

// Differences returns in what a task template differs from the default container, with its grants: what is weaker first, and of that what
// weighs most.
func Differences(spec *api.TaskSpec, grants []*api.Grant) []*api.SecurityDifference {
	c := spec.GetContainer()
	var d differences
	d.capabilities(c, grants)
	d.node(grants)
	d.weaknesses(spec, grants)
	if adj := c.GetOomScoreAdj(); adj < 0 {
		d.weaker(pointsSlight, "", fmt.Sprintf("OOM score %d", adj), "when memory runs out, the kernel ends other processes of the node first")
	}
	for _, m := range c.GetMounts() {
		if m.GetTmpfsExec() {
			d.weaker(pointsSlight, "", "programs on "+m.GetTarget()+" can be run", "what gets into the container can bring its own programs, even if the root is read-only")
		}
	}
	if c.GetSecretOffline() && len(c.GetSecrets())+len(c.GetConfigs()) > 0 {
		d.weaker(pointsSlight, "", "secrets and configs on the disks of its nodes", "who has a node's disk, and what opens the node's own key, has them; by default "+
			"they are in memory only")
	}
	d.limits(spec)
	slices.SortStableFunc(d, func(a, b *api.SecurityDifference) int { return cmp.Compare(b.GetPoints(), a.GetPoints()) })
	return d
}

// Score is 100 without what the differences take, and 0 at least.
func Score(differences []*api.SecurityDifference) uint32 {
	left := 100
	for _, d := range differences {
		left -= int(d.GetPoints())
	}
	return uint32(max(left, 0))
}

type differences []*api.SecurityDifference

func (d *differences) weaker(points uint32, grant, what, why string) {
	*d = append(*d, &api.SecurityDifference{What: what, Why: why, Grant: grant, Points: points})
}

func (d *differences) stricter(what, why string) {
	*d = append(*d, &api.SecurityDifference{What: what, Why: why, Stricter: true})
}

func (d *differences) capabilities(c *api.ContainerSpec, grants []*api.Grant) {
	added := slices.Concat(c.GetCapabilityAdd(), grantedCapabilities(grants))
	has := effective(added, c.GetCapabilityDrop())
	for _, name := range has {
		if !slices.Contains(DefaultCapabilities(), name) {
			points, why := weighCapability(name, sharesUsers(c))
			d.weaker(points, granting(grants, name), "capability "+name, why)
		}
	}
	var dropped []string
	for _, name := range DefaultCapabilities() {
		if !slices.Contains(has, name) {
			dropped = append(dropped, strings.TrimPrefix(name, capabilityPrefix))
		}
	}
	if len(dropped) > 0 {
		d.stricter("without the capabilities "+strings.Join(dropped, ", "), "what is not there can't be misused")
	}
}

// granting names the grant that gives a capability, or nothing.
func granting(grants []*api.Grant, capability string) string {
	for _, g := range grants {
		if slices.Contains(g.GetSpec().GetCapabilities(), capability) || slices.Contains(g.GetSpec().GetCapabilities(), AllCapabilities) {
			return nameOf(g)
		}
	}
	return ""
}

func nameOf(g *api.Grant) string { return g.GetSpec().GetAnnotations().GetName() }

// sharesUsers reports whether a container has the node's user ids.
func sharesUsers(c *api.ContainerSpec) bool {
	return c.GetPrivileges().GetUserns() == api.UsernsMode_USERNS_MODE_HOST
}

// weighCapability says what a capability takes from the score, and why. It holds in the container's own user namespace only, unless that is
// the node's.
func weighCapability(name string, onNode bool) (points uint32, why string) {
	if onNode {
		return weighOnNode(name)
	}
	switch name {
	case "CAP_SYS_ADMIN":
		return pointsGrave, "mounts and much else: most escapes through mistakes of the kernel begin with it"
	case "CAP_BPF", "CAP_PERFMON":
		return pointsGrave, "programs of one's own in the kernel, whose checks have been wrong before"
	case "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH":
		return pointsNode, "reads what other processes and users of the container have, past its permissions"
	case "CAP_NET_ADMIN":
		return pointsWeak, "changes the container's own network: its address, its routes, its packet filter"
	}
	return pointsWeak, "a part of the kernel is open that is closed by default"
}

// weighOnNode is about a capability where the container has the node's user ids: then it is one of the node's root.
func weighOnNode(name string) (points uint32, why string) {
	switch name {
	case "CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_BPF", "CAP_MAC_ADMIN", "CAP_SYS_BOOT":
		return pointsTakeover, "with the node's user ids, it is a way to be the node"
	}
	return pointsGrave, "with the node's user ids, it is not the container's alone"
}

// node is about what the grants have of the node.
func (d *differences) node(grants []*api.Grant) {
	for _, g := range grants {
		for _, m := range g.GetSpec().GetMounts() {
			points, why := weighMount(m)
			mode := "to write"
			if m.GetReadOnly() {
				mode = "to read"
			}
			if word := propagation(m.GetPropagation()); word != "" {
				mode += ", " + word
			}
			d.weaker(points, nameOf(g), fmt.Sprintf("%s of the node, %s, at %s", m.GetSource(), mode, m.GetTarget()), why)
		}
		for _, device := range g.GetSpec().GetDevices() {
			d.weaker(pointsNode, nameOf(g), fmt.Sprintf("device %s (%s)", device.GetPath(), device.GetPermissions()),
				"its driver takes commands from the container")
		}
		for _, name := range g.GetSpec().GetCdiDevices() {
			d.weaker(pointsNode, nameOf(g), "device "+name, "its driver takes commands from the container; which files of the node come with it, "+
				"the node's CDI files say")
		}
	}
}

func weighMount(m *api.GrantMount) (points uint32, why string) {
	kernel := within(m.GetSource(), "/proc") || within(m.GetSource(), "/sys")
	switch {
	case controlSocket(m.GetSource()) != "":
		return pointsTakeover, "the socket " + controlSocket(m.GetSource()) + " commands the node"
	case kernel && !m.GetReadOnly():
		return pointsTakeover, "the kernel's settings, such as which program it runs for a crash, are there to write"
	case kernel:
		return pointsNode, "what the kernel tells of the node, its processes and devices can be read"
	case within(m.GetSource(), "/dev"):
		return pointsNode, "the files beside the node's devices, such as its shared memory, are open; devices themselves stay closed"
	case sensitive(m.GetSource()) && !m.GetReadOnly():
		return pointsTakeover, "who writes there as root is the node's root"
	case reach(m.GetPropagation()) == 2:
		return pointsGrave, "what the container mounts there is mounted on the node, too"
	case sensitive(m.GetSource()):
		return pointsGrave, "the node's own files, its keys among them, can be read"
	case m.GetReadOnly():
		return pointsWeak, "files of the node can be read"
	}
	return pointsNode, "files of the node can be changed, as its root"
}

// sensitive reports whether a path of a node is, or holds, what the node itself consists of: the directories that the CIS Docker Benchmark
// names (5.5), and where Skep and other engines keep their state.
func sensitive(path string) bool {
	return slices.ContainsFunc([]string{
		"/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sys", "/usr", "/bin", "/sbin", "/root", "/run", "/var/run",
		"/var/lib/skep", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/var/spool/cron",
	}, func(dir string) bool { return within(path, dir) || within(dir, path) })
}

// Private reports whether a path of a node is where Skep keeps its keys and the state of the swarm, if the daemon is told nothing else: no
// grant gives that. The node knows where they really are, and refuses that, too.
func Private(path string) bool {
	path = plainRun(path)
	return within(path, "/var/lib/skep") || within(path, "/run/skep")
}

// plainRun is a path without the link that /var/run is.
func plainRun(path string) string {
	if within(path, "/var/run") {
		return strings.TrimPrefix(path, "/var")
	}
	return path
}

// controlSocket returns the socket of an engine, or of what else starts programs as root, that is at, or below, a path of a node; or nothing.
func controlSocket(path string) string {
	path = plainRun(path)
	for _, socket := range []string{
		"/run/docker.sock", "/run/skep/skep.sock", "/run/skep/runtime.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock",
		"/run/crio/crio.sock", "/run/systemd/private", "/run/dbus/system_bus_socket",
	} {
		if within(socket, path) {
			return socket
		}
	}
	return ""
}

// within reports whether a path is dir or below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

func (d *differences) weaknesses(task *api.TaskSpec, grants []*api.Grant) {
	for _, w := range security.Weaknesses(task) {
		points := uint32(pointsNode)
		switch w.Option {
		case security.UsernsHost:
			points = pointsTakeover
		case security.PIDHost, security.NetworkHost, "seccomp=unconfined":
			points = pointsGrave
		}
		if strings.HasPrefix(w.Option, security.LogPrefix) {
			points = pointsSlight
		}
		d.weaker(points, allowing(grants, w.Option), w.Option, w.Means)
	}
}

// allowing names the grant that allows a security option, or nothing.
func allowing(grants []*api.Grant, option string) string {
	for _, g := range grants {
		if allows(g, option) {
			return nameOf(g)
		}
	}
	return ""
}

func allows(g *api.Grant, option string) bool {
	return slices.Contains(g.GetSpec().GetSecurityOptions(), option)
}

// limits is about what a service does without by itself.
func (d *differences) limits(spec *api.TaskSpec) {
	c, limits := spec.GetContainer(), spec.GetResources().GetLimits()
	if c.GetReadOnly() {
		d.stricter("read-only root file system", "what gets in can't stay")
	}
	if user := c.GetUser(); user != "" && user != "root" && !strings.HasPrefix(user, "0") && !strings.HasPrefix(user, "root:") {
		d.stricter("user "+user, "the process is not even root of its container, and has no capability in effect")
	}
	if limits.GetMemoryBytes() > 0 {
		d.stricter("a memory limit", "it can't use up the node's memory")
	}
	if limits.GetNanoCpus() > 0 {
		d.stricter("a CPU limit", "it can't take all processors")
	}
	if c.GetStorageSizeBytes() > 0 {
		d.stricter("a storage size", "it can't fill the node's disk through its root file system")
	}
	if limits.GetPids() > 0 {
		d.stricter("a limit of processes of its own", "beside the default of 4096")
	}
}
