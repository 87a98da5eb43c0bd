package cli

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// valueFlags are those of commands that show one value.
type valueFlags struct {
	format string
	json   bool
}

func (v *valueFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&v.format, "format", "f", "", objectFormatHelp)
	cmd.Flags().BoolVar(&v.json, "json", false, "Print indented JSON")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return onlyOne(cmd, "json", "format") }
}

func (p *program) infoCommand() *cobra.Command {
	var flags valueFlags
	cmd := &cobra.Command{
		Use: "info [OPTIONS]", Short: "Display system-wide information", Args: noArgs,
	}
	flags.register(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Daemon.GetInfo(ctx, &api.GetInfoRequest{})
		if err != nil {
			return err
		}
		info := view.NewInfo(answer)
		switch {
		case flags.json:
			return output.Indented(p.out, info)
		case flags.format != "":
			return output.Objects(p.out, flags.format, []view.Info{info})
		}
		if err := p.printf("%s", p.infoPage(info)); err != nil {
			return err
		}
		p.warn(info.Warnings)
		return nil
	})
	return cmd
}

func (p *program) infoPage(i view.Info) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Client:\n Version:    %s\n\nServer:\n", p.opts.Version)
	line := func(title string, value any) {
		if text := fmt.Sprint(value); text != "" {
			fmt.Fprintf(&b, " %s: %s\n", title, text)
		}
	}
	line("Containers", i.Containers)
	line("Images", i.Images)
	line("Server Version", i.ServerVersion)
	line("Cgroup Version", i.CgroupVersion)
	writeSwarmInfo(&b, i.Swarm)
	if len(i.SecurityOptions) > 0 {
		b.WriteString(" Security Options:\n")
		for _, option := range i.SecurityOptions {
			fmt.Fprintf(&b, "  %s\n", option)
		}
	}
	line("Security Options Not In Force", strings.Join(view.NotInForce(i.SecurityOptions), ", "))
	line("Key Protection", i.KeyProtection)
	if i.OfflineTasks > 0 {
		line("Secrets On Disk", fmt.Sprintf("%d tasks' (--secret-offline), sealed by the node's key and as safe as that", i.OfflineTasks))
	}
	if i.DataKeyChangedAt != nil {
		line("Data Key Changed", p.age(*i.DataKeyChangedAt))
	}
	line("Kernel Version", i.KernelVersion)
	line("OSType", i.OSType)
	line("Architecture", i.Architecture)
	line("CPUs", i.NCPU)
	line("Total Memory", units.BytesSize(float64(i.MemTotal)))
	line("Name", i.Name)
	line("Users Served At", strings.Join(i.PeopleAddresses, " "))
	if i.User != "" {
		line("User", fmt.Sprintf("%s (%s)", i.User, i.UserRole))
	}
	line("Skep Root Dir", i.SkepRootDir)
	return b.String()
}

func writeSwarmInfo(b *strings.Builder, s view.SwarmInfo) {
	fmt.Fprintf(b, " Swarm: %s\n", s.LocalNodeState)
	if s.LocalNodeState == "inactive" || s.LocalNodeState == "locked" {
		return
	}
	fmt.Fprintf(b, "  NodeID: %s\n", s.NodeID)
	if s.Error != "" {
		fmt.Fprintf(b, "  Error: %s\n", s.Error)
	}
	fmt.Fprintf(b, "  Is Manager: %v\n", s.ControlAvailable)
	if s.ClusterID != "" {
		fmt.Fprintf(b, "  ClusterID: %s\n", s.ClusterID)
	}
	if s.ControlAvailable {
		fmt.Fprintf(b, "  Managers: %d\n  Nodes: %d\n", s.Managers, s.Nodes)
	}
	fmt.Fprintf(b, "  Node Address: %s\n", s.NodeAddr)
	if len(s.RemoteManagers) > 0 {
		b.WriteString("  Manager Addresses:\n")
		for _, manager := range s.RemoteManagers {
			fmt.Fprintf(b, "   %s\n", manager)
		}
	}
	if len(s.RequiredIsolation) > 0 {
		fmt.Fprintf(b, "  Required Isolation: %s\n", strings.Join(s.RequiredIsolation, ", "))
	}
	if s.ControlAvailable {
		writeBackupInfo(b, s)
	}
	if s.AuditHead != "" {
		fmt.Fprintf(b, "  Audit Head: %s\n", s.AuditHead)
	}
	if len(s.NodeTransports) > 0 {
		fmt.Fprintf(b, "  Node Transport: %s\n", strings.Join(s.NodeTransports, "; "))
	}
	if s.CertificateExpiresAt != nil {
		fmt.Fprintf(b, "  Certificate Expires: %s\n", prettyTime(*s.CertificateExpiresAt))
	}
}

func writeBackupInfo(b *strings.Builder, s view.SwarmInfo) {
	last, schedule := "never", "off"
	if s.LastVerifiedBackup != nil {
		last = fmt.Sprintf("%s (index %d)", prettyTime(s.LastVerifiedBackup.CreatedAt), s.LastVerifiedBackup.Index)
	}
	if s.BackupInterval != nil && *s.BackupInterval > 0 {
		schedule = "every " + s.BackupInterval.String()
	}
	fmt.Fprintf(b, "  Backup Schedule: %s\n  Last Verified Backup: %s\n", schedule, last)
}

// versions are those of both programs, in the words of Docker's version.
type versions struct {
	Client clientVersion
	Server *serverVersion `json:",omitempty"`
}

// clientVersion is this program.
type clientVersion struct {
	Version   string
	GoVersion string
	Os        string
	Arch      string
}

// serverVersion is the daemon.
type serverVersion struct {
	Version       string
	Os            string
	Arch          string
	KernelVersion string
}

func (p *program) versionCommand() *cobra.Command {
	var flags valueFlags
	cmd := &cobra.Command{
		Use: "version [OPTIONS]", Short: "Show the Skep version information", Args: noArgs,
	}
	flags.register(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		v := versions{Client: clientVersion{
			Version: p.opts.Version, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
		}}
		answer, unreachable := c.Daemon.GetInfo(ctx, &api.GetInfoRequest{})
		if unreachable == nil {
			v.Server = &serverVersion{
				Version: answer.GetVersion(), Os: answer.GetPlatform().GetOs(), Arch: answer.GetPlatform().GetArchitecture(),
				KernelVersion: answer.GetKernelVersion(),
			}
		}
		// The client's half is useful without a daemon; the exit code still says that the other half is missing.
		return cmp.Or(p.writeVersions(&flags, v), unreachable)
	})
	return cmd
}

func (p *program) writeVersions(flags *valueFlags, v versions) error {
	switch {
	case flags.json:
		return output.Indented(p.out, v)
	case flags.format != "":
		return output.Objects(p.out, flags.format, []versions{v})
	}
	err := p.printf("Client:\n Version:    %s\n Go version: %s\n OS/Arch:    %s/%s\n", v.Client.Version, v.Client.GoVersion, v.Client.Os, v.Client.Arch)
	if err != nil || v.Server == nil {
		return err
	}
	return p.printf("\nServer:\n Version:    %s\n OS/Arch:    %s/%s\n Kernel:     %s\n", v.Server.Version, v.Server.Os, v.Server.Arch,
		v.Server.KernelVersion)
}
