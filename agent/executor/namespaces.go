package executor

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
)

// shared returns the namespaces of the node that a container has in place of its own.
func shared(c *api.ContainerSpec) (kinds []specs.LinuxNamespaceType) {
	pr := c.GetPrivileges()
	if pr.GetUserns() == api.UsernsMode_USERNS_MODE_HOST {
		kinds = append(kinds, specs.UserNamespace)
	}
	if pr.GetPid() == api.NamespaceMode_NAMESPACE_MODE_HOST {
		kinds = append(kinds, specs.PIDNamespace)
	}
	if pr.GetIpc() == api.NamespaceMode_NAMESPACE_MODE_HOST {
		kinds = append(kinds, specs.IPCNamespace)
	}
	if onNodesNetwork(c) {
		kinds = append(kinds, specs.NetworkNamespace)
	}
	return kinds
}

// onNodesNetwork reports whether a container has the node's network in place of one of its own.
func onNodesNetwork(c *api.ContainerSpec) bool {
	return c.GetPrivileges().GetNetwork() == api.NamespaceMode_NAMESPACE_MODE_HOST
}

// onNode returns the node's id for a user or group of the container.
func (p plan) onNode(id uint32) uint32 {
	if slices.Contains(shared(p.container()), specs.UserNamespace) {
		return id
	}
	return p.idBase + id
}

// namespaces takes out those that the container shares with the node. The kernel lets who is root in a user namespace of its own not mount
// file systems that are about the node's processes, its IPC or its network: those of the node are shown in their place.
func (p plan) namespaces(s *specs.Spec) {
	kinds := shared(p.container())
	has := func(kind specs.LinuxNamespaceType) bool { return slices.Contains(kinds, kind) }
	s.Linux.Namespaces = slices.DeleteFunc(slices.Clone(s.Linux.Namespaces), func(n specs.LinuxNamespace) bool { return has(n.Type) })
	if has(specs.UserNamespace) {
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
		for i, m := range s.Mounts { // the ids on both sides are the same without being mapped
			s.Mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "idmap" })
		}
	} else if has(specs.PIDNamespace) {
		show(s, "/proc")
	}
	if has(specs.NetworkNamespace) {
		maps.DeleteFunc(s.Linux.Sysctl, func(name, _ string) bool { return strings.HasPrefix(name, "net.") }) // the defaults are for one of its own
		show(s, "/sys", "ro")
	}
	if !has(specs.IPCNamespace) {
		return
	}
	show(s, "/dev/shm")
	if !has(specs.UserNamespace) {
		showQueues(s)
	}
}

// show puts a directory of the node in the place of a file system of the container's own.
func show(s *specs.Spec, dir string, options ...string) {
	for i, m := range s.Mounts {
		if m.Destination == dir {
			s.Mounts[i] = specs.Mount{
				Destination: dir, Type: "bind", Source: dir, Options: append([]string{"bind", "nosuid", "noexec", "nodev"}, options...),
			}
		}
	}
}

// mqueueMagic is MQUEUE_MAGIC of ipc/mqueue.c.
const mqueueMagic = 0x19800202

// showQueues shows the node's message queues, if it has a file system of them.
func showQueues(s *specs.Spec) {
	const dir = "/dev/mqueue"
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Type == mqueueMagic {
		show(s, dir)
		return
	}
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == dir })
}
