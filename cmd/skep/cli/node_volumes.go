package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
)

// heldByVolumes returns a sentence about the services that have tasks on a node, and nowhere else to go because of their volumes; none if there
// are none.
func heldByVolumes(ctx context.Context, c *client.Client, name string) ([]string, error) {
	node, err := getNode(ctx, c, name)
	if err != nil {
		return nil, err
	}
	answer, err := c.Control.ListTasks(ctx, &api.ListTasksRequest{NodeIds: []string{node.GetId()}})
	if err != nil {
		return nil, err
	}
	var services []string
	for _, t := range answer.GetTasks() {
		live := t.GetDesiredState() <= api.TaskState_TASK_STATE_RUNNING && t.GetStatus().GetState() <= api.TaskState_TASK_STATE_RUNNING
		if live && t.GetBoundNodeId() == "" && staysWithVolumes(t.GetSpec()) && !slices.Contains(services, t.GetServiceName()) {
			services = append(services, t.GetServiceName())
		}
	}
	if len(services) == 0 {
		return nil, nil
	}
	slices.Sort(services)
	return []string{fmt.Sprintf("tasks of %s wait until node %s is active again: the data of their volumes is there", strings.Join(services, ", "), name)}, nil
}

// staysWithVolumes reports whether a slot's next task goes where the last one had its volumes.
func staysWithVolumes(spec *api.TaskSpec) bool {
	return slices.ContainsFunc(spec.GetContainer().GetMounts(), func(m *api.Mount) bool {
		return m.GetType() == api.MountType_MOUNT_TYPE_VOLUME && !m.GetVolumeAnywhere()
	})
}
