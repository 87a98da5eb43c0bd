package executor

import (
	"context"
	"fmt"
	"os"
	"path"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// mounts adds what the service asks for.
func (p plan) mounts(s *specs.Spec) error {
	for _, m := range p.container().GetMounts() {
		target := path.Clean(m.GetTarget())
		if !path.IsAbs(target) || target == "/" {
			return fault.New(fault.Invalid, "mount target %q is not an absolute path below /", m.GetTarget())
		}
		if within(target, identityDir) {
			return fault.New(fault.Invalid, "mount target %s would hide the task's identity", target)
		}
		if isolates(target) {
			return fault.New(fault.Invalid, "mount target %s would hide what isolates the container", target)
		}
		switch m.GetType() {
		case api.MountType_MOUNT_TYPE_TMPFS:
			s.Mounts = append(s.Mounts, tmpfs(target, m))
		case api.MountType_MOUNT_TYPE_VOLUME:
			s.Mounts = append(s.Mounts, volumeMount(target, p.volumes[m.GetSource()], m))
		case api.MountType_MOUNT_TYPE_BIND:
			bind, err := p.bind(target, m)
			if err != nil {
				return err
			}
			s.Mounts = append(s.Mounts, bind)
		case api.MountType_MOUNT_TYPE_IMAGE:
			s.Mounts = append(s.Mounts, imageMount(target, p.mounted[m.GetSource()], m))
		default:
			return fault.New(fault.Invalid, "mount of %s: this version knows mounts of the types bind, image, tmpfs and volume only", m.GetTarget())
		}
	}
	return nil
}

// volumeMount shows a volume, or a part of it. The files' owners are mapped to the ids of the container, so that they are the same
// to each container.
func volumeMount(target, dir string, m *api.Mount) specs.Mount {
	options := []string{"bind", "idmap", "nosuid", "nodev"}
	if sub := m.GetVolumeSubpath(); sub != "" {
		options = append(options, "X-mount.subdir="+path.Clean("/" + sub)[1:])
	}
	if m.GetReadOnly() {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: dir, Options: options}
}

// imageMount shows the files of an image, or a directory of them. The runtime makes it read-only and maps the owners, as it does for the root.
func imageMount(target string, image Image, m *api.Mount) specs.Mount {
	options := []string{"ro", "nosuid", "nodev"}
	for _, layer := range image.Layers {
		options = append(options, "lowerdir+="+layer)
	}
	if sub := m.GetImageSubpath(); sub != "" {
		options = append(options, "X-mount.subdir="+path.Clean("/" + sub)[1:])
	}
	return specs.Mount{Destination: target, Type: "overlay", Source: "overlay", Options: options}
}

// mountedImages gets the images that a task mounts, by what the task calls them, and keeps them on the node until they are released.
func (e *Executor) mountedImages(ctx context.Context, t *api.Task) (_ map[string]Image, err error) {
	out := map[string]Image{}
	for _, m := range containerOf(t).GetMounts() {
		if _, have := out[m.GetSource()]; have || m.GetType() != api.MountType_MOUNT_TYPE_IMAGE {
			continue
		}
		image, err := e.cfg.Images.Acquire(ctx, m.GetSource())
		if err != nil {
			releaseAll(out)
			return nil, fmt.Errorf("image to mount at %s: %w", m.GetTarget(), err)
		}
		out[m.GetSource()] = image
	}
	return out, nil
}

func releaseAll(images map[string]Image) {
	for _, i := range images {
		i.Release()
	}
}

// volumes makes the task's volumes ready and returns their directories by name. One that is empty gets what the image has at its
// target, as Docker does it; a part of a volume is nothing to begin with.
func (e *Executor) volumes(ctx context.Context, t *api.Task, h *held) (map[string]string, error) {
	out := map[string]string{}
	for _, m := range containerOf(t).GetMounts() {
		if m.GetType() != api.MountType_MOUNT_TYPE_VOLUME {
			continue
		}
		var fill func(context.Context, *os.Root) error
		if !m.GetVolumeNoCopy() && m.GetVolumeSubpath() == "" {
			fill = func(ctx context.Context, volume *os.Root) error {
				return copyDirectory(ctx, h.image.Layers, m.GetTarget(), volume)
			}
		}
		dir, err := e.cfg.Volumes.Provide(ctx, m.GetSource(), h.selinux, fill)
		if err != nil {
			return nil, err
		}
		out[m.GetSource()] = dir
	}
	return out, nil
}

// identityMount shows a directory of this node as the task's identity.
func identityMount(dir string) specs.Mount {
	return specs.Mount{Destination: identityDir, Type: "bind", Source: dir, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}}
}

func tmpfs(target string, m *api.Mount) specs.Mount {
	options := []string{"nosuid", "nodev"}
	if !m.GetTmpfsExec() {
		options = append(options, "noexec")
	}
	mode := m.GetTmpfsMode()
	if mode == 0 {
		mode = 0o1777
	}
	options = append(options, fmt.Sprintf("mode=%o", mode&0o7777))
	if size := m.GetTmpfsSizeBytes(); size > 0 {
		options = append(options, "size="+strconv.FormatInt(size, 10))
	}
	if m.GetTmpfsUid() != 0 || m.GetTmpfsGid() != 0 {
		options = append(options, fmt.Sprintf("uid=%d", m.GetTmpfsUid()), fmt.Sprintf("gid=%d", m.GetTmpfsGid()))
	}
	if m.GetReadOnly() {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: options}
}
