package servicespec

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// Update are the flags of `service update`.
type Update struct {
	shared
	args                            flagvalue.Words
	image                           string
	force                           bool
	envAdd, envRemove               flagvalue.List
	labelAdd, containerLabelAdd     flagvalue.Labels
	labelRemove, containerLabelDrop flagvalue.List
	placementChanges                placementChanges
	values                          values
	genericChanges                  genericChanges
	portAdd                         flagvalue.Ports
	portRemove                      flagvalue.TargetPorts
	mountAdd                        flagvalue.Mounts
	mountRemove                     flagvalue.List
	add                             lists
	remove                          removals
	grantAdd, grantRemove           flagvalue.List
}

// Register declares the flags on set, which is read by [Update.Apply].
func (u *Update) Register(set *pflag.FlagSet) {
	u.register(set, false)
	u.registerNetwork(set, false)
	u.add.registerUpdate(set, &u.remove)
	u.placementChanges.register(set)
	u.values.registerUpdate(set)
	u.genericChanges.register(set)
	set.Var(&u.args, "args", "Service command args")
	set.Var(&u.containerLabelAdd, "container-label-add", "Add or update a container label")
	set.Var(&u.containerLabelDrop, "container-label-rm", "Remove a container label by its key")
	set.Var(&u.envAdd, "env-add", "Add or update an environment variable")
	set.Var(&u.envRemove, "env-rm", "Remove an environment variable")
	set.BoolVar(&u.force, "force", false, "Force update even if no changes require it")
	set.Var(&u.grantAdd, "grant-add", "Give what a grant has")
	set.Var(&u.grantRemove, "grant-rm", "Take back what a grant has")
	set.StringVar(&u.image, "image", "", "Service image tag")
	set.Var(&u.labelAdd, "label-add", "Add or update a service label")
	set.Var(&u.labelRemove, "label-rm", "Remove a label by its key")
	set.Var(&u.mountAdd, "mount-add", "Add or update a mount on a service")
	set.Var(&u.mountRemove, "mount-rm", "Remove a mount by its target path")
	set.Var(&u.portAdd, "publish-add", "Add or update a published port")
	set.Var(&u.portRemove, "publish-rm", "Remove a published port by its target port")
}

// Check returns an error when one key is both added and removed: no order of the two would be the one that was meant.
func (u *Update) Check() error {
	ports := make([]flagvalue.TargetPort, 0, len(u.portAdd))
	for _, p := range u.portAdd {
		ports = append(ports, flagvalue.TargetPort{Number: p.GetTargetPort(), Protocol: p.GetProtocol()})
	}
	return cmp.Or(
		disjoint("env", keysOf(u.envAdd, variableName), u.envRemove),
		disjoint("label", slices.Sorted(maps.Keys(u.labelAdd)), u.labelRemove),
		disjoint("container-label", slices.Sorted(maps.Keys(u.containerLabelAdd)), u.containerLabelDrop),
		disjoint("constraint", u.placementChanges.constraintAdd, u.placementChanges.constraintRemove),
		disjoint("generic-resource", u.genericChanges.add.Kinds(), u.genericChanges.removed()),
		disjoint("placement-pref", u.placementChanges.preferenceAdd.Names(), u.placementChanges.preferenceRemove.Names()),
		disjoint("mount", keysOf(u.mountAdd, (*api.Mount).GetTarget), u.mountRemove),
		disjoint("grant", u.grantAdd, u.grantRemove),
		disjoint("publish", ports, u.portRemove),
		disjoint("network", []string{u.network.String()}, u.networkRemove),
		u.add.check(u.remove),
	)
}

// Missing returns a sentence for each thing to remove that the present spec does not have.
func (u *Update) Missing(present *api.ServiceSpec) []string {
	c := present.GetTask().GetContainer()
	var grants []string
	for _, g := range c.GetGrants() {
		grants = append(grants, g.GetGrantName(), g.GetGrantId())
	}
	var ports []flagvalue.TargetPort
	for _, p := range present.GetEndpoint().GetPorts() {
		ports = append(ports, flagvalue.TargetPort{Number: p.GetTargetPort(), Protocol: p.GetProtocol()})
	}
	return slices.Concat(
		missing("grant", grants, u.grantRemove),
		missing("environment variable", keysOf(c.GetEnv(), variableName), u.envRemove),
		missing("label", slices.Collect(maps.Keys(present.GetAnnotations().GetLabels())), u.labelRemove),
		missing("container label", slices.Collect(maps.Keys(c.GetLabels())), u.containerLabelDrop),
		missing("constraint", present.GetTask().GetPlacement().GetConstraints(), u.placementChanges.constraintRemove),
		missing("placement preference", flagvalue.Preferences(present.GetTask().GetPlacement().GetPreferences()).Names(), u.placementChanges.preferenceRemove.Names()),
		missing("generic resource", flagvalue.GenericResources(present.GetTask().GetResources().GetReservations().GetGeneric()).Kinds(),
			u.genericChanges.removed()),
		missing("mount", keysOf(c.GetMounts(), (*api.Mount).GetTarget), u.mountRemove),
		missing("published port", ports, u.portRemove),
		missing("network", networks(c.GetPrivileges()), u.networkRemove),
		u.values.missing(c),
		u.remove.missing(c),
	)
}

func missing[K comparable](kind string, present, removed []K) []string {
	var out []string
	for _, key := range removed {
		if !slices.Contains(present, key) {
			out = append(out, fmt.Sprintf("the service has no %s %v to remove", kind, key))
		}
	}
	return out
}

func variableName(variable string) string { name, _, _ := strings.Cut(variable, "="); return name }

func keysOf[E any](elements []E, key func(E) string) []string {
	out := make([]string, 0, len(elements))
	for _, element := range elements {
		out = append(out, key(element))
	}
	return out
}

// disjoint returns an error when a key of the flag FLAG-add is among those of FLAG-rm.
func disjoint[K comparable](flag string, added, removed []K) error {
	for _, key := range added {
		if slices.Contains(removed, key) {
			return fmt.Errorf("--%s-add and --%s-rm both name %v: leave out one of them", flag, flag, key)
		}
	}
	return nil
}

// Apply returns a copy of the present spec with the changes that the flags ask for.
func (u *Update) Apply(ctx context.Context, present *api.ServiceSpec, lookup flagvalue.LookupEnv, resolve Resolve,
) (*api.ServiceSpec, error) {
	spec, ok := proto.Clone(present).(*api.ServiceSpec)
	if !ok {
		return nil, fault.New(fault.Internal, "copy of a service spec is no service spec")
	}
	task := taskOf(spec)
	if err := u.shared.apply(spec); err != nil {
		return nil, err
	}
	if u.changed("image") {
		image, err := normalImage(u.image)
		if err != nil {
			return nil, err
		}
		task.Container.Image = image
	}
	if u.changed("args") {
		task.Container.Args = u.args
	}
	if u.force {
		task.ForceUpdate++
	}
	if err := u.applyEnv(task.Container, lookup); err != nil {
		return nil, err
	}
	u.applyLabels(spec)
	u.placementChanges.apply(u.changed, task)
	u.genericChanges.apply(u.changed, task)
	u.applyMounts(task.Container)
	u.add.apply(task.Container, u.remove)
	u.applyGrants(task.Container)
	u.applyPorts(spec)
	return spec, u.values.apply(ctx, task.Container, resolve)
}

func (u *Update) applyEnv(c *api.ContainerSpec, lookup flagvalue.LookupEnv) error {
	added, err := flagvalue.ReadEnv(nil, u.envAdd, lookup)
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(c.Env, func(variable string) bool {
		return slices.Contains(u.envRemove, variableName(variable))
	})
	c.Env = merge(kept, added, variableName)
	return nil
}

// merge returns present with added: an element with the same key takes the place of the present one.
func merge[E any, K comparable](present, added []E, key func(E) K) []E {
	for _, element := range added {
		i := slices.IndexFunc(present, func(other E) bool { return key(other) == key(element) })
		if i < 0 {
			present = append(present, element)
			continue
		}
		present[i] = element
	}
	return present
}

func (u *Update) applyLabels(spec *api.ServiceSpec) {
	if spec.Annotations == nil {
		spec.Annotations = &api.Annotations{}
	}
	spec.Annotations.Labels = changeLabels(spec.Annotations.Labels, u.labelAdd, u.labelRemove)
	c := spec.Task.Container
	c.Labels = changeLabels(c.Labels, u.containerLabelAdd, u.containerLabelDrop)
}

func changeLabels(labels map[string]string, add flagvalue.Labels, remove []string) map[string]string {
	for _, key := range remove {
		delete(labels, key)
	}
	if labels == nil && len(add) > 0 {
		labels = map[string]string{}
	}
	maps.Copy(labels, add)
	return labels
}

func (u *Update) applyMounts(c *api.ContainerSpec) {
	kept := slices.DeleteFunc(c.Mounts, func(m *api.Mount) bool { return slices.Contains(u.mountRemove, m.GetTarget()) })
	c.Mounts = merge(kept, u.mountAdd, (*api.Mount).GetTarget)
}

// portKey is what makes two published ports the same: one target may be published twice.
type portKey struct {
	target, published uint32
	protocol          api.Protocol
}

func keyOf(p *api.PortConfig) portKey {
	return portKey{p.GetTargetPort(), p.GetPublishedPort(), p.GetProtocol()}
}

func (u *Update) applyPorts(spec *api.ServiceSpec) {
	if !u.changed("publish-add", "publish-rm") {
		return
	}
	if spec.Endpoint == nil {
		spec.Endpoint = &api.EndpointSpec{}
	}
	kept := slices.DeleteFunc(spec.Endpoint.Ports, func(p *api.PortConfig) bool {
		return slices.Contains(u.portRemove, flagvalue.TargetPort{Number: p.GetTargetPort(), Protocol: p.GetProtocol()})
	})
	spec.Endpoint.Ports = merge(kept, u.portAdd, keyOf)
}
