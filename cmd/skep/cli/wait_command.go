package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

// errTimeout is returned when what was waited for takes longer than somebody wanted to wait.
var errTimeout = errors.New("it takes longer than --timeout allows")

const waitHelp = `Block until tasks and jobs end, and services converge

A task is waited for until it has ended, and its exit code is printed, as docker wait does. A job is waited for until all of it
ended well, which prints 0, or has failed, which prints the exit code of the task that the error is about. Any other service is
waited for until all its tasks have run for 5 seconds, which prints what was waited for. A task that its node rejected, or that is
gone with its node, has no exit code: 255 is printed.

TASK is a task's id, the beginning of one, or SERVICE.SLOT.`

func (p *program) waitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait [OPTIONS] SERVICE|TASK [SERVICE|TASK...]", Short: "Block until tasks and jobs end, and services converge",
		Long: waitHelp, Args: minArgs(1),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "Wait no longer than this, for all together (default 0s = for ever)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if timeout < 0 {
			return &usageError{command: cmd, err: errors.New("--timeout: a wait can't take less than no time")}
		}
		return nil
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		if timeout > 0 {
			// Not a deadline: gRPC would send it along, and then a server's clock may end a call before ctx ends here.
			limited, cancel := context.WithCancelCause(ctx)
			defer time.AfterFunc(timeout, func() { cancel(errTimeout) }).Stop()
			ctx = limited
		}
		return each(args, func(name string) error {
			err := p.wait(ctx, c, name)
			if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
				return fmt.Errorf("%s: %w", name, errTimeout)
			}
			return err
		})
	})
	return cmd
}

func (p *program) wait(ctx context.Context, c *client.Client, name string) error {
	answer, err := c.Control.GetService(ctx, &api.GetServiceRequest{Service: name})
	service := answer.GetService()
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return p.waitTask(ctx, c, name)
	case err != nil:
		return err
	}
	err = p.waitFor(ctx, c, service, true)
	var ended *progress.EndedError
	switch job := progress.IsJob(service); {
	case job && errors.As(err, &ended):
		return cmp.Or(p.printf("%d\n", taskExitCode(ended.Task)), err)
	case err != nil:
		return err
	case job:
		return p.printf("0\n")
	default:
		return p.printf("%s\n", name)
	}
}

// unknownExitCode is printed for a task that has none: containerd's UnknownExitStatus, and what docker wait prints then.
const unknownExitCode = 255

// taskExitCode returns the exit code of a task that has ended.
func taskExitCode(t *api.Task) int32 {
	switch t.GetStatus().GetState() {
	case api.TaskState_TASK_STATE_REJECTED, api.TaskState_TASK_STATE_ORPHANED:
		return unknownExitCode
	default:
		return t.GetStatus().GetContainer().GetExitCode()
	}
}

func createdBefore(a, b *api.Task) bool {
	return a.GetMeta().GetCreatedAt().AsTime().Before(b.GetMeta().GetCreatedAt().AsTime())
}

// waitTask waits for one task, also when it is replaced meanwhile.
func (p *program) waitTask(ctx context.Context, c *client.Client, name string) error {
	task, err := findTask(ctx, c, name)
	if err != nil {
		return err
	}
	if !hasEnded(task) {
		if task, err = p.untilEnded(ctx, c, task); err != nil {
			return err
		}
	}
	return p.printf("%d\n", taskExitCode(task))
}

func hasEnded(t *api.Task) bool { return t.GetStatus().GetState() > api.TaskState_TASK_STATE_RUNNING }

// errFound ends a watch that has what was wanted.
var errFound = errors.New("the task ended, or is gone")

// untilEnded follows a task's service until the task has ended. A task that a snapshot lacks is gone: no manager shows an older state
// than the one that named it.
func (p *program) untilEnded(ctx context.Context, c *client.Client, task *api.Task) (*api.Task, error) {
	watching, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var found *api.Task
	err := p.watch(watching, c, task.GetServiceId(), func(s *progress.Snapshot) {
		if watching.Err() != nil {
			return
		}
		if found = taskIn(s, task.GetId()); found == nil || hasEnded(found) {
			stop(errFound)
		}
	})
	switch enough := errors.Is(context.Cause(watching), errFound); {
	case enough && found == nil:
		return nil, fault.New(fault.NotFound, "task %s is gone, with its exit code: see 'skep service ps %s'", task.GetId(), task.GetServiceId())
	case enough:
		return found, nil
	case ctx.Err() != nil:
		return nil, &interruptedError{check: "skep service ps " + task.GetServiceId()}
	default:
		return nil, fmt.Errorf("task %s: %w", task.GetId(), err)
	}
}

// taskIn returns the task with an id, or nil.
func taskIn(s *progress.Snapshot, id string) *api.Task {
	for _, t := range s.Tasks {
		if t.GetId() == id {
			return t
		}
	}
	return nil
}

// findTask returns the task with an id or the beginning of one, or the newest in SERVICE.SLOT.
func findTask(ctx context.Context, c *client.Client, name string) (*api.Task, error) {
	answer, err := c.Control.ListTasks(ctx, &api.ListTasksRequest{})
	if err != nil {
		return nil, err
	}
	var newest *api.Task
	var begun []*api.Task
	for _, task := range answer.GetTasks() {
		switch {
		case task.GetId() == name:
			return task, nil
		case taskName(task) == name && (newest == nil || createdBefore(newest, task)):
			newest = task
		case strings.HasPrefix(task.GetId(), name):
			begun = append(begun, task)
		}
	}
	switch {
	case newest != nil:
		return newest, nil
	case len(begun) == 1:
		return begun[0], nil
	case len(begun) > 1:
		return nil, fault.New(fault.Invalid, "task %s is ambiguous: %d tasks begin so, such as %s and %s", name, len(begun), begun[0].GetId(),
			begun[1].GetId())
	default:
		return nil, fault.New(fault.NotFound, "no such service or task: %s: see 'skep service ls' and 'skep service ps SERVICE'", name)
	}
}
