package view

import (
	"time"

	"github.com/skep-io/skep/api"
)

// Volume is a volume of a node, with the JSON keys of Docker's, and its node.
type Volume struct {
	CreatedAt  time.Time
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
	// Node is the node's hostname.
	Node, NodeID string
	// Tasks are the ids of tasks that use it.
	Tasks []string
}

// ID is what -q shows: volumes have no id.
func (v Volume) ID() string { return v.Name }

// NewVolume shows a volume.
func NewVolume(v *api.Volume) Volume {
	out := Volume{
		CreatedAt: v.GetCreatedAt().AsTime(), Driver: "local", Labels: labelsOf(v.GetLabels()), Mountpoint: v.GetMountpoint(), Name: v.GetName(),
		Options: map[string]string{}, Scope: "local", Node: v.GetNodeHostname(), NodeID: v.GetNodeId(), Tasks: v.GetTaskIds(),
	}
	if out.Tasks == nil {
		out.Tasks = []string{}
	}
	return out
}
