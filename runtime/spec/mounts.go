package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (c *compiler) mounts(list []specs.Mount) {
	if len(list) > maxMounts {
		c.bad("mounts", "%d mounts, at most %d are possible", len(list), maxMounts)
		return
	}
	for i, m := range list {
		c.plan.Mounts = append(c.plan.Mounts, c.mount(fmt.Sprintf("mounts[%d] %.128s", i, m.Destination), m))
	}
	if len(c.plan.Sysctls) > 0 && !slices.ContainsFunc(c.plan.Mounts, func(m Mount) bool { return m.Target == "proc" }) { // I8
		c.bad("linux.sysctl", "can't be set without a mount of /proc")
	}
}

func (c *compiler) mount(field string, in specs.Mount) Mount {
	m := Mount{Target: c.inside(field, in.Destination)}
	m.Trusted = within(m.Target, "proc") || within(m.Target, "dev") || within(m.Target, "sys")
	cgroup := in.Type == "cgroup" && m.Target == cgroupTarget
	if m.Target == "." || !c.bundle && (strings.HasPrefix(m.Target, "proc/") || strings.HasPrefix(m.Target, "sys/") && !cgroup) { // I3
		c.bad(field, "can't be a mount point of a container")
	}
	c.unsupported(map[string]bool{
		field + ": uidMappings (use the option idmap)": len(in.UIDMappings) > 0,
		field + ": gidMappings (use the option idmap)": len(in.GIDMappings) > 0,
	})
	bind := in.Type == "bind"
	for _, o := range in.Options {
		bind = bind || o == "bind" || o == "rbind"
	}
	switch {
	case !bind && c.bundle:
		c.bundleFilesystem(field, &m, in)
	case in.Type == layered:
		c.layers(field, &m, in)
	case !bind:
		c.filesystem(field, &m, in)
	default:
		// The kernel lets nobody mount a procfs of processes that are the host's, but who is root there: the host's own is shown.
		hostProc := c.shares(specs.PIDNamespace) && in.Source == "/proc" && !slices.Contains(in.Options, "rbind")
		if m.Target == "proc" && !c.bundle && !hostProc { // I8
			c.bad(field, "/proc is the kernel's file system and nothing else")
		}
		m.Source = path.Clean(c.text(field, in.Source))
		if !path.IsAbs(in.Source) || len(in.Source) > maxPath {
			c.bad(field, "source %.128q is not an absolute path", in.Source)
		}
	}
	for _, o := range in.Options {
		c.option(field, &m, o)
	}
	if m.IDMap && !c.plan.UserNS() {
		c.bad(field, "idmap needs a new user namespace")
	}
	if c.bundle {
		c.bundleTarget(field, m)
		return m
	}
	if m.Type != "devpts" { // I4; a devpts without devices is none
		m.Attr |= unix.MOUNT_ATTR_NODEV
	}
	if c.plan.Process.NoNewPrivs {
		m.Attr |= unix.MOUNT_ATTR_NOSUID
	}
	if m.Layered() {
		m.Attr |= unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID
	}
	if cgroup { // I7
		m.Attr |= unix.MOUNT_ATTR_RDONLY
	}
	if !m.Bind() {
		return m
	}
	m.AllAttr |= m.Attr &^ unix.MOUNT_ATTR_RDONLY // what is mounted below the source is not safer than the source
	if m.Attr&unix.MOUNT_ATTR__ATIME != 0 {
		m.AllClear |= unix.MOUNT_ATTR__ATIME
	}
	return m
}

// within reports whether p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// cgroupTarget is where programs look for their limits.
const cgroupTarget = "sys/fs/cgroup"

// filesystem checks the type of a mount that isn't a bind mount. Only those are offered that an unprivileged user
// namespace may create.
func (c *compiler) filesystem(field string, m *Mount, in specs.Mount) {
	home := map[string]string{"proc": "proc", "sysfs": "sys", "devpts": "dev/pts", "mqueue": "dev/mqueue", "cgroup": cgroupTarget, "tmpfs": ""}
	at, ok := home[in.Type]
	switch {
	case !ok:
		c.bad(field, "file system type %.64q is not supported by this runtime", in.Type)
	case at != "" && at != m.Target:
		c.bad(field, "%s belongs at /%s", in.Type, at)
	case in.Type == "tmpfs" && (m.Target == "proc" || m.Target == "sys"):
		c.bad(field, "tmpfs would replace a kernel file system")
	}
	m.Type = in.Type
}

// layered is the type of a mount of layers.
const layered = "overlay"

// lowerOption names a layer, as overlayfs does since Linux 6.5; the topmost comes first.
const lowerOption = "lowerdir+="

// maxLayers is the most layers of one mount; image formats have fewer.
const maxLayers = 256

// layers takes a mount of an image's layers, which is always read-only.
func (c *compiler) layers(field string, m *Mount, in specs.Mount) {
	m.Type = layered
	if m.Trusted {
		c.bad(field, "would replace a kernel file system")
	}
	for _, o := range in.Options {
		dir, ok := strings.CutPrefix(o, lowerOption)
		switch {
		case !ok:
		case !path.IsAbs(dir) || len(dir) > maxPath:
			c.bad(field, "layer %.128q is not an absolute path", dir)
		default:
			m.Layers = append(m.Layers, path.Clean(c.text(field, dir)))
		}
	}
	if n := len(m.Layers); n == 0 || n > maxLayers {
		c.bad(field, "%d layers, 1 to %d are possible", n, maxLayers)
	}
}

// flag is a mount option that is a MOUNT_ATTR_ flag: on sets it, otherwise it is cleared.
type flag struct {
	attr uint64
	on   bool
}

// flags are what the options of any mount may be. They are not to be modified.
var flags = sync.OnceValue(func() map[string]flag {
	return map[string]flag{
		"ro": {unix.MOUNT_ATTR_RDONLY, true}, "rw": {unix.MOUNT_ATTR_RDONLY, false},
		"nosuid": {unix.MOUNT_ATTR_NOSUID, true}, "suid": {unix.MOUNT_ATTR_NOSUID, false},
		"nodev": {unix.MOUNT_ATTR_NODEV, true}, "dev": {unix.MOUNT_ATTR_NODEV, false},
		"noexec": {unix.MOUNT_ATTR_NOEXEC, true}, "exec": {unix.MOUNT_ATTR_NOEXEC, false},
		"noatime": {unix.MOUNT_ATTR_NOATIME, true}, "nodiratime": {unix.MOUNT_ATTR_NODIRATIME, true},
		"strictatime": {unix.MOUNT_ATTR_STRICTATIME, true}, "relatime": {unix.MOUNT_ATTR__ATIME, false},
		"defaults": {0, false}, "bind": {0, false}, "private": {0, false}, "rprivate": {0, false},
	}
})

// maxParameter is the kernel's limit for one parameter of a file system.
const maxParameter = 256

// parameters are the options that each file system takes itself.
func parameters(fstype string) []string {
	switch fstype {
	case "tmpfs":
		return []string{"size", "mode", "uid", "gid", "nr_inodes"}
	case "devpts":
		return []string{"newinstance", "ptmxmode", "mode", "gid", "max"}
	}
	return nil
}

// subdirOption is mount(8)'s, noLinksOption our own, in the name space that it leaves to others.
const (
	subdirOption  = "X-mount.subdir="
	noLinksOption = "X-skep.nolinks"
)

func (c *compiler) option(field string, m *Mount, o string) {
	if c.bundle && c.bundleOption(m, o) {
		return
	}
	if flag, ok := propagation(o); ok && m.Bind() && flag&unix.MS_UNBINDABLE == 0 {
		if m.Propagation = flag; flag&unix.MS_PRIVATE != 0 {
			m.Propagation = 0
		}
		return
	}
	if f, ok := flags()[o]; ok {
		m.Attr &^= f.attr
		if f.on {
			m.Attr |= f.attr
		}
		return
	}
	if dir, ok := strings.CutPrefix(o, subdirOption); ok && (m.Bind() || m.Type == layered && !c.bundle) {
		m.Subdir = c.inside(field, "/"+dir)
		return
	}
	if strings.HasPrefix(o, lowerOption) && m.Layered() {
		return
	}
	if m.Bind() {
		switch o {
		case "rbind":
			m.Recursive = true
			return
		case "idmap":
			m.IDMap = true
			return
		case noLinksOption:
			m.NoLinks = true
			return
		case "rro":
			m.AllAttr |= unix.MOUNT_ATTR_RDONLY
			return
		}
	}
	key, value, _ := strings.Cut(o, "=")
	if c.bundle && !m.Bind() && len(o) < maxParameter {
		m.Options = append(m.Options, Option{Key: c.text(field, key), Value: c.text(field, value)})
		return
	}
	for _, p := range parameters(m.Type) {
		if p == key && len(o) < maxParameter {
			m.Options = append(m.Options, Option{Key: key, Value: c.text(field, value)})
			return
		}
	}
	c.bad(field, "option %.64q is not supported by this runtime", o)
}
