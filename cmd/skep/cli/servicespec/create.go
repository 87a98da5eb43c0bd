package servicespec

import (
	"context"

	"github.com/distribution/reference"
	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// Create are the flags of `service create`.
type Create struct {
	shared
	name, mode              string
	env, envFiles           flagvalue.List
	labels, containerLabels flagvalue.Labels
	constraints             flagvalue.List
	preferences             flagvalue.Preferences
	values                  values
	generic                 flagvalue.GenericResources
	ports                   flagvalue.Ports
	mounts                  flagvalue.Mounts
	lists                   lists
	grants                  flagvalue.List
}

// Register declares the flags on set, which is read by [Create.Spec].
func (c *Create) Register(set *pflag.FlagSet) {
	c.register(set, true)
	c.registerNetwork(set, true)
	c.lists.registerCreate(set)
	c.values.registerCreate(set)
	set.Var(&c.constraints, "constraint", "Placement constraints")
	set.Var(&c.containerLabels, "container-label", "Container labels")
	set.VarP(&c.env, "env", "e", "Set environment variables")
	set.Var(&c.envFiles, "env-file", "Read in a file of environment variables")
	set.Var(&c.grants, "grant", "Give what a grant has")
	set.VarP(&c.labels, "label", "l", "Service labels")
	set.StringVar(&c.mode, "mode", replicatedMode, modeHelp)
	set.Var(&c.mounts, "mount", "Attach a filesystem mount to the service")
	set.Var(&c.generic, "generic-resource", "User defined resources")
	set.Var(&c.preferences, "placement-pref", "Add a placement preference")
	set.StringVar(&c.name, "name", "", "Service name")
	set.VarP(&c.ports, "publish", "p", "Publish a port as a node port")
	set.Var(flagvalue.Tmpfs{Mounts: &c.mounts}, "tmpfs", "Mount a tmpfs directory (format: <path>[:<option>,...])")
}

// Spec returns the spec of a service that runs image with args, as the flags say.
func (c *Create) Spec(ctx context.Context, image string, args []string, lookup flagvalue.LookupEnv, resolve Resolve,
) (*api.ServiceSpec, error) {
	normal, err := normalImage(image)
	if err != nil {
		return nil, err
	}
	env, err := flagvalue.ReadEnv(c.envFiles, c.env, lookup)
	if err != nil {
		return nil, err
	}
	spec := &api.ServiceSpec{
		Annotations: &api.Annotations{Name: c.name, Labels: c.labels},
		Task: &api.TaskSpec{Container: &api.ContainerSpec{
			Image: normal, Args: args, Labels: c.containerLabels, Env: env, Mounts: c.mounts,
			Grants: grantReferences(c.grants),
		}},
	}
	if err := setMode(spec, c.mode); err != nil {
		return nil, err
	}
	c.lists.apply(spec.Task.Container, removals{})
	if len(c.constraints) > 0 {
		placementOf(spec.Task).Constraints = c.constraints
	}
	if len(c.preferences) > 0 {
		placementOf(spec.Task).Preferences = c.preferences
	}
	if len(c.generic) > 0 {
		reservationsOf(spec.Task).Generic = c.generic
	}
	if len(c.ports) > 0 {
		spec.Endpoint = &api.EndpointSpec{Ports: c.ports}
	}
	if err := c.values.apply(ctx, spec.Task.Container, resolve); err != nil {
		return nil, err
	}
	return spec, c.apply(spec)
}

// normalImage returns what a person typed as a normalised reference with a tag or digest.
func normalImage(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fault.New(fault.Invalid, "invalid reference format: %q is no image: write NAME, NAME:TAG or NAME@DIGEST", image)
	}
	return reference.TagNameOnly(named).String(), nil
}
