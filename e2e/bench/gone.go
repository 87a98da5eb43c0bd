package main

import (
	"context"
	"errors"
	"time"

	"github.com/skep-io/skep/api"
)

// powerCuts is how often a worker loses its power.
const powerCuts = 5

// gone measures how long the tasks of a worker that loses its power stand still, with the default heartbeat.
func (b bench) gone(ctx context.Context) error {
	manager, worker := b.network.Machine("m1"), b.network.Machine("w1")
	return withControl(manager, func(control api.ControlClient) error {
		response, err := control.CreateService(ctx, &api.CreateServiceRequest{Spec: spec("standing", 4)})
		if err != nil {
			return err
		}
		id := response.GetService().GetId()
		var took []time.Duration
		for range powerCuts {
			if err := converge(ctx, control, id, 4); err != nil {
				return err
			}
			node, err := control.GetNode(ctx, &api.GetNodeRequest{Node: worker.Name})
			if err != nil {
				return err
			}
			if err := worker.PowerOff(); err != nil {
				return err
			}
			began := time.Now()
			if err := elsewhere(ctx, control, id, node.GetNode().GetId(), 4); err != nil {
				return err
			}
			took = append(took, time.Since(began))
			if err := errors.Join(worker.PowerOn(), worker.Start(ctx), b.ready(ctx, manager, 5)); err != nil {
				return err
			}
			// Spread over both workers again.
			if err := respread(ctx, control, id); err != nil {
				return err
			}
		}
		b.medianAndWorst("worker without power to its tasks running elsewhere", took, "< 5000 ms", "< 5000 ms")
		_, err = control.RemoveService(ctx, &api.RemoveServiceRequest{Service: id})
		return err
	})
}

// elsewhere returns when that many tasks of the service run on other nodes than that one; "" excludes none.
func elsewhere(ctx context.Context, control api.ControlClient, id, node string, running int) error {
	return watch(ctx, control, id, func(tasks []*api.Task) bool {
		n := 0
		for _, task := range tasks {
			if task.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING && task.GetNodeId() != node {
				n++
			}
		}
		return n >= running
	})
}

// respread gives the service new tasks, all at once.
func respread(ctx context.Context, control api.ControlClient, id string) error {
	current, err := control.GetService(ctx, &api.GetServiceRequest{Service: id})
	if err != nil {
		return err
	}
	service := current.GetService()
	service.Spec.Task.ForceUpdate++
	service.Spec.Update = &api.UpdateConfig{}
	if _, err := control.UpdateService(ctx, &api.UpdateServiceRequest{ServiceId: id, Version: service.GetMeta().GetVersion(), Spec: service.GetSpec()}); err != nil {
		return err
	}
	return watch(ctx, control, id, func(tasks []*api.Task) bool {
		running := map[string]int{}
		for _, task := range tasks {
			if task.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING && task.GetSpec().GetForceUpdate() == service.GetSpec().GetTask().GetForceUpdate() {
				running[task.GetNodeId()]++
			}
		}
		return len(running) == 2 // workers
	})
}
