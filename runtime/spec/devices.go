package spec

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
)

// maxDevices bounds further devices, the rules for devices, and the devices with limits.
const maxDevices = 256

// ownDevice reports whether a place in a container is for a further device: below /dev, and not where every container has something.
func ownDevice(target string) bool {
	name, below := strings.CutPrefix(target, "dev/")
	if !below {
		return false
	}
	switch first, _, _ := strings.Cut(name, "/"); first {
	case "pts", "shm", "mqueue", "ptmx", "console", "fd", "stdin", "stdout", "stderr",
		"null", "zero", "full", "random", "urandom", "tty":
		return false
	}
	return true
}

// has reports whether a rule allows to read or write a further device of the container, and no more.
func (c *compiler) has(rule cgroup.DeviceRule) bool {
	for _, d := range c.plan.Devices {
		kind := byte('c')
		if d.Type == unix.S_IFBLK {
			kind = 'b'
		}
		if rule.Allow && rule.Type == kind && rule.Major == int64(d.Major) && rule.Minor == int64(d.Minor) && strings.Trim(rule.Access, "rw") == "" {
			return true
		}
	}
	return false
}

func (c *compiler) devices(list []specs.LinuxDevice) {
	if len(list) > maxDevices {
		c.bad("linux.devices", "%d devices, at most %d are possible", len(list), maxDevices)
		return
	}
	for _, d := range list {
		field := "linux.devices " + d.Path
		types := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
		out := Device{
			Target: c.inside(field, d.Path), Source: d.Path, Type: types[d.Type],
			Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666,
		}
		if at, ok := c.granted.Devices[d.Path]; ok {
			out.Source = at
		}
		if d.FileMode != nil {
			out.Mode = uint32(*d.FileMode & 0o777)
		}
		if d.UID != nil {
			out.UID = *d.UID
		}
		if d.GID != nil {
			out.GID = *d.GID
		}
		if out.Target == "." || within(out.Target, "proc") || within(out.Target, "sys") || !c.bundle && (!ownDevice(out.Target) || out.Type == unix.S_IFIFO) { // I9
			c.bad(field, "can't be the place of a device")
		}
		if out.Type == 0 || d.Major < 0 || d.Minor < 0 || d.Major >= 1<<12 || d.Minor >= 1<<20 { // the kernel's dev_t
			c.bad(field, "type %.8q, %d:%d is no device", d.Type, d.Major, d.Minor)
		}
		c.plan.Devices = append(c.plan.Devices, out)
	}
}

// deviceRules are the bundle's, and then what every container may do.
func (c *compiler) deviceRules(r *specs.LinuxResources) {
	rules := []cgroup.DeviceRule{}
	if r != nil {
		for _, d := range r.Devices {
			rules = append(rules, c.deviceRule(d))
		}
	}
	if len(rules) > maxDevices {
		c.bad("linux.resources.devices", "%d rules, at most %d are possible", len(rules), maxDevices)
	}
	c.plan.Limits.Devices = append(rules, cgroup.NodeDevices()...)
}

func (c *compiler) deviceRule(d specs.LinuxDeviceCgroup) cgroup.DeviceRule {
	out := cgroup.DeviceRule{Allow: d.Allow, Type: 'a', Major: cgroup.AnyDevice, Minor: cgroup.AnyDevice, Access: d.Access}
	if d.Major != nil && *d.Major >= 0 {
		out.Major = *d.Major
	}
	if d.Minor != nil && *d.Minor >= 0 {
		out.Minor = *d.Minor
	}
	switch d.Type {
	case "", "a":
		if out.Major != cgroup.AnyDevice || out.Minor != cgroup.AnyDevice {
			c.bad("linux.resources.devices", "numbers mean nothing without a type")
		}
	case "c", "b":
		out.Type = d.Type[0]
	default:
		c.bad("linux.resources.devices", "type %.8q is not a, b or c", d.Type)
	}
	if out.Type != 'a' && (d.Access == "" || strings.Trim(d.Access, "rwm") != "") {
		c.bad("linux.resources.devices", "access %.8q is not of the letters r, w and m", d.Access)
	}
	return out
}
