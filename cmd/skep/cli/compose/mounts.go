package compose

import (
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// mounts gives what is mounted in the containers.
func (c converter) mounts(f *flags, s types.ServiceConfig) {
	for _, v := range s.Volumes {
		key := "volumes: " + v.Target
		var value record
		value.add("type", v.Type)
		value.add("source", c.source(f, key, v))
		value.add("target", v.Target)
		value.flag("readonly", v.ReadOnly)
		if v.Bind != nil {
			value.add("bind-propagation", v.Bind.Propagation)
			value.add("bind-recursive", v.Bind.Recursive)
		}
		if v.Volume != nil {
			value.flag("volume-nocopy", v.Volume.NoCopy)
			value.add("volume-subpath", v.Volume.Subpath)
		}
		if v.Tmpfs != nil && v.Tmpfs.Size != 0 {
			value.add("tmpfs-size", strconv.FormatInt(int64(v.Tmpfs.Size), 10))
		}
		if v.Tmpfs != nil && v.Tmpfs.Mode != 0 {
			value.add("tmpfs-mode", strconv.FormatUint(uint64(v.Tmpfs.Mode), 8))
		}
		if v.Image != nil {
			value.add("image-subpath", v.Image.SubPath)
		}
		f.put(key, "mount", value.String())
	}
}

// source returns what is mounted: a volume by its name in the swarm.
func (c converter) source(f *flags, key string, v types.ServiceVolumeConfig) string {
	if v.Type != types.VolumeTypeVolume || v.Source == "" {
		return v.Source
	}
	volume := c.project.Volumes[v.Source]
	if driver := volume.Driver; driver != "" && driver != "local" {
		f.refuse(key, "volume %s: the driver %q can't be had: local is the only one", v.Source, driver)
	}
	return volume.Name
}

// values gives the secrets and configs in the containers.
func (c converter) values(f *flags, s types.ServiceConfig) {
	for _, r := range s.Secrets {
		// compose-go writes the default out; below /run/secrets is where a name alone is.
		target := strings.TrimPrefix(r.Target, "/run/secrets/")
		f.put("secrets: "+r.Source, "secret", reference(c.project.Secrets[r.Source].Name, target, types.FileReferenceConfig(r)))
	}
	for _, r := range s.Configs {
		f.put("configs: "+r.Source, "config", reference(c.project.Configs[r.Source].Name, r.Target, types.FileReferenceConfig(r)))
	}
}

func reference(name, target string, r types.FileReferenceConfig) string {
	if target == "" {
		target = r.Source
	}
	var value record
	value.add("source", name)
	value.add("target", target)
	value.add("uid", r.UID)
	value.add("gid", r.GID)
	if r.Mode != nil {
		value.add("mode", strconv.FormatInt(int64(*r.Mode), 8))
	}
	return value.String()
}
