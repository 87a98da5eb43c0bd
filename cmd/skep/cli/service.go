package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

func (p *program) serviceCommand() *cobra.Command {
	return group("service", "Manage Swarm services", p.serviceCreate(), p.completed(serviceWords, p.serviceUpdate()),
		p.serviceList(), p.completed(serviceWords, p.servicePs()), p.completed(serviceWords, p.serviceInspect()),
		p.completed(serviceWords, p.serviceLogs()), p.completed(serviceWords, p.serviceRollback()), p.completed(serviceWords, p.serviceWhy()), p.completed(serviceWords, p.servicePlan()), p.completed(serviceWords, p.serviceHistory()),
		p.serviceScale(), p.completed(serviceWords, p.serviceRemove()),
		p.serviceSeccomp())
}

// serviceRow is a line of `service ls`.
type serviceRow struct {
	ID       string
	Name     string
	Mode     string
	Replicas string
	Image    string
	Ports    string
	Labels   string
	labels   map[string]string
}

// Label returns the value of one label.
func (r serviceRow) Label(name string) string { return r.labels[name] }

const serviceTable = "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}"

func (p *program) serviceList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List services", Args: noArgs,
	}
	flags.register(cmd, "Only display IDs", listFormatHelp, serviceFilters()...)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.ListServices(ctx, &api.ListServicesRequest{})
		if err != nil {
			return err
		}
		return p.writeServices(&flags, answer.GetServices(), answer.GetCounts())
	})
	return cmd
}

// serviceFilters are those of lists of services.
func serviceFilters() []string {
	return []string{"id", "label", "mode=replicated|global|replicated-job|global-job", "name"}
}

// writeServices writes those of the services that pass the filter, by name.
func (p *program) writeServices(flags *listFlags, services []*api.Service, counts map[string]*api.ServiceCounts) error {
	var objects []view.Service
	var rows []serviceRow
	for _, service := range sortedBy(services, serviceName) {
		v := view.NewService(service).WithCounts(counts[service.GetId()])
		if !servicePasses(flags.filter, v) {
			continue
		}
		objects = append(objects, v)
		rows = append(rows, newServiceRow(service, v, flags))
	}
	header := serviceRow{
		ID: "ID", Name: "NAME", Mode: "MODE", Replicas: "REPLICAS", Image: "IMAGE", Ports: "PORTS", Labels: "LABELS",
	}
	return writeList(p.out, flags, serviceTable, objects, header, rows)
}

func serviceName(s *api.Service) string { return s.GetSpec().GetAnnotations().GetName() }

func servicePasses(filter flagvalue.Filter, v view.Service) bool {
	return filter.Prefix("id", v.ID) && filter.Prefix("name", v.Spec.Name) && modePasses(filter, v.Spec.Mode) &&
		filter.Labels("label", v.Spec.Labels)
}

// modePasses takes the words of --mode, and those of the list.
func modePasses(filter flagvalue.Filter, mode view.ServiceMode) bool {
	return filter.Match("mode", func(word string) bool { return strings.EqualFold(strings.ReplaceAll(word, "-", " "), mode.String()) })
}

func newServiceRow(service *api.Service, v view.Service, flags *listFlags) serviceRow {
	row := serviceRow{
		ID: v.ID, Name: v.Spec.Name, Mode: v.Spec.Mode.String(),
		Replicas: fmt.Sprintf("%d/%d", v.ServiceStatus.RunningTasks, v.ServiceStatus.DesiredTasks),
		Image:    view.ShortImage(service.GetSpec().GetTask().GetContainer().GetImage()),
		Ports:    joinPorts(service.GetSpec().GetEndpoint().GetPorts()),
		Labels:   joinLabels(v.Spec.Labels), labels: v.Spec.Labels,
	}
	if n := v.ServiceStatus.NotReadyTasks; n > 0 {
		row.Replicas += fmt.Sprintf(" (%d not ready)", n)
	}
	if status := v.ServiceStatus; v.Spec.Mode.ReplicatedJob != nil || v.Spec.Mode.GlobalJob != nil {
		row.Replicas += fmt.Sprintf(" (%d/%d completed)", status.CompletedTasks, status.TotalTasks)
	}
	if most := service.GetSpec().GetTask().GetPlacement().GetMaxReplicas(); most > 0 {
		row.Replicas += fmt.Sprintf(" (max %d per node)", most)
	}
	// Docker cuts the ids of services in its table only.
	if flags.format == "" && !flags.quiet {
		row.ID = view.ShortID(row.ID)
	}
	return row
}

func (p *program) serviceInspect() *cobra.Command {
	var flags inspectFlags
	var security bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] SERVICE [SERVICE...]", Short: "Display detailed information on one or more services",
		Args: minArgs(1),
	}
	flags.register(cmd)
	flags.registerPretty(cmd)
	cmd.Flags().BoolVar(&security, "security", false, "Say in what the containers differ from the default one")
	agree := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		return cmp.Or(agree(cmd, args), onlyOne(cmd, "security", "pretty", "quiet"))
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		if security {
			return p.inspectSecurity(ctx, c, &flags, args)
		}
		get := func(name string) (view.Service, error) {
			answer, err := c.Control.GetService(ctx, &api.GetServiceRequest{Service: name})
			return view.NewService(answer.GetService()), err
		}
		return inspectPretty(p, &flags, args, get, func(s view.Service) string { return prettyService(s, p.opts.Now()) })
	})
	return cmd
}

func (p *program) serviceRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm SERVICE [SERVICE...]", Aliases: []string{"remove"}, Short: "Remove one or more services", Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(name string) error {
				if _, err := c.Control.RemoveService(ctx, &api.RemoveServiceRequest{Service: name}); err != nil {
					return err
				}
				return p.printf("%s\n", name)
			})
		}),
	}
}
