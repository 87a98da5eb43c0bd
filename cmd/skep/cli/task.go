package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// maxTaskError is the width of the error column, as Docker's.
const maxTaskError = 30

// taskRow is a line of `service ps` and `node ps`.
type taskRow struct {
	ID           string
	Name         string
	Image        string
	Node         string
	DesiredState string
	CurrentState string
	Error        string
	Ports        string
}

const taskTable = "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}"

// psFlags are those of both lists of tasks.
type psFlags struct {
	listFlags
	noResolve, noTrunc bool
}

func (f *psFlags) register(cmd *cobra.Command, filters ...string) {
	f.listFlags.register(cmd, "Only display task IDs", "Pretty-print tasks using a Go template",
		append([]string{"desired-state=running|shutdown|accepted"}, filters...)...)
	cmd.Flags().BoolVar(&f.noResolve, "no-resolve", false, "Do not map IDs to Names")
	cmd.Flags().BoolVar(&f.noTrunc, "no-trunc", false, "Do not truncate output")
}

func (p *program) nodePs() *cobra.Command {
	var flags psFlags
	cmd := &cobra.Command{
		Use: "ps [OPTIONS] [NODE...]", Short: "List tasks running on one or more nodes, defaults to current node",
		Args: cobra.ArbitraryArgs,
	}
	flags.register(cmd, "id", "label", "name")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		if len(args) == 0 {
			args = []string{selfNode}
		}
		var ids []string
		missing := each(args, func(name string) error {
			node, err := getNode(ctx, c, name)
			ids = append(ids, node.GetId())
			return err
		})
		return p.writeTasks(ctx, c, &flags, &api.ListTasksRequest{NodeIds: withoutEmpty(ids)}, missing)
	})
	return cmd
}

func (p *program) servicePs() *cobra.Command {
	var flags psFlags
	cmd := &cobra.Command{
		Use: "ps [OPTIONS] SERVICE [SERVICE...]", Short: "List the tasks of one or more services", Args: minArgs(1),
	}
	flags.register(cmd, "id", "label", "name", "node")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		var ids []string
		missing := each(args, func(name string) error {
			answer, err := c.Control.GetService(ctx, &api.GetServiceRequest{Service: name})
			ids = append(ids, answer.GetService().GetId())
			return err
		})
		return p.writeTasks(ctx, c, &flags, &api.ListTasksRequest{ServiceIds: withoutEmpty(ids)}, missing)
	})
	return cmd
}

func withoutEmpty(ids []string) []string {
	return slices.DeleteFunc(ids, func(id string) bool { return id == "" })
}

// writeTasks writes the tasks that the request selects, and returns what was missing already or an error of its own.
func (p *program) writeTasks(ctx context.Context, c *client.Client, flags *psFlags, request *api.ListTasksRequest, missing error) error {
	if len(request.GetServiceIds())+len(request.GetNodeIds()) == 0 {
		return missing // an empty request would mean all
	}
	tasks, err := c.Control.ListTasks(ctx, request)
	if err != nil {
		return err
	}
	var known nodes
	if !flags.noResolve {
		if known, err = listNodes(ctx, c); err != nil {
			return err
		}
	}
	listed := flags.selectTasks(tasks.GetTasks(), known)
	header := taskRow{
		ID: "ID", Name: "NAME", Image: "IMAGE", Node: "NODE", DesiredState: "DESIRED STATE", CurrentState: "CURRENT STATE",
		Error: "ERROR", Ports: "PORTS",
	}
	var objects []view.Task
	var rows []taskRow
	for i, task := range listed {
		objects = append(objects, view.NewTask(task))
		follows := i > 0 && sameSlot(listed[i-1], task)
		rows = append(rows, p.newTaskRow(task, flags, known, follows))
	}
	if err := writeList(p.out, &flags.listFlags, taskTable, objects, header, rows); err != nil {
		return err
	}
	return missing
}

// nodes are those of the swarm by id; none are known where ids are not to be resolved.
type nodes map[string]*api.Node

func listNodes(ctx context.Context, c *client.Client) (nodes, error) {
	answer, err := c.Control.ListNodes(ctx, &api.ListNodesRequest{})
	if err != nil {
		return nil, err
	}
	out := nodes{}
	for _, node := range answer.GetNodes() {
		out[node.GetId()] = node
	}
	return out, nil
}

// nameOf returns the node's name, or its id while it has none.
func (n nodes) nameOf(id string) string { return cmp.Or(n[id].GetDescription().GetHostname(), id) }

// unsure reports whether nobody knows how far a task is by now: its node is down, and it had not ended when that was heard of last.
func (n nodes) unsure(t *api.Task) bool {
	return n[t.GetNodeId()].GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN && !hasEnded(t)
}

// selectTasks returns the tasks that meet the filter: by service, slot, and the newest first.
func (f *psFlags) selectTasks(tasks []*api.Task, known nodes) []*api.Task {
	tasks = slices.DeleteFunc(slices.Clone(tasks), func(t *api.Task) bool { return !taskPasses(f.filter, t, known) })
	slices.SortStableFunc(tasks, func(a, b *api.Task) int {
		return cmp.Or(cmp.Compare(a.GetServiceName(), b.GetServiceName()), cmp.Compare(a.GetServiceId(), b.GetServiceId()),
			cmp.Compare(a.GetSlot(), b.GetSlot()),
			b.GetMeta().GetCreatedAt().AsTime().Compare(a.GetMeta().GetCreatedAt().AsTime()))
	})
	return tasks
}

func taskPasses(filter flagvalue.Filter, t *api.Task, known nodes) bool {
	return filter.Prefix("id", t.GetId()) && filter.Prefix("name", taskName(t), t.GetServiceName()) &&
		filter.Prefix("node", nodeOf(t), known.nameOf(nodeOf(t))) &&
		filter.Labels("label", t.GetSpec().GetContainer().GetLabels()) &&
		filter.Match("desired-state", func(state string) bool {
			switch desired := t.GetDesiredState(); strings.ToLower(state) {
			case "running":
				return desired == api.TaskState_TASK_STATE_RUNNING || desired == api.TaskState_TASK_STATE_READY
			case "shutdown":
				return desired > api.TaskState_TASK_STATE_RUNNING
			default:
				return strings.EqualFold(state, view.TaskState(desired))
			}
		})
}

// nodeOf returns the id of the node that runs a task, or is the only one that may.
func nodeOf(t *api.Task) string { return cmp.Or(t.GetNodeId(), t.GetBoundNodeId()) }

func sameSlot(a, b *api.Task) bool {
	return a.GetServiceId() == b.GetServiceId() && a.GetSlot() == b.GetSlot()
}

func taskName(t *api.Task) string { return view.TaskName(t.GetServiceName(), t.GetSlot()) }

// newTaskRow shows a task. One that follows a newer task of its slot is marked as its history.
func (p *program) newTaskRow(t *api.Task, flags *psFlags, known nodes, follows bool) taskRow {
	v := view.NewTask(t)
	row := taskRow{
		ID: v.ID, Name: taskName(t), Image: t.GetSpec().GetContainer().GetImage(), Node: known.nameOf(nodeOf(t)),
		DesiredState: capitalized(v.DesiredState), CurrentState: p.currentState(v), Ports: portsOf(t),
	}
	if known.unsure(t) {
		row.CurrentState += " (node is down)"
	}
	if flags.noResolve {
		row.Name = view.TaskName(v.ServiceID, v.Slot)
	}
	if follows && flags.format == "" {
		row.Name = ` \_ ` + row.Name
	}
	if v.Status.Err != "" {
		row.Error = strconv.Quote(v.Status.Err)
	}
	if flags.noTrunc {
		return row
	}
	if !flags.quiet {
		row.ID = view.ShortID(row.ID)
	}
	row.Image = view.ShortImage(row.Image)
	if v.Status.Err != "" {
		row.Error = `"` + output.Ellipsis(output.Printable(v.Status.Err), maxTaskError) + `"`
	}
	return row
}

func (p *program) currentState(v view.Task) string {
	state := capitalized(v.Status.State)
	if at := v.Status.Timestamp; !at.IsZero() && !at.Equal(time.Unix(0, 0)) {
		state += " " + strings.ToLower(p.age(at))
	}
	if r := v.Status.Readiness; r != nil && !r.Ready && v.Status.State == view.TaskState(api.TaskState_TASK_STATE_RUNNING) {
		state += " (not ready)"
	}
	return state
}

// portsOf lists the ports that a running task has on its node.
func portsOf(t *api.Task) string {
	if t.GetStatus().GetState() != api.TaskState_TASK_STATE_RUNNING {
		return ""
	}
	return joinPorts(t.GetEndpoint().GetPorts())
}

// joinPorts writes published ports as Docker does: *:8080->80/tcp.
func joinPorts(ports []*api.PortConfig) string {
	parts := make([]string, 0, len(ports))
	for _, port := range ports {
		parts = append(parts, fmt.Sprintf("*:%d->%d/%s", cmp.Or(port.GetPublishedPort(), port.GetTargetPort()),
			port.GetTargetPort(), view.Protocol(port.GetProtocol())))
	}
	return strings.Join(parts, ",")
}
