package scheduler

import (
	"fmt"
	"path"
	"regexp"

	"github.com/skep-io/skep/api"
)

// volumes refuses nodes that do not have the volumes of the task's slot: what its last task wrote is on another node. Once that node has left
// the swarm, any will do.
type volumes struct {
	c    *Core
	home string // the node that has them, by id
	t    *api.Task
}

func (f volumes) passes(n *node) bool { return n.api.GetId() == f.home || f.c.nodes[f.home] == nil }

func (f volumes) key() string { return "volumes" + f.home }

func (f volumes) refusal(int) string {
	text := "volume data is on " + f.where()
	n := f.c.nodes[f.home]
	switch {
	case n.available:
		return text
	case n.api.GetStatus().GetState() == api.NodeState_NODE_STATE_READY:
		text += ": make it active"
	default:
		text += ": bring it back"
	}
	return text + ", or leave the data behind by volume-anywhere in the service's mounts"
}

// where names the node with the volumes, and says why it takes no tasks, if that is so.
func (f volumes) where() string {
	n := f.c.nodes[f.home] // it is there, else the filter refuses nobody
	if n.available {
		return "node " + n.label()
	}
	how := word(n.api.GetStatus().GetState(), "NODE_STATE_")
	if n.api.GetStatus().GetState() == api.NodeState_NODE_STATE_READY {
		how = map[bool]string{true: "drained", false: "paused"}[n.api.GetSpec().GetAvailability() == api.Availability_AVAILABILITY_DRAIN]
	}
	return fmt.Sprintf("node %s, which is %s", n.label(), how)
}

func (volumes) name() string { return "volumes" }

func (f volumes) detail(*node) string { return "the data of the slot's volumes is on " + f.where() }

// remedy leaves data behind: no other change costs more.
func (f volumes) remedy(*node) Remedy {
	r := Remedy{
		Text: "let the service leave its data behind, by volume-anywhere in its mounts", cost: 2 * costMachine,
		Command: "skep service update",
	}
	for _, m := range f.t.GetSpec().GetContainer().GetMounts() {
		if m.GetType() != api.MountType_MOUNT_TYPE_VOLUME || m.GetVolumeAnywhere() {
			continue
		}
		if !plainName.MatchString(m.GetSource()) || !plainPath.MatchString(m.GetTarget()) || m.GetVolumeSubpath() != "" && !plainPath.MatchString(path.Join("/", m.GetVolumeSubpath())) {
			r.Command = ""
			return r
		}
		r.Command += " --mount-add " + mountText(m)
	}
	r.Command += " " + f.t.GetServiceName()
	return r
}

// plainPath is an absolute path that needs no quotes, in a shell or in --mount.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9_./-]*$`)

// mountText returns a mount of a volume as --mount-add takes it, with volume-anywhere.
func mountText(m *api.Mount) string {
	text := "type=volume,source=" + m.GetSource() + ",target=" + m.GetTarget()
	if m.GetReadOnly() {
		text += ",readonly"
	}
	if m.GetVolumeNoCopy() {
		text += ",volume-nocopy"
	}
	if m.GetVolumeSubpath() != "" {
		text += ",volume-subpath=" + m.GetVolumeSubpath()
	}
	return text + ",volume-anywhere"
}
