package executor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// bind shows what a service asks for of that which its grants give. The managers admitted it; here it is found again, since a node
// gives nothing of its own that no grant names.
func (p plan) bind(target string, m *api.Mount) (specs.Mount, error) {
	source, part, err := p.given(m)
	if err != nil {
		return specs.Mount{}, err
	}
	return p.hostMount(target, source, part, m.GetReadOnly(), m.GetBindPropagation(), m.GetBindRecursive())
}

// given returns what a grant gives of which a bind mount shows a part, and that part: "" is all. A container may have made what is below:
// the part is reached from what was granted, and through no link.
func (p plan) given(m *api.Mount) (source, part string, err error) {
	wanted := path.Clean(m.GetSource())
	var from *api.GrantMount
	for _, grant := range p.task.GetGrants() {
		for _, given := range grant.GetSpec().GetMounts() {
			if covers(given, m) && len(given.GetSource()) > len(from.GetSource()) {
				from = given
			}
		}
	}
	if from == nil {
		return "", "", fault.New(fault.Invalid, "bind mount of %s: no grant of the task gives it", wanted)
	}
	return from.GetSource(), strings.TrimPrefix(strings.TrimPrefix(wanted, from.GetSource()), "/"), nil
}

// checkBinds finds bind mounts of what this node has not, before anything is prepared. What there is may be gone when the container is made:
// the runtime looks again.
func (p plan) checkBinds() error {
	for _, m := range p.container().GetMounts() {
		if m.GetType() != api.MountType_MOUNT_TYPE_BIND {
			continue
		}
		source, part, err := p.given(m)
		if err != nil {
			return err
		}
		if source, err = nodePath(source); err == nil {
			err = p.public(path.Join(source, part))
		}
		if err != nil {
			return err
		}
		if part != "" && missing(source, part) {
			return fault.New(fault.Invalid, "bind source path does not exist: %s: make it on this node, or place the service where there is one", m.GetSource())
		}
	}
	return nil
}

// missing reports whether there is nothing at a path below a directory. No link is followed there, which could be a container's: nobody
// learns by it what else the node has.
func missing(dir, part string) bool {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.ENOENT)
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, part, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return errors.Is(err, unix.ENOENT)
	}
	_ = unix.Close(fd)
	return false
}

// covers reports whether a grant gives what a bind mount asks for.
func covers(given *api.GrantMount, m *api.Mount) bool {
	source := path.Clean(m.GetSource())
	writes := !m.GetReadOnly() || m.GetBindRecursive() == api.BindRecursive_BIND_RECURSIVE_WRITABLE
	return (within(source, given.GetSource()) || given.GetSource() == "/" && path.IsAbs(source)) && !(given.GetReadOnly() && writes) &&
		slices.Contains(allowed(given.GetPropagation()), propagation(m.GetBindPropagation()))
}

// replaced reports whether the service has a bind mount of its own where a grant has one.
func (p plan) replaced(target string) bool {
	return slices.ContainsFunc(p.container().GetMounts(), func(m *api.Mount) bool {
		return m.GetType() == api.MountType_MOUNT_TYPE_BIND && path.Clean(m.GetTarget()) == target
	})
}

// The runtime's words for how mounts travel.
const (
	rprivate = "rprivate"
	rslave   = "rslave"
	rshared  = "rshared"
)

// propagation is the runtime's word. What is mounted below is never treated otherwise than the mount: a private mount with others that share
// the node's below it would be none.
func propagation(p api.MountPropagation) string {
	switch p {
	case api.MountPropagation_MOUNT_PROPAGATION_SLAVE, api.MountPropagation_MOUNT_PROPAGATION_RSLAVE:
		return rslave
	case api.MountPropagation_MOUNT_PROPAGATION_SHARED, api.MountPropagation_MOUNT_PROPAGATION_RSHARED:
		return rshared
	default:
		return rprivate
	}
}

// allowed are the propagations that a service may have of a mount that was granted with one.
func allowed(p api.MountPropagation) []string {
	all := []string{rprivate, rslave, rshared}
	return all[:slices.Index(all, propagation(p))+1]
}

// hostMount shows a file or directory of this node, or a part of it. Its ids on this node are those in the container: root there is root
// here, which is what an administrator who grants it expects, and what makes it of use. Set-user-id programs and devices in it don't work.
func (p plan) hostMount(
	target, source, part string, readOnly bool, how api.MountPropagation, below api.BindRecursive,
) (specs.Mount, error) {
	source, err := nodePath(source)
	if err == nil {
		err = p.public(path.Join(source, part))
	}
	if err != nil {
		return specs.Mount{}, err
	}
	options := []string{"rbind", "nosuid", "nodev", "idmap", "X-skep.nolinks", propagation(how)}
	if below == api.BindRecursive_BIND_RECURSIVE_DISABLED {
		options[0] = "bind"
	}
	if readOnly {
		options = append(options, "ro")
	}
	if readOnly && below != api.BindRecursive_BIND_RECURSIVE_WRITABLE {
		options = append(options, "rro")
	}
	if part != "" {
		options = append(options, "X-mount.subdir="+part)
	}
	if err := checkPropagation(source, propagation(how)); err != nil {
		return specs.Mount{}, err
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: options}, nil
}

// checkPropagation refuses what would do nothing: a mount of this node that shares its events with nobody.
func checkPropagation(source, how string) error {
	if how == rprivate {
		return nil
	}
	tags, err := sharing(source)
	if err != nil {
		return fmt.Errorf("mount of %s: %w", source, err)
	}
	if strings.Contains(tags, "shared:") || how == rslave && strings.Contains(tags, "master:") {
		return nil
	}
	return fault.New(fault.Invalid, "bind-propagation=%s: %s is not on a shared mount of this node: share it (`mount --make-rshared PATH`), or "+
		"leave the propagation out", how, source)
}

// sharing returns the tags of proc_pid_mountinfo(5) that say how events of the mount travel that a path is on.
func sharing(name string) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_MNT_ID, &st); err != nil {
		return "", err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	id := strconv.FormatUint(st.Mnt_id, 10)
	for line := range strings.Lines(string(table)) {
		before, _, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); len(fields) >= 6 && fields[0] == id {
			return strings.Join(fields[6:], " "), nil
		}
	}
	return "", fmt.Errorf("mount %s is not in /proc/self/mountinfo", id)
}
