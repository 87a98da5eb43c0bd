package taskstate

import (
	"slices"

	"github.com/skep-io/skep/api"
)

// VolumeNode returns the node that has the data which the next task of a slot is to go on with, or "": the one where the last of its kept
// tasks ran that had one of the volumes of spec, unless spec says that the volume may be anywhere. One that only waited passes on what it
// waited for. tasks may be in any order.
func VolumeNode(spec *api.TaskSpec, tasks []*api.Task) string {
	names := volumeNames(spec, func(m *api.Mount) bool { return !m.GetVolumeAnywhere() })
	if len(names) == 0 {
		return ""
	}
	for _, t := range slices.Backward(slices.SortedFunc(slices.Values(tasks), Compare)) {
		theirs := volumeNames(t.GetSpec(), func(*api.Mount) bool { return true })
		if !Kept(t) || !slices.ContainsFunc(theirs, func(name string) bool { return slices.Contains(names, name) }) {
			continue
		}
		// A node says that it has a container only once it runs. One that refused the task has no data of it.
		if t.GetStatus().GetContainer() != nil && t.GetNodeId() != "" {
			return t.GetNodeId()
		}
		if t.GetVolumeNodeId() != "" {
			return t.GetVolumeNodeId()
		}
	}
	return ""
}

// volumeNames returns the names of the volumes that a spec mounts, as it has them: they may be templates.
func volumeNames(spec *api.TaskSpec, wanted func(*api.Mount) bool) (names []string) {
	for _, m := range spec.GetContainer().GetMounts() {
		if m.GetType() == api.MountType_MOUNT_TYPE_VOLUME && wanted(m) {
			names = append(names, m.GetSource())
		}
	}
	return names
}
