package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
)

const (
	taskHelp = "TASK is a task's id, the beginning of one, or SERVICE.SLOT."
	topTable = "{{.UID}}\t{{.PID}}\t{{.PPID}}\t{{.STAT}}\t{{.CPU}}\t{{.TIME}}\t{{.MEM}}\t{{.CMD}}"
	// lastSignal is the highest signal's number (signal(7)).
	lastSignal = 64
)

func (p *program) pauseCommand() *cobra.Command {
	return p.eachTask("pause", "Pause all processes within one or more tasks", func(ctx context.Context, c *client.Client, task string) error {
		_, err := c.Tasks.PauseTask(ctx, &api.PauseTaskRequest{Task: task})
		return err
	})
}

func (p *program) unpauseCommand() *cobra.Command {
	return p.eachTask("unpause", "Unpause all processes within one or more tasks", func(ctx context.Context, c *client.Client, task string) error {
		_, err := c.Tasks.UnpauseTask(ctx, &api.UnpauseTaskRequest{Task: task})
		return err
	})
}

func (p *program) killCommand() *cobra.Command {
	var name string
	var number int32
	cmd := p.eachTask("kill", "Kill one or more running tasks", func(ctx context.Context, c *client.Client, task string) error {
		_, err := c.Tasks.KillTask(ctx, &api.KillTaskRequest{Task: task, Signal: number})
		return err
	})
	cmd.Use = "kill [OPTIONS] TASK [TASK...]"
	cmd.Long += "\nA task that ends is replaced as its service says."
	cmd.Flags().StringVarP(&name, "signal", "s", "KILL", "Signal to send to the task: a name or a number")
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		number, err = signalNumber(name)
		return err
	}
	return cmd
}

// eachTask is a command that does something to each of the tasks that it names, and prints those with which it did.
func (p *program) eachTask(name, short string, do func(ctx context.Context, c *client.Client, task string) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " TASK [TASK...]", Short: short, Long: short + "\n\n" + taskHelp, Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(task string) error {
				if err := do(ctx, c, task); err != nil {
					return err
				}
				return p.printf("%s\n", task)
			})
		}),
	}
}

// signalNumber reads a signal: TERM, SIGTERM, or 15.
func signalNumber(text string) (int32, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= lastSignal {
		return int32(n), nil
	}
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")); n != 0 {
		return int32(n), nil
	}
	return 0, fault.New(fault.Invalid, "invalid signal: %.40q: write a name such as TERM, or a number from 1 to %d (see signal(7))", text, lastSignal)
}

// processRow is a line of `top`.
type processRow struct {
	UID, PID, PPID, STAT, CPU, TIME, MEM, CMD string
}

func (p *program) topCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "top [OPTIONS] TASK", Short: "Display the running processes of a task", Args: exactArgs(1),
		Long: "Display the running processes of a task\n\n" + taskHelp + " The numbers of users and processes are those in its container.",
	}
	flags.registerFormat(cmd, listFormatHelp, listJSONHelp)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		answer, err := c.Tasks.ListTaskProcesses(ctx, &api.ListTaskProcessesRequest{Task: args[0]})
		if err != nil {
			return err
		}
		rows := make([]processRow, 0, len(answer.GetProcesses()))
		for _, process := range answer.GetProcesses() {
			rows = append(rows, processRowOf(process))
		}
		header := processRow{UID: "UID", PID: "PID", PPID: "PPID", STAT: "STAT", CPU: "CPU", TIME: "TIME", MEM: "MEM", CMD: "CMD"}
		return writeList(p.out, &flags, topTable, answer.GetProcesses(), header, rows)
	})
	return cmd
}

// processRowOf shows a process as ps(1) does: CPU is the part of its life that it ran on a processor.
func processRowOf(p *api.TaskProcess) processRow {
	ran, age := p.GetCpuTime().AsDuration(), p.GetAge().AsDuration()
	part := 0.0
	if age > 0 {
		part = 100 * ran.Seconds() / age.Seconds()
	}
	return processRow{
		UID: strconv.FormatUint(uint64(p.GetUid()), 10), PID: strconv.Itoa(int(p.GetPid())), PPID: strconv.Itoa(int(p.GetParent())),
		STAT: p.GetState(), CPU: fmt.Sprintf("%.1f%%", part),
		TIME: fmt.Sprintf("%02d:%02d:%02d", ran/time.Hour, ran/time.Minute%60, ran/time.Second%60),
		MEM:  units.BytesSize(float64(p.GetResident())), CMD: p.GetCommand(),
	}
}
