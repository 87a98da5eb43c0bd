package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/compose"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

// stackKinds are what a stack has beside services.
func stackKinds() []valueKind { return []valueKind{secrets(), configs()} }

// deployFlags are those of `stack deploy`.
type deployFlags struct {
	source       stackSource
	wait         waitFlags
	prune        bool
	resolveImage string
}

// The words of --resolve-image.
const (
	resolveAlways  = "always"
	resolveChanged = "changed"
	resolveNever   = "never"
)

func (f *deployFlags) register(cmd *cobra.Command) {
	f.source.register(cmd)
	cmd.Flags().BoolVarP(&f.wait.detach, "detach", "d", true, "Exit immediately instead of waiting for the stack services to converge")
	cmd.Flags().BoolVarP(&f.wait.quiet, "quiet", "q", false, "Suppress progress output")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "Prune services that are no longer referenced")
	cmd.Flags().StringVar(&f.resolveImage, "resolve-image", resolveAlways,
		`Have services use the newest image of their tag on each deploy, or only when the file names another one ("always", "changed")`)
}

func (f *deployFlags) check(cmd *cobra.Command) error {
	switch f.resolveImage {
	case resolveAlways, resolveChanged:
		return nil
	case resolveNever:
		return &usageError{command: cmd, err: errors.New("--resolve-image never: services always use an image by its digest: write changed to keep the one that they have")}
	}
	return &usageError{command: cmd, err: fmt.Errorf("invalid option %s for flag --resolve-image: write always or changed", f.resolveImage)}
}

func (p *program) stackDeploy() *cobra.Command {
	var flags deployFlags
	cmd := &cobra.Command{
		Use: "deploy [OPTIONS] STACK", Aliases: []string{"up"}, Short: "Deploy a new stack or update an existing stack", Args: exactArgs(1),
		Long: "Deploy a new stack or update an existing stack.\n\nServices are made in the order of depends_on, and a new one once those that it depends on have reached what\n" +
			"its condition says, with --detach too. What is as the file says stays as it is.",
	}
	flags.register(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return flags.check(cmd) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if err := compose.CheckName(args[0]); err != nil {
			return err
		}
		project, err := p.loadStack(ctx, cmd, &flags.source, args[0])
		if err != nil {
			return err
		}
		stack, warnings, err := compose.NewStack(ctx, project)
		if err != nil {
			return fault.New(fault.KindOf(err), "%s: %w", strings.Join(flags.source.files, ", "), err)
		}
		p.warn(warnings)
		return p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			return (&deployment{p: p, c: c, flags: &flags, stack: stack}).run(ctx)
		})(cmd, args)
	}
	return cmd
}

// deployment is one run of `stack deploy`.
type deployment struct {
	p     *program
	c     *client.Client
	flags *deployFlags
	stack *compose.Stack
	// changed are the services that were made or changed.
	changed []*api.Service
	// moved are the names of those that have new tasks because a secret or config has a new version.
	moved []string
}

func (d *deployment) run(ctx context.Context) error {
	if err := d.values(ctx); err != nil {
		return err
	}
	if d.flags.prune {
		if err := d.pruneServices(ctx); err != nil {
			return err
		}
	}
	for i, service := range d.stack.Services {
		if err := d.service(ctx, service); err != nil {
			return d.partly(ctx, i, err)
		}
	}
	if d.flags.prune {
		if err := d.pruneValues(ctx); err != nil {
			return err
		}
	}
	if d.flags.wait.detach {
		return nil
	}
	return d.converge(ctx)
}

// partly says of an error what was done before it, and what was not.
func (d *deployment) partly(ctx context.Context, done int, err error) error {
	left := strings.Join(mapped(d.stack.Services[done:], func(s compose.Service) string { return s.Name }), ", ")
	switch {
	case ctx.Err() != nil:
		return &interruptedError{left: fmt.Sprintf("Stopped before these services of stack %s were as the file says: %s.\nThe same deploy goes on.", d.stack.Name, left)}
	case done == 0:
		return err
	}
	return fault.New(fault.KindOf(err), "%w\n%d of %d services of stack %s are as the file says, and %s are not yet: the same deploy goes on",
		err, done, len(d.stack.Services), d.stack.Name, left)
}

// service makes or changes one service.
func (d *deployment) service(ctx context.Context, wanted compose.Service) error {
	spec, err := wanted.Spec(ctx, resolveValue(d.c))
	if err != nil {
		return err
	}
	present, err := d.c.Control.GetService(ctx, &api.GetServiceRequest{Service: wanted.Name})
	// The managers also find services by the first characters of their ids.
	missing := fault.KindOf(err) == fault.NotFound || err == nil && serviceName(present.GetService()) != wanted.Name
	switch {
	case missing:
		return d.create(ctx, wanted, spec)
	case err != nil:
		return err
	}
	return d.update(ctx, wanted, spec)
}

func (d *deployment) create(ctx context.Context, wanted compose.Service, spec *api.ServiceSpec) error {
	for _, need := range wanted.Needs {
		if err := d.await(ctx, need); err != nil {
			return fault.New(fault.KindOf(err), "service %s waits for %s: %w", wanted.Name, need.Name, err)
		}
	}
	if err := d.p.tell("Creating service %s", wanted.Name); err != nil {
		return err
	}
	answer, err := d.c.Control.CreateService(ctx, &api.CreateServiceRequest{Spec: spec})
	if err != nil {
		return fault.New(fault.KindOf(err), "create service %s: %w", wanted.Name, err)
	}
	d.p.warn(answer.GetWarnings())
	d.changed = append(d.changed, answer.GetService())
	return nil
}

// await waits until a service that another one depends on has reached what that says, and shows how far it is.
func (d *deployment) await(ctx context.Context, need compose.Need) error {
	answer, err := d.c.Control.GetService(ctx, &api.GetServiceRequest{Service: need.Name})
	if err != nil {
		return err
	}
	watching, done := context.WithCancel(ctx)
	defer done()
	display := d.p.display(d.flags.wait.quiet)
	var last compose.Progress
	err = d.p.watch(watching, d.c, answer.GetService().GetId(), func(s *progress.Snapshot) {
		last = need.Condition.Of(s.Service, s.Tasks, s.Counts)
		if display.Show([]progress.Line{{Key: need.Name, Text: last.Text}}) != nil || last.Reached || last.Failed != "" {
			done()
		}
	})
	switch {
	case last.Reached:
		return nil
	case last.Failed != "":
		return fault.New(fault.Precondition, "%s: see `skep service ps %s`, mend it, and deploy again", last.Failed, need.Name)
	}
	return err
}

func (d *deployment) update(ctx context.Context, wanted compose.Service, spec *api.ServiceSpec) error {
	var before *api.ServiceSpec
	answer, err := changeService(ctx, d.c, wanted.Name, func(present *api.ServiceSpec) (*api.ServiceSpec, error) {
		before = present
		return d.kept(wanted, present, spec)
	})
	if err != nil {
		return fault.New(fault.KindOf(err), "update service %s: %w", wanted.Name, err)
	}
	d.p.warn(answer.GetWarnings())
	service := answer.GetService()
	if proto.Equal(before, service.GetSpec()) {
		if slices.Contains(d.moved, wanted.Name) {
			d.changed = append(d.changed, service)
		}
		return d.p.tell("Service %s is up to date", wanted.Name)
	}
	d.changed = append(d.changed, service)
	return d.p.tell("Updating service %s (id: %s)", wanted.Name, service.GetId())
}

// kept returns a spec with what a deploy leaves as it is.
func (d *deployment) kept(wanted compose.Service, present, spec *api.ServiceSpec) (*api.ServiceSpec, error) {
	labels := present.GetAnnotations().GetLabels()
	if !ofStack(labels, d.stack.Name) {
		return nil, fault.New(fault.AlreadyExists, "it is there, and not of stack %s: remove it, or deploy the stack by another name", d.stack.Name)
	}
	out := proto.CloneOf(spec)
	// A service that was updated by force is not to be updated again because no file can say so.
	out.Task.ForceUpdate = present.GetTask().GetForceUpdate()
	if d.flags.resolveImage == resolveChanged && labels[compose.ImageLabel] == wanted.Image {
		out.Task.Container.Image = present.GetTask().GetContainer().GetImage()
	}
	return out, nil
}

// maxWaits is the number of services that are watched at once.
const maxWaits = 32

// converge waits for all that was made or changed, at once.
func (d *deployment) converge(ctx context.Context) error {
	board := progress.NewBoard(d.p.display(d.flags.wait.quiet), mapped(d.changed, serviceName))
	ends := make([]error, len(d.changed))
	var waits errgroup.Group
	waits.SetLimit(maxWaits)
	for i, service := range d.changed {
		waits.Go(func() error {
			err := d.p.waitShown(ctx, d.c, service, board.Of(serviceName(service)))
			if err != nil {
				ends[i] = fmt.Errorf("service %s: %w", serviceName(service), err)
			}
			return nil // the others are waited for all the same
		})
	}
	_ = waits.Wait()
	if ctx.Err() != nil {
		return &interruptedError{check: "skep stack ps " + d.stack.Name}
	}
	return failures(slices.DeleteFunc(ends, func(err error) bool { return err == nil })).orNil()
}
