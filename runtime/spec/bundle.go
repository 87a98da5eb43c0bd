package spec

import (
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// namespaceFlags are the namespaces that a container can have, by the words of the specification.
func namespaceFlags() map[specs.LinuxNamespaceType]uint64 {
	return map[specs.LinuxNamespaceType]uint64{
		specs.PIDNamespace: unix.CLONE_NEWPID, specs.NetworkNamespace: unix.CLONE_NEWNET,
		specs.MountNamespace: unix.CLONE_NEWNS, specs.IPCNamespace: unix.CLONE_NEWIPC,
		specs.UTSNamespace: unix.CLONE_NEWUTS, specs.UserNamespace: unix.CLONE_NEWUSER,
		specs.CgroupNamespace: unix.CLONE_NEWCGROUP,
	}
}

// bundleLinux takes what only a bundle may ask for.
func (c *compiler) bundleLinux(l *specs.Linux) {
	c.bundleNamespaces(l.Namespaces)
	c.idMappings(l)
	c.plan.MakeNodes = !c.plan.UserNS()
	c.rootPropagation(l.RootfsPropagation)
	c.personality(l.Personality)
	for _, s := range []struct{ field, value string }{{"hostname", c.plan.Hostname}, {"domainname", c.plan.Domainname}} {
		if s.value != "" && c.plan.Namespaces&unix.CLONE_NEWUTS == 0 && !c.joins(unix.CLONE_NEWUTS) {
			c.bad(s.field, "needs a uts namespace: it would be the host's")
		}
	}
}

func (c *compiler) bundleNamespaces(list []specs.LinuxNamespace) {
	for _, n := range list {
		kind, ok := namespaceFlags()[n.Type]
		switch {
		case !ok || c.plan.Namespaces&kind != 0 || c.joins(kind):
			c.bad("linux.namespaces", "%q is unknown to this runtime or listed twice", n.Type)
		case n.Path == "":
			c.plan.Namespaces |= kind
		case kind == unix.CLONE_NEWNS || kind == unix.CLONE_NEWUSER:
			c.bad("linux.namespaces", "joining the %s namespace %.128q is not supported by this runtime", n.Type, n.Path)
		case !path.IsAbs(n.Path) || len(n.Path) > maxPath:
			c.bad("linux.namespaces", "%.128q is not an absolute path", n.Path)
		default:
			c.plan.Join = append(c.plan.Join, Join{Kind: kind, Path: c.text("linux.namespaces", n.Path)})
		}
	}
	if c.plan.Namespaces&unix.CLONE_NEWNS == 0 {
		c.bad("linux.namespaces", "a new mount namespace is required")
	}
}

func (c *compiler) joins(kind uint64) bool {
	for _, j := range c.plan.Join {
		if j.Kind == kind {
			return true
		}
	}
	return false
}

// owns reports whether a kernel parameter belongs to a namespace that is not the launcher's.
func (c *compiler) owns(name string) bool {
	kind := uint64(unix.CLONE_NEWIPC)
	switch {
	case name == "kernel.hostname" || name == "kernel.domainname":
		kind = unix.CLONE_NEWUTS
	case strings.HasPrefix(name, "net."):
		kind = unix.CLONE_NEWNET
	case !namespaced(name):
		return false
	}
	return (c.plan.Namespaces&kind != 0 || c.joins(kind)) && !strings.ContainsAny(name, "/\x00") && !strings.Contains(name, "..")
}

// propagation gives the MS_ flag of a word, and whether it is one.
func propagation(word string) (uint64, bool) {
	flag, ok := map[string]uint64{
		"private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
	}[strings.TrimPrefix(word, "r")]
	if strings.HasPrefix(word, "r") {
		flag |= unix.MS_REC
	}
	return flag, ok
}

func (c *compiler) rootPropagation(word string) {
	if word == "" {
		return
	}
	flag, ok := propagation(word)
	if !ok {
		c.bad("linux.rootfsPropagation", "%.64q is not a propagation", word)
	}
	c.plan.RootPropagation = flag
}

// personality takes the execution domain: the values are those of linux/personality.h.
func (c *compiler) personality(p *specs.LinuxPersonality) {
	if p == nil {
		return
	}
	domains := map[specs.LinuxPersonalityDomain]uint32{specs.PerLinux: 0, specs.PerLinux32: 8}
	domain, ok := domains[p.Domain]
	if !ok || len(p.Flags) > 0 {
		c.bad("linux.personality", "%.64q with %d flags is not supported by this runtime", p.Domain, len(p.Flags))
	}
	c.plan.Personality = Personality{Set: true, Domain: domain}
}

// dev decides whether the container gets the usual devices: in a file system of its own at /dev, and in a bundle in
// every /dev that is not the host's.
func (c *compiler) dev() {
	c.plan.StockDev = c.bundle
	for _, m := range c.plan.Mounts {
		if m.Target == "dev" {
			c.plan.StockDev = m.Type == "tmpfs" || c.bundle && !m.Bind()
		}
	}
}

// bundleFilesystem takes any file system.
func (c *compiler) bundleFilesystem(field string, m *Mount, in specs.Mount) {
	m.Type, m.Source = c.text(field, in.Type), c.text(field, in.Source)
	switch in.Type {
	case "", "none":
		c.bad(field, "has neither a type nor the option bind")
	case "cgroup", "cgroup2":
		m.Type = "cgroup" // of whichever version the machine has
	}
	if m.Source == "" {
		m.Source = m.Type
	}
}

// procFiles are those below /proc over which a bundle may bind something: they tell of resources, as lxcfs does for a
// container, and nothing relies on them for its safety.
func procFiles() []string {
	return []string{
		"proc/cpuinfo", "proc/diskstats", "proc/meminfo", "proc/stat", "proc/swaps", "proc/uptime", "proc/loadavg",
		"proc/slabinfo", "proc/net/dev", "proc/sys/kernel/ns_last_pid", "proc/sys/crypto/fips_enabled",
	}
}

// bundleTarget checks that /proc stays the kernel's.
func (c *compiler) bundleTarget(field string, m Mount) {
	switch {
	case m.Target == "proc" && m.Type != "proc" && (!m.Bind() || m.Source != "/proc"):
		c.bad(field, "would replace /proc")
	case strings.HasPrefix(m.Target, "proc/"):
		for _, f := range procFiles() {
			if f == m.Target && m.Bind() {
				return
			}
		}
		c.bad(field, "can't be a mount point of a container")
	}
}

// bundleOption takes an option that is not a file system's.
func (c *compiler) bundleOption(m *Mount, o string) bool {
	if flag, ok := propagation(o); ok {
		m.Propagation = flag
		return true
	}
	if o == "tmpcopyup" && m.Type == "tmpfs" {
		m.CopyUp = true
		return true
	}
	if f, ok := bundleFlags()[o]; ok {
		m.Attr, m.Clear = f.apply(m.Attr, m.Clear)
		return true
	}
	if f, ok := bundleFlags()[strings.TrimPrefix(o, "r")]; ok && f.attr != 0 && strings.HasPrefix(o, "r") {
		m.AllAttr, m.AllClear = f.apply(m.AllAttr, m.AllClear)
		return true
	}
	return false
}

// apply adds a flag to those to set or to clear. The time of access is one value of several bits.
func (f flag) apply(set, clear uint64) (uint64, uint64) {
	if f.attr&^unix.MOUNT_ATTR__ATIME == 0 && f.attr != 0 {
		set, clear = set&^unix.MOUNT_ATTR__ATIME, clear|unix.MOUNT_ATTR__ATIME
		if !f.on {
			return set, clear
		}
		return set | f.attr, clear
	}
	if f.on {
		return set | f.attr, clear &^ f.attr
	}
	return set &^ f.attr, clear | f.attr
}

// bundleFlags are flags, and those that only a bundle may say. They are not to be modified.
var bundleFlags = sync.OnceValue(func() map[string]flag {
	out := maps.Clone(flags())
	maps.Copy(out, map[string]flag{
		"diratime": {unix.MOUNT_ATTR_NODIRATIME, false}, "atime": {unix.MOUNT_ATTR_NOATIME, false},
		"norelatime": {unix.MOUNT_ATTR_STRICTATIME, true}, "nostrictatime": {unix.MOUNT_ATTR_STRICTATIME, false},
		"nosymfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, true}, "symfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, false},
	})
	return out
})

// MountOptions lists the words that a bundle may use for any mount, sorted.
func MountOptions() []string {
	out := []string{"bind", "rbind", "idmap"}
	for name, f := range bundleFlags() {
		out = append(out, name)
		if f.attr != 0 {
			out = append(out, "r"+name)
		}
	}
	for _, word := range []string{"slave", "shared", "unbindable"} {
		out = append(out, word, "r"+word)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
