package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// grantChanges are the flags of grant update.
type grantChanges struct {
	add grantFlags
	// Removals, each by what names the thing.
	capabilities, devices, mounts, options, labels, nodeLabels, networks flagvalue.List
}

func (p *program) grantUpdate() *cobra.Command {
	f := &grantChanges{}
	cmd := &cobra.Command{
		Use: "update [OPTIONS] GRANT", Short: "Change a grant, and replace the tasks of services that have it",
		Long: "Change a grant.\n\n" +
			"The tasks of services that have it are replaced, as the update policy of each service says, if the change is about what\n" +
			"tasks are given. What a service asks for by name can't be taken from its grant: update the service first.",
		Args: exactArgs(1),
	}
	flags := cmd.Flags()
	flags.Var(&f.add.capabilities, "cap-add", "Give Linux capabilities")
	flags.Var(&f.capabilities, "cap-rm", "Give capabilities no more")
	flags.Var(&f.add.devices, "device-add", "Give a device of the host (format: PATH[:rw], or vendor.com/class=name for CDI)")
	flags.Var(&f.devices, "device-rm", "Give a device no more, by its path or CDI name")
	flags.BoolVar(&f.add.ignoreHooks, "ignore-cdi-hooks", false, "Give CDI devices without the hooks that they have")
	flags.Var(&f.add.mounts, "mount-host-add", "Give a file or directory of the host (format: SOURCE[:TARGET][:ro])")
	flags.Var(&f.mounts, "mount-host-rm", "Give a file or directory of the host no more, by its target")
	flags.Var(&f.add.options, "security-opt-add", "Allow services to ask for a security option")
	flags.Var(&f.options, "security-opt-rm", "Allow a security option no more")
	flags.Var(&f.add.pid, "pid", `Allow services to ask for the host's PID namespace, or not ("host", "private")`)
	flags.Var(&f.add.ipc, "ipc", `Allow services to ask for the host's IPC namespace, or not ("host", "private")`)
	flags.Var(&f.add.userns, "userns", `Allow services to ask for the host's user namespace, or not ("host", "private")`)
	flags.Var(&f.add.network, "network-add", `Allow services to ask for the host's network ("host")`)
	flags.Var(&f.networks, "network-rm", `Allow services the host's network no more ("host")`)
	flags.StringVar(&f.add.description, "description", "", "Say why it is there")
	flags.Var(&f.add.labels, "label-add", "Add or update a grant label")
	flags.Var(&f.labels, "label-rm", "Remove a grant label by its key")
	flags.Var(&f.add.nodeLabels, "node-label-add", "Only on nodes that have this label")
	flags.Var(&f.nodeLabels, "node-label-rm", "Also on nodes without this label, by its key")
	flags.BoolVar(&f.add.operators, "operators", false, "Let operators use it, too")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		var answer *api.UpdateGrantResponse
		err := untilCurrent(func() error {
			present, err := c.Control.GetGrant(ctx, &api.GetGrantRequest{Grant: args[0]})
			if err != nil {
				return err
			}
			grant := present.GetGrant()
			spec := proto.CloneOf(grant.GetSpec())
			if err := f.apply(spec, flags.Changed); err != nil {
				return err
			}
			answer, err = c.Control.UpdateGrant(ctx, &api.UpdateGrantRequest{
				GrantId: grant.GetId(), Version: grant.GetMeta().GetVersion(), Spec: spec,
			})
			return err
		})
		if err != nil {
			return err
		}
		if services := answer.GetServices(); len(services) > 0 {
			p.warn([]string{"the tasks of these services are replaced: " + strings.Join(services, ", ")})
		}
		return p.printf("%s\n", args[0])
	})
	return cmd
}

// apply changes what the flags name. A thing that is added takes the place of the one of the same name; one to remove must be there.
func (f *grantChanges) apply(spec *api.GrantSpec, changed func(string) bool) (err error) {
	if changed("description") {
		spec.Description = f.add.description
	}
	if changed("operators") {
		spec.Operators = f.add.operators
	}
	if spec.Capabilities, err = change("capability", spec.GetCapabilities(), f.add.capabilities, f.capabilities, capabilityName); err != nil {
		return err
	}
	if changed("ignore-cdi-hooks") {
		spec.IgnoreCdiHooks = f.add.ignoreHooks
	}
	cdi, files := f.removedDevices()
	if spec.Devices, err = change("device", spec.GetDevices(), f.add.devices.Files, files, (*api.GrantDevice).GetPath); err != nil {
		return err
	}
	if spec.CdiDevices, err = change("device", spec.GetCdiDevices(), f.add.devices.CDI, cdi, same); err != nil {
		return err
	}
	for _, m := range f.add.mounts {
		if m.GetTarget() == "" {
			m.Target = m.GetSource()
		}
	}
	if spec.Mounts, err = change("mount at", spec.GetMounts(), f.add.mounts, f.mounts, (*api.GrantMount).GetTarget); err != nil {
		return err
	}
	disallowed := slices.Clone(f.options)
	for _, name := range f.networks {
		disallowed = append(disallowed, "network="+name)
	}
	if spec.SecurityOptions, err = change("security option", spec.GetSecurityOptions(), f.add.allowed(), disallowed, same); err != nil {
		return err
	}
	spec.SecurityOptions = slices.DeleteFunc(spec.SecurityOptions, f.taken)
	if spec.NodeLabels, err = changeMap("node label", spec.GetNodeLabels(), f.add.nodeLabels, f.nodeLabels); err != nil {
		return err
	}
	spec.Annotations.Labels, err = changeMap("label", spec.GetAnnotations().GetLabels(), f.add.labels, f.labels)
	return err
}

func same(name string) string { return name }

// removedDevices tells names of CDI from paths.
func (f *grantChanges) removedDevices() (cdi, files []string) {
	for _, name := range f.devices {
		if strings.HasPrefix(name, "/") {
			files = append(files, name)
		} else {
			cdi = append(cdi, name)
		}
	}
	return cdi, files
}

// taken reports whether an option is one that a flag such as --pid private takes back.
func (f *grantChanges) taken(option string) bool {
	return option == "pid=host" && f.add.pid == "private" || option == "ipc=host" && f.add.ipc == "private" ||
		option == "userns=host" && f.add.userns == "private"
}

// capabilityName is one as the managers write it: people leave out the prefix.
func capabilityName(name string) string {
	name = strings.ToUpper(name)
	if name == "ALL" || strings.HasPrefix(name, "CAP_") {
		return name
	}
	return "CAP_" + name
}

// change removes things by their names, and adds others.
func change[E any](what string, present, add []E, remove []string, name func(E) string) ([]E, error) {
	out := slices.Clone(present)
	for _, gone := range remove {
		before := len(out)
		out = slices.DeleteFunc(out, func(e E) bool { return name(e) == gone || what == "capability" && name(e) == capabilityName(gone) })
		if len(out) == before {
			return nil, fault.New(fault.Invalid, "the grant has no %s %s", what, gone)
		}
	}
	for _, e := range add {
		out = slices.DeleteFunc(out, func(other E) bool { return name(other) == name(e) })
		out = append(out, e)
	}
	return out, nil
}

func changeMap(what string, present map[string]string, add flagvalue.Labels, remove []string) (map[string]string, error) {
	out := map[string]string{}
	maps.Copy(out, present)
	for _, key := range remove {
		if _, ok := out[key]; !ok {
			return nil, fmt.Errorf("the grant has no %s %s", what, key)
		}
		delete(out, key)
	}
	maps.Copy(out, add)
	return out, nil
}
