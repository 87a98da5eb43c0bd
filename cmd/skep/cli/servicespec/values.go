package servicespec

import (
	"context"
	"slices"

	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// What Resolve finds.
const (
	Secret = "secret"
	Config = "config"
)

// Resolve returns the id and name of the secret or config that a person named.
type Resolve func(ctx context.Context, kind, nameOrID string) (id, name string, err error)

// values are the flags for secrets and configs, of create and of update.
type values struct {
	secretAdd                  flagvalue.Secrets
	configAdd                  flagvalue.Configs
	secretRemove, configRemove flagvalue.List
	offline                    offlineFlag
}

func (v *values) registerCreate(set *pflag.FlagSet) {
	set.Var(&v.configAdd, "config", "Specify configurations to expose to the service")
	set.Var(&v.secretAdd, "secret", "Specify secrets to expose to the service")
	v.offline.register(set)
}

func (v *values) registerUpdate(set *pflag.FlagSet) {
	set.Var(&v.configAdd, "config-add", "Add or update a config file on a service")
	set.Var(&v.configRemove, "config-rm", "Remove a configuration file")
	set.Var(&v.secretAdd, "secret-add", "Add or update a secret on a service")
	set.Var(&v.secretRemove, "secret-rm", "Remove a secret")
	v.offline.register(set)
}

// missing returns a sentence for each secret and config to remove that a container does not have.
func (v *values) missing(c *api.ContainerSpec) []string {
	return slices.Concat(
		missing(Secret, slices.Concat(keysOf(c.GetSecrets(), (*api.SecretReference).GetSecretName), keysOf(c.GetSecrets(), (*api.SecretReference).GetSecretId)), v.secretRemove),
		missing(Config, slices.Concat(keysOf(c.GetConfigs(), (*api.SecretReference).GetSecretName), keysOf(c.GetConfigs(), (*api.SecretReference).GetSecretId)), v.configRemove),
	)
}

// apply changes what a container has.
func (v *values) apply(ctx context.Context, c *api.ContainerSpec, resolve Resolve) (err error) {
	if c.Secrets, err = changeReferences(ctx, Secret, c.Secrets, v.secretAdd, v.secretRemove, resolve); err != nil {
		return err
	}
	v.offline.apply(c)
	c.Configs, err = changeReferences(ctx, Config, c.Configs, v.configAdd, v.configRemove, resolve)
	return err
}

// offlineFlag is --secret-offline.
type offlineFlag struct {
	set  *pflag.FlagSet
	kept bool
}

func (f *offlineFlag) register(set *pflag.FlagSet) {
	f.set = set
	set.BoolVar(&f.kept, "secret-offline", false, "Keep the service's secrets and configs on its nodes' disks, sealed, for restarts with no manager in reach")
}

// apply changes what a container has if the flag was given (I1).
func (f *offlineFlag) apply(c *api.ContainerSpec) {
	if f.set.Changed("secret-offline") {
		c.SecretOffline = f.kept
	}
}

// changeReferences takes away what is named in remove, and puts what is added in the place of what has the same target.
func changeReferences(ctx context.Context, kind string, present []*api.SecretReference, add []flagvalue.Value, remove []string, resolve Resolve,
) ([]*api.SecretReference, error) {
	added, err := references(ctx, kind, add, resolve)
	if err != nil {
		return nil, err
	}
	kept := slices.DeleteFunc(present, func(r *api.SecretReference) bool {
		return slices.Contains(remove, r.GetSecretName()) || slices.Contains(remove, r.GetSecretId())
	})
	return merge(kept, added, func(r *api.SecretReference) string { return r.GetTarget().GetName() }), nil
}

// references looks up values and checks that no two become the same file.
func references(ctx context.Context, kind string, wishes []flagvalue.Value, resolve Resolve) ([]*api.SecretReference, error) {
	var out []*api.SecretReference
	targets := map[string]bool{}
	for _, wish := range wishes {
		if targets[wish.Target] {
			return nil, fault.New(fault.Invalid, "duplicate %s target for %s not allowed: give one of them another target=", kind, wish.Source)
		}
		targets[wish.Target] = true
		id, name, err := resolve(ctx, kind, wish.Source)
		if err != nil {
			return nil, err
		}
		out = append(out, &api.SecretReference{
			SecretId: id, SecretName: name, Version: wish.Version, Pinned: wish.Version > 0,
			OnChange: wish.OnChange, Signal: wish.Signal,
			Target: &api.SecretTarget{Name: wish.Target, Uid: wish.UID, Gid: wish.GID, Mode: wish.Mode},
		})
	}
	return out, nil
}
