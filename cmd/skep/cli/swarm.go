package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// The defaults of the swarm's parameters: Docker's, where it has them.
const (
	defaultCertExpiry       = 90 * 24 * time.Hour
	defaultHeartbeat        = 5 * time.Second
	defaultSnapshotInterval = 10000
	defaultHistoryLimit     = 5
	defaultDataKeyRotation  = 30 * 24 * time.Hour
)

// defaultKeptBackups is our own.
const defaultKeptBackups = 7

func (p *program) swarmCommand() *cobra.Command {
	return group("swarm", "Manage Swarm", p.swarmInit(), p.swarmJoin(), p.swarmJoinToken(), p.swarmUpdate(), p.swarmLeave(),
		p.swarmRejoin(), p.swarmCA(), p.swarmUnlock(), p.swarmUnlockKey(), p.swarmDataKey())
}

// swarmFlags are the swarm's parameters, which init and update both have.
type swarmFlags struct {
	autolock         bool
	certExpiry       time.Duration
	heartbeat        time.Duration
	historyLimit     int64
	snapshotInterval uint64
	dataKeyRotation  time.Duration
	backups          flagvalue.Period
	backupDir        string
	keptBackups      uint64
	auditRetention   flagvalue.Bytes // of update only
	require          string          // of update only
}

func (s *swarmFlags) register(cmd *cobra.Command, autolockHelp string) {
	flags := cmd.Flags()
	flags.BoolVar(&s.autolock, "autolock", false, autolockHelp)
	flags.DurationVar(&s.certExpiry, "cert-expiry", defaultCertExpiry, "Validity period for node certificates (ns|us|ms|s|m|h)")
	flags.DurationVar(&s.dataKeyRotation, "data-key-rotation", defaultDataKeyRotation,
		"Age at which managers change the keys that seal their disks (ns|us|ms|s|m|h; 0 = never)")
	flags.DurationVar(&s.heartbeat, "dispatcher-heartbeat", defaultHeartbeat, "Dispatcher heartbeat period (ns|us|ms|s|m|h)")
	flags.Uint64Var(&s.snapshotInterval, "snapshot-interval", defaultSnapshotInterval, "Number of log entries between Raft snapshots")
	flags.Var(&s.backups, "backup-schedule", `Time between scheduled backups, 1h at least ("off" for none)`)
	flags.StringVar(&s.backupDir, "backup-dir", "", "Directory of scheduled backups on managers (default backups in the data directory)")
	flags.Uint64Var(&s.keptBackups, "backup-retention", defaultKeptBackups, "Number of scheduled backups that each manager keeps")
	flags.Int64Var(&s.historyLimit, "task-history-limit", defaultHistoryLimit, "Task history retention limit")
}

// nodeFlags are what init and join both say of this node.
type nodeFlags struct {
	advertise    string
	availability string
	listen       flagvalue.NodeAddr
}

func (n *nodeFlags) register(cmd *cobra.Command) {
	n.listen = flagvalue.DefaultListenAddr
	flags := cmd.Flags()
	flags.StringVar(&n.advertise, "advertise-addr", "", `Advertised address (format: "<ip|interface>[:port]")`)
	flags.StringVar(&n.availability, "availability", "active", `Availability of the node ("active", "pause", "drain")`)
	flags.Var(&n.listen, "listen-addr", `Listen address (format: "<ip|interface>[:port]")`)
}

func (p *program) swarmInit() *cobra.Command {
	var swarm swarmFlags
	var node nodeFlags
	var force bool
	cmd := &cobra.Command{Use: "init [OPTIONS]", Short: "Initialize a swarm", Args: noArgs}
	swarm.register(cmd, "Enable manager autolocking (requiring an unlock key to start a stopped manager)")
	node.register(cmd)
	cmd.Flags().BoolVar(&force, "force-new-cluster", false, "Force create a new cluster from current state")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		availability, err := parseAvailability(node.availability)
		if err = cmp.Or(err, swarm.check()); err != nil {
			return err
		}
		answer, err := c.Daemon.InitSwarm(ctx, &api.InitSwarmRequest{
			ListenAddress: node.listen.String(), AdvertiseAddress: node.advertise, Availability: availability,
			CertExpiry: durationpb.New(swarm.certExpiry), DispatcherHeartbeat: durationpb.New(swarm.heartbeat),
			Autolock: swarm.autolock, TaskHistoryLimit: &swarm.historyLimit, SnapshotInterval: swarm.snapshotInterval,
			DataKeyRotation: durationpb.New(swarm.dataKeyRotation), ForceNewCluster: force, BackupInterval: swarm.backupInterval(), BackupDir: swarm.backupDir, BackupRetention: swarm.keptBackups,
		})
		if err != nil {
			return err
		}
		return p.writeInit(answer)
	})
	return cmd
}

func (p *program) writeInit(answer *api.InitSwarmResponse) error {
	err := p.printf("Swarm initialized: current node (%s) is now a manager.\n\n", answer.GetNodeId())
	if err != nil {
		return err
	}
	if err := p.writeJoinCommand("worker", answer.GetWorkerToken(), answer.GetManagerAddress()); err != nil {
		return err
	}
	err = p.printf("To add a manager to this swarm, run 'skep swarm join-token manager' and follow the instructions.\n")
	if err != nil || answer.GetUnlockKey() == "" {
		return err
	}
	return p.writeUnlockKey(answer.GetUnlockKey())
}

func (p *program) writeUnlockKey(key string) error {
	return p.printf("\nTo unlock a swarm manager after it restarts, run the `skep swarm unlock`\ncommand and provide the following key:\n\n"+
		"    %s\n\nRemember to store this key in a password manager, since without it you\n"+
		"will not be able to restart the manager.\n", key)
}

func parseAvailability(text string) (api.Availability, error) {
	switch strings.ToLower(text) {
	case "active":
		return api.Availability_AVAILABILITY_ACTIVE, nil
	case "pause":
		return api.Availability_AVAILABILITY_PAUSE, nil
	case "drain":
		return api.Availability_AVAILABILITY_DRAIN, nil
	}
	return 0, fault.New(fault.Invalid, "invalid availability %q, only active, pause and drain are supported", text)
}

func parseRole(text string) (api.Role, error) {
	switch strings.ToLower(text) {
	case "worker":
		return api.Role_ROLE_WORKER, nil
	case "manager":
		return api.Role_ROLE_MANAGER, nil
	}
	return 0, fault.New(fault.Invalid, "invalid role %q, only worker and manager are supported", text)
}

func (p *program) swarmUpdate() *cobra.Command {
	var swarm swarmFlags
	cmd := &cobra.Command{Use: "update [OPTIONS]", Short: "Update the swarm", Args: noArgs}
	swarm.register(cmd, "Change manager autolocking setting (true|false)")
	cmd.Flags().StringVar(&swarm.require, "require", "", "Isolation that nodes must have to get tasks (apparmor, landlock, seccomp, selinux, userns; \"\" = none)")
	cmd.Flags().Var(&swarm.auditRetention, "audit-retention", "Size of the audit log, beyond which the oldest entries are dropped (0 = the default, 32 MiB)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().NFlag() == 0 {
			return cmd.Help()
		}
		return p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			return p.runSwarmUpdate(ctx, c, cmd.Flags().Changed, &swarm)
		})(cmd, args)
	}
	return cmd
}

func (p *program) runSwarmUpdate(ctx context.Context, c *client.Client, changed func(string) bool, swarm *swarmFlags) error {
	if err := swarm.check(); err != nil {
		return err
	}
	var key string
	err := untilCurrent(func() error {
		current, err := c.Control.GetCluster(ctx, &api.GetClusterRequest{})
		if err != nil {
			return err
		}
		spec := current.GetCluster().GetSpec()
		if spec == nil {
			spec = &api.ClusterSpec{}
		}
		swarm.apply(spec, changed)
		answer, err := c.Control.UpdateCluster(ctx, &api.UpdateClusterRequest{
			Version: current.GetCluster().GetMeta().GetVersion(), Spec: spec,
		})
		key = answer.GetUnlockKey()
		return err
	})
	if err != nil {
		return err
	}
	if err := p.printf("Swarm updated.\n"); err != nil || key == "" {
		return err
	}
	return p.writeUnlockKey(key)
}

// apply changes what a flag named.
func (s *swarmFlags) apply(spec *api.ClusterSpec, changed func(string) bool) {
	if changed("autolock") {
		spec.Autolock = s.autolock
	}
	if changed("cert-expiry") {
		spec.CertExpiry = durationpb.New(s.certExpiry)
	}
	if changed("data-key-rotation") {
		spec.DataKeyRotation = durationpb.New(s.dataKeyRotation)
	}
	if changed("dispatcher-heartbeat") {
		spec.DispatcherHeartbeat = durationpb.New(s.heartbeat)
	}
	if changed("task-history-limit") {
		spec.TaskHistoryLimit = s.historyLimit
	}
	if changed("snapshot-interval") {
		spec.SnapshotInterval = s.snapshotInterval
	}
	if changed("backup-schedule") {
		spec.BackupInterval = s.backupInterval()
	}
	if changed("backup-dir") {
		spec.BackupDir = s.backupDir
	}
	if changed("backup-retention") {
		spec.BackupRetention = s.keptBackups
	}
	if changed("require") {
		spec.RequiredIsolation = s.requiredIsolation()
	}
	if changed("audit-retention") {
		spec.AuditRetention = uint64(s.auditRetention)
	}
}

// requiredIsolation returns the names in --require, which the managers check.
func (s *swarmFlags) requiredIsolation() (names []string) {
	for name := range strings.SplitSeq(s.require, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// backupInterval returns nil for no scheduled backups.
func (s *swarmFlags) backupInterval() *durationpb.Duration {
	if s.backups == 0 {
		return nil
	}
	return durationpb.New(time.Duration(s.backups))
}

// check refuses what the daemon would take for a default.
func (s *swarmFlags) check() error {
	if s.keptBackups == 0 {
		return fault.New(fault.Invalid, "--backup-retention must be 1 at least: `--backup-schedule off` makes no backups")
	}
	return nil
}

// maxConflicts bounds how often a change is made anew from a newer version before the person is asked to.
const maxConflicts = 5

// untilCurrent runs a change that reads, changes and writes, again while the object was changed in between.
func untilCurrent(change func() error) error {
	var err error
	for range maxConflicts {
		if err = change(); fault.KindOf(err) != fault.Conflict {
			return err
		}
	}
	return fmt.Errorf("changed %d times meanwhile: %w", maxConflicts, err)
}

func (p *program) swarmLeave() *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "leave [OPTIONS]", Short: "Leave the swarm", Args: noArgs}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force this node to leave the swarm, ignoring warnings")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		if _, err := c.Daemon.LeaveSwarm(ctx, &api.LeaveSwarmRequest{Force: force}); err != nil {
			return err
		}
		return p.printf("Node left the swarm.\n")
	})
	return cmd
}
