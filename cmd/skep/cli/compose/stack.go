package compose

import (
	"context"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/servicespec"
	"github.com/skep-io/skep/internal/fault"
)

// Sizes of values in bytes: the managers' limits.
const (
	maxSecret = 512000
	maxConfig = 1024000
)

// Stack is what a compose file asks for.
type Stack struct {
	Name string
	// Services are in an order in which each comes after those that it depends on (I4).
	Services []Service
	// Secrets and Configs are in the order of their names.
	Secrets, Configs []Value
}

// Service is one service of a stack.
type Service struct {
	// Name is the service's in the swarm.
	Name string
	// Image is as the file names it.
	Image string
	// Needs are what a new service waits for, in the order of names.
	Needs []Need
	make  func(context.Context, servicespec.Resolve) (*api.ServiceSpec, error)
}

// Spec returns the spec, once there are the secrets and configs that it names, which resolve looks up.
func (s Service) Spec(ctx context.Context, resolve servicespec.Resolve) (*api.ServiceSpec, error) {
	return s.make(ctx, resolve)
}

// Value is a secret or a config of a stack.
type Value struct {
	// Name is that in the swarm.
	Name string
	// External is true for one that the stack uses but does not have.
	External bool
	Labels   map[string]string
	Template string
	// Data are nil for an external one.
	Data []byte
}

// NewStack returns the stack of a project, or says what of it can't be had. The warnings are for the user. It reads the files of secrets
// and configs.
func NewStack(ctx context.Context, project *types.Project) (*Stack, []string, error) {
	warnings, err := sift(project)
	if err != nil {
		return nil, nil, err
	}
	c := converter{project: project, stack: project.Name}
	stack := &Stack{Name: project.Name}
	specs := map[string]*api.ServiceSpec{}
	for _, name := range order(project.Services) {
		service := project.Services[name]
		made := Service{Name: c.scoped(name), Image: service.Image, Needs: c.needs(service), make: func(ctx context.Context, resolve servicespec.Resolve) (*api.ServiceSpec, error) {
			return c.spec(ctx, service, resolve)
		}}
		// Nothing is to be made for a file that has an error further on.
		if specs[made.Name], err = made.Spec(ctx, unresolved); err != nil {
			return nil, nil, err
		}
		stack.Services = append(stack.Services, made)
	}
	if err := checkNeeds(stack, specs); err != nil {
		return nil, nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(project.Secrets)) {
		value, err := c.value("secret "+key, types.FileObjectConfig(project.Secrets[key]), maxSecret)
		if err != nil {
			return nil, nil, err
		}
		stack.Secrets = append(stack.Secrets, value)
	}
	for _, key := range slices.Sorted(maps.Keys(project.Configs)) {
		value, err := c.value("config "+key, types.FileObjectConfig(project.Configs[key]), maxConfig)
		if err != nil {
			return nil, nil, err
		}
		stack.Configs = append(stack.Configs, value)
	}
	return stack, warnings, nil
}

// unresolved takes any name for that of a secret or config.
func unresolved(_ context.Context, _, name string) (id, found string, err error) {
	return name, name, nil
}

// value returns a secret or config with what it holds.
func (c converter) value(what string, v types.FileObjectConfig, most int) (Value, error) {
	out := Value{Name: v.Name, External: bool(v.External), Template: v.TemplateDriver}
	if out.External {
		return out, nil
	}
	out.Labels = c.labelled(maps.Clone(v.Labels))
	var err error
	switch {
	case v.File != "":
		out.Data, err = readValue(what, v.File, most)
	case v.Content != "":
		out.Data = []byte(v.Content)
	case v.Environment != "":
		err = fault.New(fault.Invalid, "%s: the variable %s is not set or empty: set it to 1 to %d bytes", what, v.Environment, most)
	default:
		err = fault.New(fault.Invalid, "%s: write file or environment for where its value is, or external: true for one that there is", what)
	}
	if len(out.Data) > most {
		clear(out.Data)
		return Value{}, fault.New(fault.Invalid, "%s is larger than %d bytes: keep large data elsewhere, and its key here", what, most)
	}
	return out, err
}

func readValue(what, name string, most int) ([]byte, error) {
	file, err := flagvalue.OpenFile(name)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "%s: file: %w", what, err)
	}
	defer file.Close()
	return readAtMost(file, what+": file "+name, most)
}
