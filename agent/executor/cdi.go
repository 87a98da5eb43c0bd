package executor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// cdiDevices gives the container devices as CDI files of this node describe them. The files are root's, so what they say is what this node's
// administrator says; they are held to what any grant may give all the same.
func (p plan) cdiDevices(s *specs.Spec, files *cdiFiles, grant *api.GrantSpec) error {
	for _, name := range grant.GetCdiDevices() {
		device, err := files.device(name)
		if err != nil {
			return err
		}
		if device == nil {
			return p.noCDI(files.cache, name)
		}
		file := device.GetSpec()
		if err := rootsFile(file.GetPath()); err != nil {
			return err
		}
		if err = p.mayEdit(file.ContainerEdits, grant); err == nil {
			err = p.mayEdit(device.ContainerEdits, grant)
		}
		if err == nil && !files.shared[file] {
			files.shared[file] = true
			err = p.edit(s, file.ContainerEdits)
		}
		if err == nil {
			err = p.edit(s, device.ContainerEdits)
		}
		if err != nil {
			return fmt.Errorf("CDI device %s (%s): %w", name, file.GetPath(), err)
		}
	}
	return nil
}

// cdiFiles are the files of a node, for one container. They are read when the first device is looked for.
type cdiFiles struct {
	dirs   []string
	cache  *cdi.Cache
	shared map[*cdi.Spec]bool // whose edits for all their devices were made
}

// device finds a device; it gives nil if there is none.
func (f *cdiFiles) device(name string) (*cdi.Device, error) {
	if f.cache == nil {
		cache, err := cdi.NewCache(cdi.WithSpecDirs(f.dirs...), cdi.WithAutoRefresh(false))
		if err != nil {
			return nil, fmt.Errorf("read CDI files: %w", err)
		}
		f.cache, f.shared = cache, map[*cdi.Spec]bool{}
	}
	return f.cache.GetDevice(name), nil
}

// maxNamed bounds how many things a message lists.
const maxNamed = 8

// noCDI says why there is no device of a name.
func (p plan) noCDI(cache *cdi.Cache, name string) error {
	has := cache.ListDevices()
	text := "none"
	if len(has) > 0 {
		text = strings.Join(has[:min(len(has), maxNamed)], ", ")
	}
	if more := len(has) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	err := fault.New(fault.Invalid, "this node has no CDI device %s: %s have %s; give the grant a --node-label that only nodes with it have", name,
		strings.Join(p.cdi, " and "), text)
	unread := cache.GetErrors()
	for _, file := range slices.Sorted(maps.Keys(unread)) {
		return fault.New(fault.Invalid, "%w (%s can't be read: %w)", err, file, errors.Join(unread[file]...))
	}
	return err
}

// rootsFile refuses a file that others than root could have written.
func rootsFile(name string) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return fmt.Errorf("CDI file %s: %w", name, err)
	}
	const othersWrite = 0o022
	if st.Uid != 0 || st.Mode&othersWrite != 0 {
		return fault.New(fault.Invalid, "CDI file %s can be written to by others than root (owner %d, mode %#o): `chown root` and `chmod go-w` it", name,
			st.Uid, st.Mode&0o7777)
	}
	return nil
}

// mayEdit refuses a description by what can't be made, or the grant doesn't want. Hooks would work on the image's files as the node's root: that only
// root can have written the description makes them no safer (ADR 0036).
func (p plan) mayEdit(e cdispec.ContainerEdits, grant *api.GrantSpec) error {
	switch {
	case len(e.Hooks) > 0 && !grant.GetIgnoreCdiHooks():
		return fault.New(fault.Invalid, "it has hooks, such as %s, which would be run as root of this node: Skep runs none. A grant that says "+
			"--ignore-cdi-hooks gives the device without what they do", e.Hooks[0].Path)
	case e.IntelRdt != nil || len(e.NetDevices) > 0:
		return fault.New(fault.Invalid, "it asks for netDevices or intelRdt, which this version doesn't know")
	case len(e.AdditionalGIDs) > 0 && p.onNode(0) != 0:
		return fault.New(fault.Invalid, "it asks for groups of this node (%v), which the container, with ids of its own, can't be in: it takes --userns host",
			e.AdditionalGIDs)
	}
	return nil
}

// edit makes the changes of a description.
func (p plan) edit(s *specs.Spec, e cdispec.ContainerEdits) error {
	for _, variable := range e.Env {
		s.Process.Env = setEnv(s.Process.Env, variable)
	}
	for _, d := range e.DeviceNodes {
		if err := p.addDevice(s, nodeOf(d)); err != nil {
			return err
		}
	}
	for _, m := range e.Mounts {
		if err := p.addCDIMount(s, m); err != nil {
			return err
		}
	}
	for _, gid := range e.AdditionalGIDs {
		if !slices.Contains(s.Process.User.AdditionalGids, gid) {
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, gid)
		}
	}
	return nil
}

// nodeOf is a device as a description has it. The device of this node decides about its numbers, its owner and its mode.
func nodeOf(d *cdispec.DeviceNode) deviceNode {
	out := deviceNode{path: path.Clean(d.Path), source: path.Clean(cmp.Or(d.HostPath, d.Path)), permissions: "rw"}
	if d.Permissions != "" { // without m: a container makes no nodes
		out.permissions = strings.ReplaceAll(d.Permissions, "m", "")
	}
	return out
}

// cdiOptions are options of mounts that change nothing here: all mounts are so.
func cdiOptions() []string {
	return []string{"ro", "rw", "bind", "rbind", "nosuid", "nodev", "private", "rprivate", "slave", "rslave"}
}

// addCDIMount shows a file or directory of this node, as a grant would.
func (p plan) addCDIMount(s *specs.Spec, m *cdispec.Mount) error {
	if m.Type != "" && m.Type != "bind" && m.Type != "none" {
		return fault.New(fault.Invalid, "mount at %s: type %s is not bind", m.ContainerPath, m.Type)
	}
	noexec := false
	for _, o := range m.Options {
		noexec = noexec || o == "noexec"
		if !slices.Contains(cdiOptions(), o) && o != "noexec" {
			return fault.New(fault.Invalid, "mount at %s: option %s is not offered", m.ContainerPath, o)
		}
	}
	target := path.Clean(m.ContainerPath)
	if !path.IsAbs(target) || target == "/" || within(target, identityDir) || isolates(target) {
		return fault.New(fault.Invalid, "mount at %s would hide what isolates or identifies the container", m.ContainerPath)
	}
	mount, err := p.hostMount(target, path.Clean(m.HostPath), "", slices.Contains(m.Options, "ro"), api.MountPropagation_MOUNT_PROPAGATION_UNSPECIFIED, 0)
	if err != nil {
		return err
	}
	if noexec {
		mount.Options = append(mount.Options, "noexec")
	}
	s.Mounts = append(s.Mounts, mount)
	return nil
}
