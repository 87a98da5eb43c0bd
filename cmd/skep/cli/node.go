package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// selfNode names this node where a command takes a node.
const selfNode = "self"

func (p *program) nodeCommand() *cobra.Command {
	return group("node", "Manage Swarm nodes", p.nodeList(), p.completed(nodeWords, p.nodeInspect()),
		p.completed(nodeWords, p.nodePs()), p.completed(nodeWords, p.nodeUpdate()), p.completed(nodeWords, p.nodePromote()),
		p.completed(nodeWords, p.nodeDemote()), p.completed(nodeWords, p.nodeRemove()), p.completed(waitingWords, p.nodeApprove()),
		p.completed(waitingWords, p.nodeDeny()), p.completed(nodeWords, p.nodeCompromise()))
}

// nodeRow is a line of `node ls`.
type nodeRow struct {
	ID            string
	Self          bool
	Hostname      string
	Status        string
	Availability  string
	ManagerStatus string
	EngineVersion string
	// Drain is how far the drain of a node is, or empty.
	Drain string `json:",omitempty"`
	// KeyFingerprint of a node that waits for approval, or empty.
	KeyFingerprint string `json:",omitempty"`
}

// nodeTable has one more column while some node waits for approval.
const (
	nodeTable        = "{{.ID}}{{if .Self}} *{{else}}  {{end}}\t{{.Hostname}}\t{{.Status}}\t{{if .Drain}}{{.Drain}}{{else}}{{.Availability}}{{end}}\t{{.ManagerStatus}}\t{{.EngineVersion}}"
	waitingNodeTable = nodeTable + "\t{{.KeyFingerprint}}"
)

func (p *program) nodeList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List nodes in the swarm", Args: noArgs,
	}
	flags.register(cmd, "Only display IDs", listFormatHelp, "id", "label", "membership=accepted|pending", "name", "node.label", "role=manager|worker")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.ListNodes(ctx, &api.ListNodesRequest{})
		if err != nil {
			return err
		}
		info, err := c.Daemon.GetInfo(ctx, &api.GetInfoRequest{})
		if err != nil {
			return err
		}
		var objects []view.Node
		var rows []nodeRow
		table := nodeTable
		for _, node := range sortedBy(answer.GetNodes(), hostnameOf) {
			v := view.NewNode(node)
			if !nodePasses(flags.filter, v) {
				continue
			}
			objects = append(objects, v)
			rows = append(rows, newNodeRow(v, info.GetNodeId()))
			if v.Waits() {
				table = waitingNodeTable
			}
		}
		header := nodeRow{
			ID: "ID", Hostname: "HOSTNAME", Status: "STATUS", Availability: "AVAILABILITY", ManagerStatus: "MANAGER STATUS",
			EngineVersion: "ENGINE VERSION", KeyFingerprint: "KEY FINGERPRINT",
		}
		return writeList(p.out, &flags, table, objects, header, rows)
	})
	return cmd
}

func hostnameOf(n *api.Node) string { return n.GetDescription().GetHostname() }

// nodePasses says whether a node meets the filter.
func nodePasses(filter flagvalue.Filter, v view.Node) bool {
	membership := "accepted"
	if v.Waits() {
		membership = "pending"
	}
	return filter.Prefix("id", v.ID) && filter.Prefix("name", v.Description.Hostname, v.Spec.Name) &&
		filter.Equal("role", v.Spec.Role) && filter.Equal("membership", membership) &&
		filter.Labels("label", v.Description.Engine.Labels) && filter.Labels("node.label", v.Spec.Labels)
}

func newNodeRow(v view.Node, self string) nodeRow {
	row := nodeRow{
		ID: v.ID, Self: v.ID == self, Hostname: v.Description.Hostname, Status: capitalized(v.Status.State),
		Availability: capitalized(v.Spec.Availability), EngineVersion: v.Description.Engine.EngineVersion,
	}
	if d := v.Status.Drain; d != nil {
		row.Drain = capitalized(d.State)
	}
	if v.Waits() {
		row.Status, row.KeyFingerprint = capitalized(v.Approval.State), v.Approval.KeyFingerprint
	}
	if v.ManagerStatus != nil {
		row.ManagerStatus = capitalized(v.ManagerStatus.Reachability)
		if v.ManagerStatus.Leader {
			row.ManagerStatus = "Leader"
		}
	}
	return row
}

// getNode returns a node by name or id; self is this node.
func getNode(ctx context.Context, c *client.Client, name string) (*api.Node, error) {
	if name == selfNode {
		info, err := c.Daemon.GetInfo(ctx, &api.GetInfoRequest{})
		if err != nil {
			return nil, err
		}
		if info.GetNodeId() == "" {
			return nil, fault.New(fault.Precondition,
				"this node is not in a swarm: 'skep swarm init' makes one, 'skep swarm join' joins one")
		}
		name = info.GetNodeId()
	}
	answer, err := c.Control.GetNode(ctx, &api.GetNodeRequest{Node: name})
	return answer.GetNode(), err
}

func (p *program) nodeInspect() *cobra.Command {
	var flags inspectFlags
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] self|NODE [NODE...]", Short: "Display detailed information on one or more nodes",
		Args: minArgs(1),
	}
	flags.register(cmd)
	flags.registerPretty(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		get := func(name string) (view.Node, error) {
			node, err := getNode(ctx, c, name)
			return view.NewNode(node), err
		}
		return inspectPretty(p, &flags, args, get, prettyNode)
	})
	return cmd
}

func prettyNode(n view.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ID:\t\t\t%s\n", n.ID)
	writePrettyLabels(&b, n.Spec.Labels)
	fmt.Fprintf(&b, "Hostname:              \t%s\nJoined at:             \t%s\n", n.Description.Hostname, prettyTime(n.CreatedAt))
	fmt.Fprintf(&b, "Status:\n State:\t\t\t%s\n Availability:         \t%s\n", capitalized(n.Status.State), capitalized(n.Spec.Availability))
	fmt.Fprintf(&b, " Address:\t\t%s\n", n.Status.Addr)
	writePrettyDrain(&b, n)
	if a := n.Approval; a != nil {
		fmt.Fprintf(&b, "Approval:\n State:\t\t\t%s\n Key fingerprint:\t%s\n", capitalized(a.State), a.KeyFingerprint)
	}
	if m := n.ManagerStatus; m != nil {
		leader := "No"
		if m.Leader {
			leader = "Yes"
		}
		fmt.Fprintf(&b, "Manager Status:\n Address:\t\t%s\n Raft Status:\t\t%s\n Leader:\t\t%s\n", m.Addr, capitalized(m.Reachability), leader)
	}
	d := n.Description
	fmt.Fprintf(&b, "Platform:\n Operating System:\t%s\n Architecture:\t\t%s\n", d.Platform.OS, d.Platform.Architecture)
	fmt.Fprintf(&b, "Resources:\n CPUs:\t\t\t%s\n Memory:\t\t%s\n", flagvalue.FormatCPUs(d.Resources.NanoCPUs),
		units.BytesSize(float64(d.Resources.MemoryBytes)))
	for _, r := range d.Resources.GenericResources {
		fmt.Fprintf(&b, " Generic:\t\t%s\n", r)
	}
	if len(d.Isolation) > 0 {
		fmt.Fprintf(&b, "Isolation:\t\t%s\n", strings.Join(d.Isolation, ", "))
	}
	if lacks := view.NotInForce(d.Isolation); len(lacks) > 0 {
		fmt.Fprintf(&b, "Not in force:\t\t%s\n", strings.Join(lacks, ", "))
	}
	fmt.Fprintf(&b, "Engine Version:\t\t%s\n", d.Engine.EngineVersion)
	return b.String()
}

// isReady reports whether a node is up, as far as can be told.
func isReady(ctx context.Context, c *client.Client, name string) bool {
	answer, err := c.Control.GetNode(ctx, &api.GetNodeRequest{Node: name})
	return err == nil && answer.GetNode().GetStatus().GetState() == api.NodeState_NODE_STATE_READY
}

func (p *program) nodeRemove() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] NODE [NODE...]", Aliases: []string{"remove"}, Short: "Remove one or more nodes from the swarm",
		Args: minArgs(1),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force remove a node from the swarm")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		return each(args, func(name string) error {
			up := force && isReady(ctx, c, name)
			if _, err := c.Control.RemoveNode(ctx, &api.RemoveNodeRequest{Node: name, Force: force}); err != nil {
				return err
			}
			if up {
				p.warn([]string{fmt.Sprintf("node %s was up: what runs there goes on, beside what replaces it, until `skep swarm leave` is run there", name)})
			}
			return p.printf("%s\n", name)
		})
	})
	return cmd
}
