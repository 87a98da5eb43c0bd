package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// words lists what an argument may be.
type words func(ctx context.Context, c *client.Client) ([]string, error)

// completed lets the shell complete a command's arguments with words that were not given yet. A daemon that can't be
// asked completes nothing: an error would land in the middle of a command line.
func (p *program) completed(list words, cmd *cobra.Command) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		var found []string
		err := p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			var err error
			found, err = list(ctx, c)
			return err
		})(cmd, args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found = slices.DeleteFunc(found, func(word string) bool {
			return slices.Contains(args, word) || !strings.HasPrefix(word, begun)
		})
		return found, cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

func nodeWords(ctx context.Context, c *client.Client) ([]string, error) {
	answer, err := c.Control.ListNodes(ctx, &api.ListNodesRequest{})
	return mapped(answer.GetNodes(), hostnameOf), err
}

// waitingWords lists the ids of nodes that wait for approval: a hostname is what a stranger says.
func waitingWords(ctx context.Context, c *client.Client) ([]string, error) {
	answer, err := c.Control.ListNodes(ctx, &api.ListNodesRequest{})
	waiting := slices.DeleteFunc(answer.GetNodes(), func(n *api.Node) bool { return !view.NewNode(n).Waits() })
	return mapped(waiting, (*api.Node).GetId), err
}

func serviceWords(ctx context.Context, c *client.Client) ([]string, error) {
	answer, err := c.Control.ListServices(ctx, &api.ListServicesRequest{})
	return mapped(answer.GetServices(), serviceName), err
}

func imageWords(ctx context.Context, c *client.Client) ([]string, error) {
	answer, err := c.Daemon.ListImages(ctx, &api.ListImagesRequest{})
	var out []string
	for _, image := range answer.GetImages() {
		out = append(out, mapped(image.GetReferences(), view.Familiar)...)
	}
	return out, err
}

func mapped[T, R any](all []T, fn func(T) R) []R {
	out := make([]R, 0, len(all))
	for _, one := range all {
		out = append(out, fn(one))
	}
	return out
}
