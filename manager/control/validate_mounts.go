package control

import (
	"fmt"
	"path"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/volumename"
)

func (p *problems) mounts(field string, mounts []*api.Mount) {
	if len(mounts) > maxMounts {
		p.add(field, "%d mounts are too many: at most %d are allowed", len(mounts), maxMounts)
		return
	}
	taken := map[string]bool{}
	for i, mount := range mounts {
		at := fmt.Sprintf("%s[%d]", field, i)
		target := mount.GetTarget()
		switch {
		case strings.ContainsRune(target, 0):
			p.add(at+".target", "contains a zero byte")
		case !path.IsAbs(target) || path.Clean(target) == "/":
			p.add(at+".target", "invalid mount target %q: must be an absolute path other than /", clip(target))
		case strings.Count(path.Clean(target), "/") > maxDepth:
			p.add(at+".target", "%s has more than %d directories", clip(target), maxDepth)
		case within(path.Clean(target), isolating...):
			p.add(at+".target", "%s would hide what isolates the container: choose another target", clip(target))
		case taken[path.Clean(target)]:
			p.add(at+".target", "duplicate mount point: %s", clip(target))
		}
		taken[path.Clean(target)] = true
		p.literal(at+".target", target)
		p.mountSource(at, mount)
	}
}

// mountSource checks what belongs to the type of a mount, and that nothing of another type is there.
func (p *problems) mountSource(at string, m *api.Mount) {
	kind := m.GetType()
	switch kind {
	case api.MountType_MOUNT_TYPE_TMPFS:
		p.tmpfs(at, m)
	case api.MountType_MOUNT_TYPE_VOLUME:
		p.volume(at, m)
	case api.MountType_MOUNT_TYPE_BIND:
		p.bind(at, m) // what grants give is seen once they are known
	case api.MountType_MOUNT_TYPE_IMAGE:
		p.imageMount(at, m)
	default:
		p.known(at+".type", kind)
	}
	if kind != api.MountType_MOUNT_TYPE_TMPFS && (m.GetTmpfsSizeBytes() != 0 || m.GetTmpfsMode() != 0 || m.GetTmpfsExec() ||
		m.GetTmpfsUid() != 0 || m.GetTmpfsGid() != 0) {
		p.add(at, "tmpfs options are for mounts of the type tmpfs")
	}
	if kind != api.MountType_MOUNT_TYPE_VOLUME && (m.GetVolumeNoCopy() || m.GetVolumeSubpath() != "" || m.GetVolumeAnywhere()) {
		p.add(at, "volume options are for mounts of the type volume")
	}
	if kind != api.MountType_MOUNT_TYPE_BIND && (m.GetBindPropagation() != 0 || m.GetBindRecursive() != 0) {
		p.add(at, "bind options are for mounts of the type bind")
	}
	if kind != api.MountType_MOUNT_TYPE_IMAGE && m.GetImageSubpath() != "" {
		p.add(at, "image options are for mounts of the type image")
	}
}

func (p *problems) imageMount(at string, m *api.Mount) {
	if m.GetSource() == "" {
		p.add(at+".source", "an image mount needs an image: write source=IMAGE")
	}
	p.literal(at+".source", m.GetSource())
	p.subpath(at+".image_subpath", m.GetImageSubpath(), "image")
}

// subpath checks the path of a part.
func (p *problems) subpath(at, sub, of string) {
	if sub != "" && (strings.ContainsRune(sub, 0) || path.IsAbs(sub) || !validTarget(path.Clean(sub))) {
		p.add(at, "invalid subpath %q: must be a relative path within the %s", clip(sub), of)
	}
}

func (p *problems) bind(at string, m *api.Mount) {
	if source := m.GetSource(); !p.literal(at+".source", source) && !plainPath(path.Clean(source)) {
		p.add(at+".source", "invalid mount source %q: must be an absolute path on the nodes", clip(source))
	}
	p.value(at+".bind_propagation", m.GetBindPropagation())
	p.value(at+".bind_recursive", m.GetBindRecursive())
	switch m.GetBindRecursive() {
	case api.BindRecursive_BIND_RECURSIVE_READONLY:
		switch m.GetBindPropagation() {
		case api.MountPropagation_MOUNT_PROPAGATION_UNSPECIFIED, api.MountPropagation_MOUNT_PROPAGATION_RPRIVATE:
		default: // what the node mounts later is as it is there
			p.add(at, "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate'")
		}
		fallthrough
	case api.BindRecursive_BIND_RECURSIVE_WRITABLE:
		if !m.GetReadOnly() {
			p.add(at, "option 'bind-recursive=writable' or 'readonly' requires 'readonly'")
		}
	}
}

func (p *problems) tmpfs(at string, m *api.Mount) {
	if m.GetSource() != "" {
		p.add(at+".source", "a tmpfs has no source")
	}
	if m.GetTmpfsSizeBytes() < 0 {
		p.add(at+".tmpfs_size_bytes", "invalid tmpfs size %d: must not be negative", m.GetTmpfsSizeBytes())
	}
	if m.GetTmpfsMode() > maxModeBits {
		p.add(at+".tmpfs_mode", "invalid tmpfs mode %#o", m.GetTmpfsMode())
	}
	if m.GetTmpfsUid() > maxID || m.GetTmpfsGid() > maxID {
		p.add(at, "owner %d:%d of a tmpfs is not within the %d ids of a container", m.GetTmpfsUid(), m.GetTmpfsGid(), maxID+1)
	}
}

func (p *problems) volume(at string, m *api.Mount) {
	switch source := m.GetSource(); {
	case source == "":
		p.add(at+".source", "a volume needs a name: write source=NAME; for a directory that goes with the task, use type=tmpfs or the "+
			"root file system")
	case p.template(at+".source", source):
	case !volumename.Valid(source):
		p.add(at+".source", "invalid volume name %q: use 2 to 128 letters, digits, _, . and -, beginning with a letter or digit", clip(source))
	}
	p.subpath(at+".volume_subpath", m.GetVolumeSubpath(), "volume")
}
