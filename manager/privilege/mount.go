package privilege

import (
	"path"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
)

// reach orders propagations by what they give: nothing, what the node mounts, and mounting on the node.
func reach(p api.MountPropagation) int {
	switch p {
	case api.MountPropagation_MOUNT_PROPAGATION_SHARED, api.MountPropagation_MOUNT_PROPAGATION_RSHARED:
		return 2
	case api.MountPropagation_MOUNT_PROPAGATION_SLAVE, api.MountPropagation_MOUNT_PROPAGATION_RSLAVE:
		return 1
	default:
		return 0
	}
}

// propagation is Docker's word, or nothing for private.
func propagation(p api.MountPropagation) string {
	if reach(p) == 0 {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(p.String(), "MOUNT_PROPAGATION_"))
}

// writes reports whether a bind mount can be written to, or something that is mounted below it.
func writes(m *api.Mount) bool {
	return !m.GetReadOnly() || m.GetBindRecursive() == api.BindRecursive_BIND_RECURSIVE_WRITABLE
}

// covers reports whether what a bind mount shows is all in what a grant gives, and no more is done with it.
func covers(given *api.GrantMount, m *api.Mount) bool {
	return within(path.Clean(m.GetSource()), given.GetSource()) && !(given.GetReadOnly() && writes(m)) &&
		reach(m.GetBindPropagation()) <= reach(given.GetPropagation())
}

// mountExcesses returns the bind mounts that no grant gives.
func mountExcesses(c *api.ContainerSpec, grants []*api.Grant) (out []Excess) {
	for _, m := range c.GetMounts() {
		if m.GetType() != api.MountType_MOUNT_TYPE_BIND || slices.ContainsFunc(grants, func(g *api.Grant) bool {
			return slices.ContainsFunc(g.GetSpec().GetMounts(), func(given *api.GrantMount) bool { return covers(given, m) })
		}) {
			continue
		}
		what, options := "bind mount of "+path.Clean(m.GetSource())+" of the node", []string{}
		if !writes(m) {
			what, options = what+" to read", append(options, "ro")
		}
		if word := propagation(m.GetBindPropagation()); word != "" {
			what, options = what+" with the propagation "+word, append(options, word)
		}
		option := "--mount-host " + path.Clean(m.GetSource())
		if len(options) > 0 {
			option += ":" + strings.Join(options, ",")
		}
		out = append(out, Excess{what, option})
	}
	return out
}
