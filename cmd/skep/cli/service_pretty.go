package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// prettyService writes a service as Docker's --pretty does; parts that are unset are left out.
func prettyService(s view.Service, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nID:\t\t%s\nName:\t\t%s\n", s.ID, s.Spec.Name)
	writePrettyLabels(&b, s.Spec.Labels)
	writePrettyMode(&b, s.Spec.Mode)
	writePrettyUpdateStatus(&b, s.UpdateStatus, now)
	writePrettyPlacement(&b, s.Spec.TaskTemplate.Placement)
	writePrettyReplacing(&b, "UpdateConfig", "Update order:     ", s.Spec.UpdateConfig)
	writePrettyReplacing(&b, "RollbackConfig", "Rollback order:   ", s.Spec.RollbackConfig)
	writePrettyContainer(&b, s.Spec.TaskTemplate.ContainerSpec)
	writePrettyLog(&b, s.Spec.TaskTemplate.LogDriver)
	writePrettyResources(&b, s.Spec.TaskTemplate.Resources)
	if e := s.Spec.EndpointSpec; e != nil && len(e.Ports) > 0 {
		b.WriteString("Ports:\n")
		for _, port := range e.Ports {
			fmt.Fprintf(&b, " PublishedPort = %d\n  Protocol = %s\n  TargetPort = %d\n  PublishMode = %s\n",
				port.PublishedPort, port.Protocol, port.TargetPort, port.PublishMode)
		}
	}
	return b.String()
}

// writePrettyReplacing writes how tasks are replaced, by an update or a rollback.
func writePrettyReplacing(b *strings.Builder, title, order string, u *view.UpdateConfig) {
	if u == nil {
		return
	}
	fmt.Fprintf(b, "%s:\n Parallelism:\t%d\n", title, u.Parallelism)
	if u.Delay > 0 {
		fmt.Fprintf(b, " Delay:\t\t%s\n", u.Delay)
	}
	if u.FailureAction != "" {
		fmt.Fprintf(b, " On failure:\t%s\n", u.FailureAction)
	}
	if u.Monitor > 0 {
		fmt.Fprintf(b, " Monitoring Period: %s\n", u.Monitor)
	}
	fmt.Fprintf(b, " Max failure ratio: %g\n", u.MaxFailureRatio)
	if u.Deadline > 0 {
		fmt.Fprintf(b, " Deadline:\t%s\n", u.Deadline)
	}
	fmt.Fprintf(b, " %s %s\n", order, u.Order)
}

func writePrettyMode(b *strings.Builder, mode view.ServiceMode) {
	switch {
	case mode.Replicated != nil:
		fmt.Fprintf(b, "Service Mode:\tReplicated\n Replicas:\t%d\n", mode.Replicated.Replicas)
	case mode.ReplicatedJob != nil:
		fmt.Fprintf(b, "Service Mode:\tReplicatedJob\n Max Concurrent:\t%d\n Total Completions:\t%d\n",
			mode.ReplicatedJob.MaxConcurrent, mode.ReplicatedJob.TotalCompletions)
	case mode.GlobalJob != nil:
		b.WriteString("Service Mode:\tGlobalJob\n")
	default:
		b.WriteString("Service Mode:\tGlobal\n")
	}
}

func writePrettyUpdateStatus(b *strings.Builder, u *view.UpdateStatus, now time.Time) {
	if u == nil {
		return
	}
	fmt.Fprintf(b, "UpdateStatus:\n State:\t\t%s\n", u.State)
	if !u.StartedAt.IsZero() {
		fmt.Fprintf(b, " Started:\t%s ago\n", strings.ToLower(units.HumanDuration(now.Sub(u.StartedAt))))
	}
	if u.CompletedAt != nil {
		fmt.Fprintf(b, " Completed:\t%s ago\n", strings.ToLower(units.HumanDuration(now.Sub(*u.CompletedAt))))
	}
	fmt.Fprintf(b, " Message:\t%s\n", output.Printable(u.Message)) // a node may have written a part of it
}

func writePrettyPlacement(b *strings.Builder, p *view.Placement) {
	if p == nil || (len(p.Constraints) == 0 && p.MaxReplicas == 0 && len(p.Preferences) == 0 && p.Strategy == "") {
		return
	}
	b.WriteString("Placement:\n")
	if len(p.Constraints) > 0 {
		fmt.Fprintf(b, " Constraints:\t[%s]\n", strings.Join(p.Constraints, " "))
	}
	for i, preference := range p.Preferences {
		if i == 0 {
			b.WriteString(" Preferences:\n")
		}
		fmt.Fprintf(b, "  Spread:\t%s\n", preference.Spread.SpreadDescriptor)
	}
	if p.Strategy != "" {
		fmt.Fprintf(b, " Strategy:\t%s\n", p.Strategy)
	}
	if p.MaxReplicas > 0 {
		fmt.Fprintf(b, " Max Replicas Per Node:   %d\n", p.MaxReplicas)
	}
}

// writePrettyLog writes where the output goes, as Docker does.
func writePrettyLog(b *strings.Builder, l *view.LogDriver) {
	if l == nil {
		return
	}
	fmt.Fprintf(b, "Log Driver:\n Name:\t\t%s\n", l.Name)
	if len(l.Options) == 0 {
		return
	}
	b.WriteString(" LogOpts:\n")
	for _, key := range slices.Sorted(maps.Keys(l.Options)) {
		fmt.Fprintf(b, "  %s:\t%s\n", key, l.Options[key])
	}
}

func writePrettyContainer(b *strings.Builder, c *view.ContainerSpec) {
	if c == nil {
		return
	}
	fmt.Fprintf(b, "ContainerSpec:\n Image:\t\t%s\n", c.Image)
	writeLine := func(title, value string) {
		if value != "" {
			fmt.Fprintf(b, " %s\t%s\n", title, value)
		}
	}
	writeLine("Command:", strings.Join(c.Command, " "))
	writeLine("Args:\t", strings.Join(c.Args, " "))
	writeLine("Env:\t", strings.Join(c.Env, " "))
	writeLine("Dir:\t", c.Dir)
	writeLine("User:\t", c.User)
	writeLine("Hostname:", c.Hostname)
	if c.ReadOnly {
		writeLine("Read-only:", "true")
	}
	var grants []string
	for _, g := range c.Grants {
		grants = append(grants, g.GrantName)
	}
	writeLine("Grants:\t", strings.Join(grants, ", "))
	if len(c.CapabilityAdd)+len(c.CapabilityDrop) > 0 {
		b.WriteString(" Capabilities:\n")
	}
	writeLine(" Add:", strings.Join(c.CapabilityAdd, ", "))
	writeLine(" Drop:", strings.Join(c.CapabilityDrop, ", "))
	writePrettyProcess(writeLine, c)
	writePrettyNames(b, c)
	writeLine("Security Options:", strings.Join(c.Privileges.Options(), ", "))
	if len(c.Mounts) > 0 {
		b.WriteString("Mounts:\n")
		for _, m := range c.Mounts {
			fmt.Fprintf(b, " Target:\t%s\n  ReadOnly:\t%v\n  Type:\t\t%s\n", m.Target, m.ReadOnly, m.Type)
			if m.Source != "" {
				fmt.Fprintf(b, "  Source:\t%s\n", m.Source)
			}
		}
	}
	if len(c.Secrets) > 0 {
		b.WriteString("Secrets:\n")
		for _, s := range c.Secrets {
			fmt.Fprintf(b, " Target:\t%s\n  Source:\t%s\n", s.File.Name, s.Of(s.SecretName))
			writeOnChange(b, s.ValueChoice)
		}
	}
	if len(c.Configs) > 0 {
		b.WriteString("Configs:\n")
		for _, s := range c.Configs {
			fmt.Fprintf(b, " Target:\t%s\n  Source:\t%s\n", s.File.Name, s.Of(s.ConfigName))
			writeOnChange(b, s.ValueChoice)
		}
	}
	if c.SecretOffline && len(c.Secrets)+len(c.Configs) > 0 {
		b.WriteString("Secrets Offline:\tkept on the disks of its nodes, sealed by each node's own key\n")
	}
}

// writePrettyProcess writes what was asked for beside the defaults.
func writePrettyProcess(writeLine func(title, value string), c *view.ContainerSpec) {
	writeLine("Groups:\t", strings.Join(c.Groups, ", "))
	if c.TTY {
		writeLine("TTY:\t", "true")
	}
	if c.Init {
		writeLine("Init:\t", "true")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sysctls)) {
		writeLine("Sysctl:", name+"="+c.Sysctls[name])
	}
	for _, u := range c.Ulimits {
		writeLine("Ulimit:", flagvalue.FormatUlimit(u.Name, u.Soft, u.Hard))
	}
	if c.Healthcheck != nil {
		writeLine("Healthcheck:", strings.Join(c.Healthcheck.Test, " "))
	}
	if c.Readycheck != nil {
		writeLine("Readycheck:", strings.Join(c.Readycheck.Test, " "))
	}
	if c.OomScoreAdj != 0 {
		writeLine("OOM score:", strconv.FormatInt(c.OomScoreAdj, 10))
	}
	if c.StorageSize != 0 {
		writeLine("Storage size:", units.BytesSize(float64(c.StorageSize)))
	}
	if c.ShmSize != 0 {
		writeLine("Shm size:", units.BytesSize(float64(c.ShmSize)))
	}
}

// writePrettyNames writes how the container finds addresses, where it is not as its node does.
func writePrettyNames(b *strings.Builder, c *view.ContainerSpec) {
	if len(c.Hosts) > 0 {
		fmt.Fprintf(b, " Hosts:\t\t%s\n", strings.Join(c.Hosts, ", "))
	}
	if c.DNSConfig == nil {
		return
	}
	b.WriteString(" DNSConfig:\n")
	for _, part := range []struct {
		title  string
		values []string
	}{{"Nameservers:", c.DNSConfig.Nameservers}, {"Search:\t", c.DNSConfig.Search}, {"Options:\t", c.DNSConfig.Options}} {
		if len(part.values) > 0 {
			fmt.Fprintf(b, "  %s\t%s\n", part.title, strings.Join(part.values, " "))
		}
	}
}

func writePrettyResources(b *strings.Builder, r *view.ResourceRequirements) {
	if r == nil {
		return
	}
	write := func(title string, part *view.Resources) {
		if part == nil || part.NanoCPUs == 0 && part.MemoryBytes == 0 && part.Pids == 0 && len(part.GenericResources) == 0 {
			return
		}
		fmt.Fprintf(b, " %s:\n", title)
		if part.NanoCPUs != 0 {
			fmt.Fprintf(b, "  CPU:\t\t%s\n", flagvalue.FormatCPUs(part.NanoCPUs))
		}
		if part.MemoryBytes != 0 {
			fmt.Fprintf(b, "  Memory:\t%s\n", units.BytesSize(float64(part.MemoryBytes)))
		}
		if part.Pids != 0 {
			fmt.Fprintf(b, "  PIDs:\t\t%d\n", part.Pids)
		}
		for _, r := range part.GenericResources {
			fmt.Fprintf(b, "  Generic:\t%s\n", r)
		}
	}
	b.WriteString("Resources:\n")
	write("Reservations", r.Reservations)
	write("Limits", r.Limits)
	writePrettyLimits(b, r)
}

// writePrettyLimits writes the limits that Docker's services don't have.
func writePrettyLimits(b *strings.Builder, r *view.ResourceRequirements) {
	switch {
	case r.MemorySwap < 0:
		b.WriteString(" Memory and swap:\tunlimited\n")
	case r.MemorySwap > 0:
		fmt.Fprintf(b, " Memory and swap:\t%s\n", units.BytesSize(float64(r.MemorySwap)))
	}
	if r.CpusetCpus != "" {
		fmt.Fprintf(b, " CPUs:\t\t%s\n", r.CpusetCpus)
	}
	if n := r.NetworkRate; n != nil && n.In > 0 {
		fmt.Fprintf(b, " Network in:\t%d bit/s\n", n.In)
	}
	if n := r.NetworkRate; n != nil && n.Out > 0 {
		fmt.Fprintf(b, " Network out:\t%d bit/s\n", n.Out)
	}
	for _, d := range r.DeviceRates {
		fmt.Fprintf(b, " Device:\t%s\n", d.Path)
		for _, rate := range []struct {
			title, unit string
			value       uint64
		}{{"Read", "B", d.ReadBps}, {"Write", "B", d.WriteBps}, {"Read", " operations", d.ReadIOps}, {"Write", " operations", d.WriteIOps}} {
			if rate.value > 0 {
				fmt.Fprintf(b, "  %s:\t%d%s/s\n", rate.title, rate.value, rate.unit)
			}
		}
	}
}

func writeOnChange(b *strings.Builder, c view.ValueChoice) {
	if c.OnChange != "" {
		fmt.Fprintf(b, "  On change:\t%s\n", c.OnChange)
	}
}
