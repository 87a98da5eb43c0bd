package cli

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/compose"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// valuesOf returns a stack's secrets or configs.
func (d *deployment) valuesOf(k valueKind) []compose.Value {
	if k.noun == secrets().noun {
		return d.stack.Secrets
	}
	return d.stack.Configs
}

// values sees that there are the secrets and configs that the stack has and uses, with what the files hold. The managers make no new
// version of what is the same: only they can tell, because nobody gets a secret back.
func (d *deployment) values(ctx context.Context) error {
	for _, k := range stackKinds() {
		for _, wanted := range d.valuesOf(k) {
			err := d.value(ctx, k, wanted)
			clear(wanted.Data)
			if err != nil {
				return fault.New(fault.KindOf(err), "%s %s: %w", k.noun, wanted.Name, err)
			}
		}
	}
	return nil
}

func (d *deployment) value(ctx context.Context, k valueKind, wanted compose.Value) error {
	present, err := k.get(ctx, d.c, wanted.Name)
	// The managers also find them by the first characters of their ids.
	missing := fault.KindOf(err) == fault.NotFound || err == nil && present.Spec.Name != wanted.Name
	switch {
	case missing && wanted.External:
		return fault.New(fault.NotFound, "the file says that it is there, and it is not: make it with `skep %s create %s FILE`", k.noun, wanted.Name)
	case missing:
		if err := d.p.tell("Creating %s %s", k.noun, wanted.Name); err != nil {
			return err
		}
		_, err := k.create(ctx, d.c, &api.Annotations{Name: wanted.Name, Labels: wanted.Labels}, wanted.Data, wanted.Template)
		return err
	case err != nil || wanted.External:
		return err
	}
	return d.newValue(ctx, k, present, wanted)
}

// newValue gives a secret or config what the file holds.
func (d *deployment) newValue(ctx context.Context, k valueKind, present view.Value, wanted compose.Value) error {
	template := ""
	if present.Spec.Templating != nil {
		template = present.Spec.Templating.Name
	}
	switch {
	case !ofStack(present.Spec.Labels, d.stack.Name):
		return fault.New(fault.AlreadyExists, "it is there, and not of stack %s: say external: true to use it, or give the stack's another name", d.stack.Name)
	case template != wanted.Template:
		return fault.New(fault.Invalid, "template_driver can't be changed from %q to %q: give it another key", template, wanted.Template)
	}
	change := &api.ValueChange{Data: wanted.Data, LabelAdd: map[string]string{}}
	for key, value := range wanted.Labels {
		if present.Spec.Labels[key] != value {
			change.LabelAdd[key] = value
		}
	}
	for _, key := range slices.Sorted(maps.Keys(present.Spec.Labels)) {
		if _, kept := wanted.Labels[key]; !kept {
			change.LabelRemove = append(change.LabelRemove, key)
		}
	}
	done, err := k.update(ctx, d.c, present.ID, change)
	if err != nil || max(done.version, 1) == present.Newest() {
		return err
	}
	d.moved = append(d.moved, done.replaced...)
	users := ""
	if all := slices.Concat(done.replaced, done.rewritten); len(all) > 0 {
		users = ": " + strings.Join(all, ", ")
	}
	return d.p.tell("Updating %s %s (version %d)%s", k.noun, wanted.Name, done.version, users)
}

// pruneServices removes the services of the stack that the file does not name any more, the newest first.
func (d *deployment) pruneServices(ctx context.Context) error {
	services, err := stackServices(ctx, d.c, d.stack.Name)
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(services, func(s *api.Service) bool {
		return slices.ContainsFunc(d.stack.Services, func(wanted compose.Service) bool { return wanted.Name == serviceName(s) })
	})
	return d.p.removeServices(ctx, d.c, gone)
}

// pruneValues removes the secrets and configs of the stack that the file does not name any more.
func (d *deployment) pruneValues(ctx context.Context) error {
	var failed failures
	for _, k := range stackKinds() {
		values, err := stackValues(ctx, d.c, k, d.stack.Name)
		if err != nil {
			return err
		}
		gone := slices.DeleteFunc(values, func(v view.Value) bool {
			return slices.ContainsFunc(d.valuesOf(k), func(wanted compose.Value) bool { return wanted.Name == v.Spec.Name })
		})
		if err := d.p.removeValues(ctx, d.c, k, gone); err != nil {
			failed = append(failed, err)
		}
	}
	return failed.orNil()
}

// removeServices removes services from the last one on: those that others depend on were made first.
func (p *program) removeServices(ctx context.Context, c *client.Client, services []*api.Service) error {
	services = slices.Clone(services)
	slices.Reverse(services)
	return eachOf(services, func(s *api.Service) error {
		if err := p.tell("Removing service %s", serviceName(s)); err != nil {
			return err
		}
		_, err := c.Control.RemoveService(ctx, &api.RemoveServiceRequest{Service: s.GetId()})
		return unlessGone(err)
	})
}

func (p *program) removeValues(ctx context.Context, c *client.Client, k valueKind, values []view.Value) error {
	return eachOf(values, func(v view.Value) error {
		if err := p.tell("Removing %s %s", k.noun, v.Spec.Name); err != nil {
			return err
		}
		return unlessGone(k.remove(ctx, c, v.ID))
	})
}

// unlessGone passes over that what is to be removed is not there any more.
func unlessGone(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}
