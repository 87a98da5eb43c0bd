package flagvalue

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
)

// Mounts collects mounts, each written as pairs: type=tmpfs,target=PATH[,readonly][,tmpfs-size=SIZE][,tmpfs-mode=OCTAL], or
// [type=volume,]source=NAME,target=PATH[,readonly][,volume-nocopy][,volume-subpath=PATH][,volume-anywhere], or
// type=bind,source=PATH,target=PATH[,readonly][,bind-propagation=WORD][,bind-recursive=WORD]; whether a grant gives that, the managers
// say; or type=image,source=IMAGE,target=PATH[,image-subpath=PATH].
type Mounts []*api.Mount

// Set adds one mount.
func (m *Mounts) Set(text string) error {
	mount, err := parseMount(text)
	if err != nil {
		return err
	}
	*m = append(*m, mount)
	return nil
}

// String is empty: the default is no mount.
func (m *Mounts) String() string { return "" }

// Type is Docker's word.
func (m *Mounts) Type() string { return "mount" }

func parseMount(text string) (*api.Mount, error) {
	pairs, err := fields(text)
	if err != nil {
		return nil, err
	}
	mount := &api.Mount{}
	for _, pair := range pairs {
		if err := setMount(mount, pair, text); err != nil {
			return nil, err
		}
	}
	if mount.Type == api.MountType_MOUNT_TYPE_UNSPECIFIED {
		mount.Type = api.MountType_MOUNT_TYPE_VOLUME // as Docker's
	}
	if mount.Target == "" {
		return nil, errors.New("target is required")
	}
	if !path.IsAbs(mount.Target) {
		return nil, fmt.Errorf("invalid mount target %q: write an absolute path", mount.Target)
	}
	return mount, nil
}

func setMount(mount *api.Mount, pair field, text string) error {
	if !pair.hasValue && !slices.Contains([]string{"readonly", "ro", "volume-nocopy", "volume-anywhere", "bind-nonrecursive"}, pair.key) {
		return fmt.Errorf("invalid field '%s' must be a key=value pair", pair)
	}
	switch pair.key {
	case "type":
		kind, ok := mountTypes()[strings.ToLower(pair.value)]
		if !ok {
			return fmt.Errorf("a mount of the type %q can't be had: write type=volume, tmpfs, bind or image", pair.value)
		}
		mount.Type = kind
	case "source", "src":
		mount.Source = pair.value
	case "target", "dst", "destination":
		mount.Target = pair.value
	case "readonly", "ro":
		readOnly, err := parseSwitch(pair)
		if err != nil {
			return err
		}
		mount.ReadOnly = readOnly
	case "volume-nocopy":
		nocopy, err := parseSwitch(pair)
		if err != nil {
			return err
		}
		mount.VolumeNoCopy = nocopy
	case "volume-anywhere":
		anywhere, err := parseSwitch(pair)
		if err != nil {
			return err
		}
		mount.VolumeAnywhere = anywhere
	case "volume-subpath":
		mount.VolumeSubpath = pair.value
	case "image-subpath":
		mount.ImageSubpath = pair.value
	case "volume-driver":
		if pair.value != "local" {
			return fmt.Errorf("volume driver %q can't be had: local is the only one", pair.value)
		}
	case "tmpfs-size":
		size, err := parseBytes(pair.value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", pair.key, pair.value)
		}
		mount.TmpfsSizeBytes = size
	case "tmpfs-mode":
		mode, err := parseMode(pair.value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", pair.key, pair.value)
		}
		mount.TmpfsMode = mode
	default:
		return setBind(mount, pair, text)
	}
	return nil
}

// setBind takes the options of bind mounts.
func setBind(mount *api.Mount, pair field, text string) error {
	switch pair.key {
	case "bind-propagation":
		how, ok := propagations()[strings.ToLower(pair.value)]
		if !ok {
			return fmt.Errorf("invalid propagation %q: write rprivate, private, rshared, shared, rslave or slave", pair.value)
		}
		mount.BindPropagation = how
	case "bind-recursive":
		below, ok := map[string]api.BindRecursive{
			"enabled": api.BindRecursive_BIND_RECURSIVE_ENABLED, "disabled": api.BindRecursive_BIND_RECURSIVE_DISABLED,
			"writable": api.BindRecursive_BIND_RECURSIVE_WRITABLE, "readonly": api.BindRecursive_BIND_RECURSIVE_READONLY,
		}[pair.value]
		if !ok {
			return fmt.Errorf("invalid value for bind-recursive: %s: write enabled, disabled, writable or readonly", pair.value)
		}
		mount.BindRecursive = below
	case "bind-nonrecursive": // before there was bind-recursive
		on, err := parseSwitch(pair)
		if err != nil {
			return err
		}
		if on {
			mount.BindRecursive = api.BindRecursive_BIND_RECURSIVE_DISABLED
		}
	default:
		return fmt.Errorf("unexpected key '%s' in '%s'", pair.key, text)
	}
	return nil
}

func propagations() map[string]api.MountPropagation {
	return map[string]api.MountPropagation{
		"rprivate": api.MountPropagation_MOUNT_PROPAGATION_RPRIVATE, "private": api.MountPropagation_MOUNT_PROPAGATION_PRIVATE,
		"rshared": api.MountPropagation_MOUNT_PROPAGATION_RSHARED, "shared": api.MountPropagation_MOUNT_PROPAGATION_SHARED,
		"rslave": api.MountPropagation_MOUNT_PROPAGATION_RSLAVE, "slave": api.MountPropagation_MOUNT_PROPAGATION_SLAVE,
	}
}

// parseSwitch reads a key that is true when it stands alone.
func parseSwitch(pair field) (bool, error) {
	if !pair.hasValue {
		return true, nil
	}
	on, err := strconv.ParseBool(pair.value)
	if err != nil {
		return false, fmt.Errorf("invalid value for %s: %s", pair.key, pair.value)
	}
	return on, nil
}

// parseTmpfs reads PATH[:OPTION,...]. The options are mount(8)'s; those that would let a program gain power are refused.
func parseTmpfs(text string) (*api.Mount, error) {
	target, options, _ := strings.Cut(text, ":")
	if !path.IsAbs(target) {
		return nil, fmt.Errorf("invalid tmpfs %q: write an absolute path", text)
	}
	mount := &api.Mount{Type: api.MountType_MOUNT_TYPE_TMPFS, Target: target}
	for option := range strings.SplitSeq(options, ",") {
		if err := setTmpfsOption(mount, option); err != nil {
			return nil, err
		}
	}
	return mount, nil
}

func setTmpfsOption(mount *api.Mount, option string) (err error) {
	key, value, _ := strings.Cut(option, "=")
	switch key {
	case "", "rw", "noexec", "nosuid", "nodev":
	case "ro":
		mount.ReadOnly = true
	case "exec":
		mount.TmpfsExec = true
	case "size":
		mount.TmpfsSizeBytes, err = parseBytes(value)
	case "mode":
		mount.TmpfsMode, err = parseMode(value)
	case "uid":
		mount.TmpfsUid, err = parseUint32(value)
	case "gid":
		mount.TmpfsGid, err = parseUint32(value)
	default:
		return fmt.Errorf("invalid tmpfs option %q: write ro, exec, size=, mode=, uid= or gid=", option)
	}
	if err != nil {
		return fmt.Errorf("invalid value for tmpfs option %s: %s", key, value)
	}
	return nil
}

func parseUint32(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}

func mountTypes() map[string]api.MountType {
	return map[string]api.MountType{
		"tmpfs": api.MountType_MOUNT_TYPE_TMPFS, "volume": api.MountType_MOUNT_TYPE_VOLUME, "bind": api.MountType_MOUNT_TYPE_BIND,
		"image": api.MountType_MOUNT_TYPE_IMAGE,
	}
}
