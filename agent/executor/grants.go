package executor

import (
	"errors"
	"fmt"
	"io/fs"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/fault"
)

// granted gives the container what its grants have of this node. Capabilities are given with the service's own.
func (p plan) granted(s *specs.Spec) error {
	files := &cdiFiles{dirs: p.cdi}
	for _, grant := range p.task.GetGrants() {
		name := grant.GetSpec().GetAnnotations().GetName()
		for _, m := range grant.GetSpec().GetMounts() {
			if p.replaced(m.GetTarget()) {
				continue
			}
			mount, err := p.hostMount(m.GetTarget(), m.GetSource(), "", m.GetReadOnly(), m.GetPropagation(), 0)
			if err != nil {
				return fmt.Errorf("grant %s: %w", name, err)
			}
			s.Mounts = append(s.Mounts, mount)
		}
		for _, d := range grant.GetSpec().GetDevices() {
			if err := p.addDevice(s, deviceNode{path: d.GetPath(), source: d.GetPath(), permissions: d.GetPermissions()}); err != nil {
				return fmt.Errorf("grant %s: %w", name, err)
			}
		}
		if err := p.cdiDevices(s, files, grant.GetSpec()); err != nil {
			return fmt.Errorf("grant %s: %w", name, err)
		}
	}
	return nil
}

// deviceNode is a device of this node, and where it is in the container.
type deviceNode struct {
	path, source, permissions string
}

// addDevice gives the container a device of this node. The container has it as this node does: its root is nobody here, so the device has to
// be open to others, unless it has this node's user ids.
func (p plan) addDevice(s *specs.Spec, d deviceNode) error {
	var st unix.Stat_t
	err := unix.Lstat(d.source, &st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Invalid, "this node has no device %s: give the grant a --node-label that only nodes with one have", d.source)
	case err != nil:
		return fmt.Errorf("device %s: %w", d.source, err)
	}
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	if kind == "" {
		return fault.New(fault.Invalid, "%s of this node is no device", d.source)
	}
	if missing := missingPermissions(st.Mode, d.permissions); missing != "" && p.onNode(0) != 0 {
		return fault.New(fault.Invalid, "device %s has mode %#o on this node, and a container is one of the others there, who need %s: "+
			"set the mode, such as by a udev rule", d.source, st.Mode&0o777, missing)
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: d.path, Type: kind, Major: major, Minor: minor})
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
		Allow: true, Type: kind, Major: &major, Minor: &minor, Access: d.permissions,
	})
	if d.path != d.source {
		p.moved[d.path] = d.source
	}
	return nil
}

// missingPermissions returns which of the wanted permissions others don't have.
func missingPermissions(mode uint32, wanted string) (missing string) {
	for _, letter := range wanted {
		bit := map[rune]uint32{'r': 0o4, 'w': 0o2}[letter]
		if mode&bit == 0 {
			missing += string(letter)
		}
	}
	return missing
}
