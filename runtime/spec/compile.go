package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/seccomp"
)

// ErrSpec is returned when a configuration is malformed, insecure, or asks for what the runtime does not offer.
var ErrSpec = errors.New("container configuration not usable")

// Limits of a configuration. They bound the launch table and what a damaged or hostile request can cost; all are far
// above what real services use.
const (
	maxMounts   = 128
	maxPaths    = 256 // masked or read-only
	maxSysctls  = 128
	maxGroups   = 1024
	maxArgs     = 4096
	maxStrings  = 1 << 20 // bytes of arguments and environment together; the kernel's limit is 2 MiB
	maxPath     = 4095    // PATH_MAX without the NUL
	maxDepth    = 128     // names in a path in the container: each is a step of the launch
	maxHostname = 64      // __NEW_UTS_LEN
	maxRanges   = 340     // the kernel's own
	maxProblems = 32      // reported at once
)

// compiler gathers the plan and everything that is wrong.
type compiler struct {
	// bundle says that the configuration is a bundle's, whose author decides on its isolation: the invariants are not
	// demanded of it.
	bundle   bool
	granted  Granted
	plan     Plan
	problems []error
}

// bad notes a problem of a field.
func (c *compiler) bad(field, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
}

// unsupported notes fields that are set but not offered.
func (c *compiler) unsupported(fields map[string]bool) {
	names := make([]string, 0, len(fields))
	for name, set := range fields {
		if set {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		c.bad(name, "is not supported by this runtime")
	}
}

// Granted is what a container has of the host, beyond what its configuration alone may ask for, because whoever owns the host said so. The
// zero value is nothing.
type Granted struct {
	// Namespaces are those that it shares with the host: pid, ipc, user or network. Its configuration must not list them.
	Namespaces []specs.LinuxNamespaceType
	// Devices are where on the host the devices are that have another path there than in the container, by the latter.
	Devices map[string]string
}

// Compile checks s for a machine of the given GOARCH and gives its plan, for which the invariants of this package hold.
// It does not keep or modify s.
func Compile(s *specs.Spec, goarch string) (*Plan, error) {
	return CompileGranted(s, goarch, Granted{})
}

// CompileGranted is Compile for a container that has something of the host.
func CompileGranted(s *specs.Spec, goarch string, granted Granted) (*Plan, error) {
	return compile(s, goarch, compiler{granted: granted})
}

// CompileBundle is Compile for the configuration of an OCI bundle: what it doesn't ask for, the container doesn't get.
// Of the invariants only I5 and I6 hold. Root and hooks are the caller's to care for.
func CompileBundle(s *specs.Spec, goarch string) (*Plan, error) {
	return compile(s, goarch, compiler{bundle: true})
}

func compile(s *specs.Spec, goarch string, c compiler) (*Plan, error) {
	if s == nil || s.Process == nil || s.Linux == nil {
		return nil, fmt.Errorf("%w: process and linux must be given", ErrSpec)
	}
	c.unsupported(map[string]bool{
		"hooks": s.Hooks != nil && !c.bundle, "solaris": s.Solaris != nil, "windows": s.Windows != nil, "vm": s.VM != nil,
		"zos": s.ZOS != nil, "freebsd": s.FreeBSD != nil,
	})
	c.plan.ReadOnlyRoot = s.Root != nil && s.Root.Readonly
	c.plan.Hostname = c.name("hostname", s.Hostname)
	c.plan.Domainname = c.name("domainname", s.Domainname)
	c.linux(s.Linux)
	c.process(s.Process)
	c.mounts(s.Mounts)
	c.seccomp(s.Linux.Seccomp, goarch)
	c.dev()
	c.landlock()
	if len(c.problems) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrSpec, errors.Join(c.problems...))
	}
	return &c.plan, nil
}

func (c *compiler) name(field, name string) string {
	if len(name) > maxHostname {
		c.bad(field, "%d bytes, at most %d are possible", len(name), maxHostname)
	}
	return c.text(field, name)
}

// text checks a string that goes to the kernel.
func (c *compiler) text(field, s string) string {
	if strings.ContainsRune(s, 0) {
		c.bad(field, "contains a NUL byte")
	}
	return s
}

// inside checks an absolute path in the container and gives it relative to the root.
func (c *compiler) inside(field, p string) string {
	c.text(field, p)
	if !path.IsAbs(p) && !c.bundle || len(p) > maxPath {
		c.bad(field, "%.128q is not an absolute path of at most %d bytes", p, maxPath)
	}
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if n := strings.Count(p, "/") + 1; n > maxDepth {
		c.bad(field, "%.128q has %d directories, at most %d are possible", p, n, maxDepth)
	}
	if p == "" {
		return "."
	}
	return p
}

func (c *compiler) linux(l *specs.Linux) {
	c.unsupported(map[string]bool{
		"linux.intelRdt": l.IntelRdt != nil, "linux.timeOffsets": len(l.TimeOffsets) > 0,
		"linux.netDevices":   len(l.NetDevices) > 0,
		"linux.memoryPolicy": l.MemoryPolicy != nil,
		"linux.personality":  l.Personality != nil && !c.bundle,
		"linux.cgroupsPath":  l.CgroupsPath != "" && !c.bundle,
		"linux.rootfsPropagation": l.RootfsPropagation != "" && l.RootfsPropagation != "private" &&
			l.RootfsPropagation != "rprivate" && !c.bundle,
	})
	c.plan.MountLabel = c.label("linux.mountLabel", l.MountLabel)
	c.devices(l.Devices)
	if c.bundle {
		c.bundleLinux(l)
	} else {
		c.namespaces(l.Namespaces)
		c.idMappings(l)
	}
	c.plan.Masked = c.paths("linux.maskedPaths", l.MaskedPaths)
	c.plan.ReadOnly = c.paths("linux.readonlyPaths", l.ReadonlyPaths)
	c.sysctls(l.Sysctl)
	c.resources(l.Resources)
}

// namespaces checks that all seven are asked for, new, but those that are shared (I1).
func (c *compiler) namespaces(list []specs.LinuxNamespace) {
	missing := map[specs.LinuxNamespaceType]bool{
		specs.PIDNamespace: true, specs.NetworkNamespace: true, specs.MountNamespace: true, specs.IPCNamespace: true,
		specs.UTSNamespace: true, specs.UserNamespace: true, specs.CgroupNamespace: true,
	}
	for _, n := range c.granted.Namespaces {
		if !slices.Contains([]specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UserNamespace, specs.NetworkNamespace}, n) {
			c.bad("linux.namespaces", "the %.32q namespace can't be shared with the host", n)
		}
		delete(missing, n)
	}
	for _, n := range list {
		if !missing[n.Type] {
			c.bad("linux.namespaces", "%q is unknown, shared with the host, or listed twice", n.Type)
		}
		if n.Path != "" {
			c.bad("linux.namespaces", "joining the %s namespace %.128q is not supported by this runtime", n.Type, n.Path)
		}
		delete(missing, n.Type)
		c.plan.Namespaces |= namespaceFlags()[n.Type]
	}
	names := make([]string, 0, len(missing))
	for n := range missing {
		names = append(names, string(n))
	}
	sort.Strings(names)
	for _, n := range names {
		c.bad("linux.namespaces", "a new %s namespace is required", n)
	}
}

// idMappings takes the ids of a user namespace; one that shares the host's has none of its own.
func (c *compiler) idMappings(l *specs.Linux) {
	if c.plan.UserNS() || !c.bundle && !c.shares(specs.UserNamespace) {
		c.plan.UIDs = c.ranges("linux.uidMappings", l.UIDMappings)
		c.plan.GIDs = c.ranges("linux.gidMappings", l.GIDMappings)
	} else if len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0 {
		c.bad("linux.uidMappings", "needs a new user namespace")
	}
}

// shares reports whether the container has the host's namespace of a kind, because the host's owner said so.
func (c *compiler) shares(kind specs.LinuxNamespaceType) bool {
	return slices.Contains(c.granted.Namespaces, kind)
}

// ranges checks an id mapping (I2).
func (c *compiler) ranges(field string, list []specs.LinuxIDMapping) []IDRange {
	if len(list) > maxRanges {
		c.bad(field, "%d ranges, at most %d are possible", len(list), maxRanges)
		return nil
	}
	var out []IDRange
	for _, m := range list {
		switch {
		case m.Size == 0 || m.ContainerID+m.Size < m.ContainerID || m.HostID+m.Size < m.HostID:
			c.bad(field, "range of %d ids from %d to %d is empty or too long", m.Size, m.ContainerID, m.HostID)
		case m.HostID == 0 && !c.bundle:
			c.bad(field, "would give the container the host's root, id 0")
		case overlaps(out, m):
			c.bad(field, "ranges overlap at %d", m.ContainerID)
		}
		out = append(out, IDRange{Container: m.ContainerID, Host: m.HostID, Size: m.Size})
	}
	if _, ok := Host(out, 0); !ok { // the launcher's child is the container's root until it is someone else
		c.bad(field, "must map the container's id 0")
	}
	return out
}

func overlaps(have []IDRange, m specs.LinuxIDMapping) bool {
	for _, r := range have {
		if m.ContainerID < r.Container+r.Size && r.Container < m.ContainerID+m.Size {
			return true
		}
		if m.HostID < r.Host+r.Size && r.Host < m.HostID+m.Size {
			return true
		}
	}
	return false
}

func (c *compiler) paths(field string, list []string) []string {
	if len(list) > maxPaths {
		c.bad(field, "%d paths, at most %d are possible", len(list), maxPaths)
		return nil
	}
	out := make([]string, 0, len(list))
	for _, p := range list {
		rel := c.inside(field, p)
		if rel == "." {
			c.bad(field, "can't be the root itself")
		}
		out = append(out, rel)
	}
	return out
}

// namespaced are the kernel parameters that belong to a namespace of the container; all others are the host's.
func namespaced(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs.mqueue.")
}

func (c *compiler) sysctls(all map[string]string) {
	if len(all) > maxSysctls {
		c.bad("linux.sysctl", "%d parameters, at most %d are possible", len(all), maxSysctls)
		return
	}
	for name, value := range all {
		field := fmt.Sprintf("linux.sysctl[%.64s]", name)
		if c.bundle && !c.owns(name) {
			c.bad(field, "is not a parameter of a namespace that the container does not share")
			continue
		}
		if !c.bundle && (!namespaced(name) || !c.owns(name)) || strings.ContainsAny(name, "/\x00") || strings.Contains(name, "..") {
			c.bad(field, "is not a parameter of the container's own namespaces")
			continue
		}
		c.text(field, value)
		c.plan.Sysctls = append(c.plan.Sysctls, Sysctl{Path: strings.ReplaceAll(name, ".", "/"), Value: value})
	}
	sort.Slice(c.plan.Sysctls, func(i, j int) bool { return c.plan.Sysctls[i].Path < c.plan.Sysctls[j].Path })
}

func (c *compiler) seccomp(profile *specs.LinuxSeccomp, goarch string) {
	if profile == nil {
		return
	}
	if c.bundle {
		profile = seccomp.Settle(profile)
	}
	f, err := seccomp.Compile(profile, goarch)
	if err != nil {
		c.bad("linux.seccomp", "%v", err)
		return
	}
	c.plan.Seccomp = f
}

// landlock asks for confinement to the container's own files, unless the process may mount: Landlock would forbid that. Without a
// seccomp filter it may, in a user namespace that it makes; the launcher knows whether there is one.
func (c *compiler) landlock() {
	const sysAdmin = 1 << unix.CAP_SYS_ADMIN
	c.plan.Landlock = !c.bundle && c.plan.Process.Capabilities.Bounding&sysAdmin == 0
}
