package control

import (
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// Where a value without an absolute target appears in a container.
const (
	secretsFolder = "/run/secrets"
	configsFolder = "/"
)

// maxValues is how many bytes a container's values have at most: what a node hands to its container runtime at once, less a little for
// other files.
const maxValues = 15 << 20

// resolveValues completes a container's references with the ids and names of the secrets and configs that they mean, and makes the
// transaction depend on those, so that none is removed at the same moment. old is the service's present container, nil for a new service.
func resolveValues(tx store.Tx, c, old *api.ContainerSpec) error {
	c.ServiceLabels = nil // for nodes only
	secrets, err := resolveReferences[*api.Secret](tx, c.GetSecrets(), old.GetSecrets())
	if err != nil {
		return err
	}
	configs, err := resolveReferences[*api.Config](tx, c.GetConfigs(), old.GetConfigs())
	if err != nil {
		return err
	}
	if size := secrets + configs; size > maxValues {
		return fault.New(fault.Invalid, "task.container: its secrets and configs have %d bytes, at most %d are allowed: put large files into the image or a volume",
			size, maxValues)
	}
	return conflictingTargets(c)
}

// resolveReferences returns how many bytes all values have.
func resolveReferences[T valueObject](tx store.Tx, references, old []*api.SecretReference) (size int, err error) {
	var none T
	kind := object.KindOf(none)
	var missing []string
	for _, r := range references {
		value, err := referenced[T](tx, r)
		switch {
		case fault.KindOf(err) == fault.NotFound:
			missing = append(missing, clip(r.GetSecretName()+r.GetSecretId()))
			continue
		case err != nil:
			return 0, err
		}
		if err := tx.Require(value); err != nil {
			return 0, err
		}
		// What stays as it is keeps its version, also one that was stored before there were versions: other tasks are not needed.
		stays := func(o *api.SecretReference) bool { return proto.Equal(o, r) }
		if !slices.ContainsFunc(old, stays) {
			if err := chooseVersion(tx, value, r); err != nil {
				return 0, err
			}
		}
		size += len(specOf(value).GetData())
		r.SecretId, r.SecretName = value.GetId(), object.Name(value)
		r.Template, r.Config = false, false // for nodes only
		if r.GetTarget().GetName() == "" {
			r.Target.Name = r.GetSecretName()
		}
	}
	switch len(missing) {
	case 0:
		return size, nil
	case 1:
		return 0, fault.New(fault.Invalid, "%s not found: %s", kind, missing[0])
	default:
		return 0, fault.New(fault.Invalid, "%ss not found: %s", kind, strings.Join(missing, ", "))
	}
}

// referenced returns the value that a reference means: by its id if it has one, else by its name.
func referenced[T store.Object](tx store.ReadTx, r *api.SecretReference) (T, error) {
	if r.GetSecretId() == "" {
		return resolve[T](tx, r.GetSecretName())
	}
	value, err := store.Get[T](tx, r.GetSecretId())
	if err != nil {
		return value, storeFault(err)
	}
	if name := object.Name(value); r.GetSecretName() != "" && r.GetSecretName() != name {
		return value, fault.New(fault.Invalid, "malformed %[1]s reference: %[1]s %[2]s has the name %[3]s, not %[4]s",
			object.KindOf(value), value.GetId(), name, clip(r.GetSecretName()))
	}
	return value, nil
}

// conflictingTargets refuses two values that would be one file.
func conflictingTargets(c *api.ContainerSpec) error {
	p := new(problems)
	type user struct {
		kind object.Kind
		name string
	}
	taken := map[string]user{}
	for _, list := range []struct {
		kind       object.Kind
		folder     string
		references []*api.SecretReference
	}{
		{object.KindSecret, secretsFolder, c.GetSecrets()},
		{object.KindConfig, configsFolder, c.GetConfigs()},
	} {
		for _, r := range list.references {
			target, own := r.GetTarget().GetName(), user{list.kind, r.GetSecretName()}
			if !path.IsAbs(target) {
				target = path.Join(list.folder, target)
			}
			other, ok := taken[target]
			switch {
			case ok && other.kind == own.kind:
				p.add("task.container."+own.kind.String()+"s", "%s references '%s' and '%s' have a conflicting target: '%s'",
					own.kind, other.name, own.name, r.GetTarget().GetName())
			case ok:
				p.add("task.container."+own.kind.String()+"s", "%s '%s' and %s '%s' have a conflicting target: '%s'",
					other.kind, other.name, own.kind, own.name, target)
			}
			taken[target] = own
		}
	}
	return p.err()
}
