package task

import (
	"context"

	"github.com/skep-io/skep/api"
)

// Executor runs the containers of tasks. It knows them by the task's id.
//
// For one task, a Manager calls in this order, and never two at once but Stop, Kill, Probe, ProbeReady and Refresh during Wait:
//
//	Adopt -> [Prepare ...] -> [Start ...] -> Wait -> [Stop, Kill ...] -> Release ... -> Remove ...
//
// Every method may be called again after it failed, or after a restart of the daemon in its midst, and then completes what the
// last call began. Release and Remove succeed when there is nothing to free. An error of the kind fault.Unavailable is temporary;
// every other one ends the task with the error's text shown to the user. A method that is cut short by its context frees what
// it took.
type Executor interface {
	// Adopt is called once before everything else. It takes over the containers of the last run of the daemon, removes those
	// whose id is not among known, and returns for each that was started its status: Pid is 0 when its process has ended. Lost are the
	// ids of those that ended with the machine, or of which nobody knows how they ended.
	Adopt(ctx context.Context, known []string) (found map[string]*api.ContainerStatus, lost []string, err error)
	// Prepare gets ready all that Start needs, such as the image.
	Prepare(ctx context.Context, t *api.Task) error
	// Start starts the process and returns its container.
	Start(ctx context.Context, t *api.Task) (*api.ContainerStatus, error)
	// Wait blocks until the process has ended and returns its exit code with the container. The error is of the kind
	// fault.NotFound when there is no such container.
	Wait(ctx context.Context, id string) (*api.ContainerStatus, error)
	// Probe checks the health of a started container from the state that is given, and tells each news of it, HEALTHY and UNHEALTHY among
	// them, until the container is UNHEALTHY or nothing will be said of it any more. Start and Adopt say by Health STARTING that a
	// container is checked; no other is probed. The error is for a container that doesn't run any more.
	Probe(ctx context.Context, t *api.Task, from api.HealthState, tell func(*api.ContainerStatus)) error
	// ProbeReady checks whether a running container is ready, from what it was, and tells each news of that, with why the last check
	// failed or "", as long as the container runs. Only tasks whose spec has a readiness check are asked for. The error is as Probe's.
	ProbeReady(ctx context.Context, t *api.Task, ready bool, tell func(*api.Readiness, string)) error
	// Refresh writes those files of a started container again whose secrets and configs changed, if the task is to have them so, and sends
	// the signals that the task names for that. It returns what the files have; secrets that aren't here are passed over. It is
	// called when there may be news, and ends before Release is called.
	Refresh(ctx context.Context, t *api.Task) ([]*api.ReceivedValue, error)
	// Stop sends the task's stop signal. It doesn't wait for the end.
	Stop(ctx context.Context, t *api.Task) error
	// Kill ends all processes of the container.
	Kill(ctx context.Context, id string) error
	// Release frees everything but the log of a task whose process has ended or was never started.
	Release(ctx context.Context, id string) error
	// Remove frees what Release left.
	Remove(ctx context.Context, id string) error
}
