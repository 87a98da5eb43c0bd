package daemon

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/agent"
	"github.com/skep-io/skep/agent/session"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
)

// GetInfo describes this node.
func (d *Daemon) GetInfo(ctx context.Context, _ *api.GetInfoRequest) (*api.GetInfoResponse, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("host name: %w", err)
	}
	images, err := d.images.List(ctx)
	if err != nil {
		return nil, imageFault(err)
	}
	resources, err := agent.Resources()
	if err != nil {
		return nil, err
	}
	containers, err := d.runtime.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	info := &api.GetInfoResponse{
		Version: d.cfg.Version, Hostname: hostname, DataDir: d.cfg.DataDir,
		Platform:      &api.Platform{Os: runtime.GOOS, Architecture: runtime.GOARCH},
		KernelVersion: kernelVersion(), Resources: resources,
		Images: uint32(len(images)), ContainersRunning: countRunning(containers),
		Security:      append(lsm.Isolation(), "no-new-privileges", "cgroupns"),
		CgroupVersion: cgroupVersion(),
	}
	d.describeMembership(info)
	info.PeopleAddresses = d.cfg.People.addresses(info.GetAdvertiseAddress())
	describeUser(info, authz.FromContext(ctx))
	return info, nil
}

// describeUser fills in who asks.
func describeUser(info *api.GetInfoResponse, caller authz.Caller) {
	if info.User = caller.User; caller.User == "" {
		return
	}
	info.UserRole = map[api.Caller]api.UserRole{
		api.Caller_CALLER_ADMIN:    api.UserRole_USER_ROLE_ADMIN,
		api.Caller_CALLER_OPERATOR: api.UserRole_USER_ROLE_OPERATOR,
		api.Caller_CALLER_VIEWER:   api.UserRole_USER_ROLE_VIEWER,
	}[caller.Kind]
}

// describeMembership fills in what the node is in its swarm.
func (d *Daemon) describeMembership(info *api.GetInfoResponse) {
	d.mu.Lock()
	n, locked, broken := d.current, d.locked, d.broken
	pending := d.joining != nil || n == nil && d.applicant != nil && d.applicant.waits
	d.mu.Unlock()
	switch {
	case locked:
		info.State = api.LocalNodeState_LOCAL_NODE_STATE_LOCKED
	case pending:
		info.State = api.LocalNodeState_LOCAL_NODE_STATE_PENDING
	case n != nil:
		info.State = api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE
		n.describe(info)
		n.describeExpired(info)
	case broken != nil:
		info.State = api.LocalNodeState_LOCAL_NODE_STATE_ERROR
		info.Error = broken.Error()
	default:
		info.State = api.LocalNodeState_LOCAL_NODE_STATE_INACTIVE
	}
}

// describe fills in what a member knows.
func (n *node) describe(info *api.GetInfoResponse) {
	info.NodeId, info.ClusterId, info.Role = n.identity.NodeID(), n.identity.ClusterID(), n.identity.Role()
	info.CertificateExpiresAt = timestamppb.New(n.identity.Expiry())
	info.Managers = n.managers()
	info.NodeTransports = n.identity.Transports()
	n.mu.Lock()
	s, source, a := n.store, n.holds, n.agent
	info.AdvertiseAddress = n.membership.AdvertiseAddress
	n.mu.Unlock()
	if a != nil {
		describeAudit(info, a.Audit(), time.Now())
		info.Warnings = append(info.Warnings, a.Waiting()...)
		if a.Refused() {
			info.Warnings = append(info.Warnings, "the managers refuse this node: it was removed from the swarm, or shut out. What runs here goes on, beside what replaced it "+
				"elsewhere: end it with `skep swarm leave`")
		}
		info.OfflineTasks = uint32(a.OfflineTasks())
	}
	describeKey(info, source, s != nil)
	if s == nil {
		return
	}
	if madeAt, _ := s.DataKey(); !madeAt.IsZero() {
		info.DataKeyChangedAt = timestamppb.New(madeAt)
	}
	for _, member := range s.Status().Members {
		if !member.Member.GetLearner() { // it has no say yet
			info.ManagerCount++
		}
	}
	_ = s.View(func(tx store.ReadTx) error {
		nodes, err := store.All[*api.Node](tx)
		if err != nil {
			return err
		}
		for node := range nodes {
			if node.GetApproval().GetState() != api.ApprovalState_APPROVAL_STATE_PENDING { // it is none yet
				info.Nodes++
			}
		}
		cluster, err := store.TheCluster(tx)
		info.RequiredIsolation = cluster.GetSpec().GetRequiredIsolation()
		describeBackups(info, cluster)
		return err
	})
}

// recoveryShown is how long a recovery that lost something is a warning.
const recoveryShown = 7 * 24 * time.Hour

// describeAudit fills in how far this node saw the audit log, and warns of a manager that was rolled back.
func describeAudit(info *api.GetInfoResponse, state session.AuditState, now time.Time) {
	if seen := state.Seen; seen.Sequence > 0 {
		info.AuditHead = &api.AuditHead{Sequence: seen.Sequence, Hash: seen.Hash, RecoveredAt: seen.RecoveredAt}
	}
	if state.Refused != nil {
		info.Warnings = append(info.Warnings, state.Refused.Error())
	}
	if r := state.Recovered; r != nil && now.Sub(r.At()) < recoveryShown {
		info.Warnings = append(info.Warnings, fmt.Sprintf("the swarm was put back to an older state on purpose at %s: this node had seen %v of the audit log",
			r.At().UTC().Format(time.DateTime), r.Before))
	}
}

// describeBackups fills in what a manager knows of backups.
func describeBackups(info *api.GetInfoResponse, cluster *api.Cluster) {
	info.LastVerifiedBackup = cluster.GetBackup().GetVerified()
	info.BackupInterval = cluster.GetSpec().GetBackupInterval()
	if text := cluster.GetBackup().GetError(); text != "" && info.BackupInterval.AsDuration() > 0 {
		info.Warnings = append(info.Warnings, fmt.Sprintf("the scheduled backup of %s failed %s",
			cluster.GetBackup().GetFailedAt().AsTime().UTC().Format(time.DateTime), text))
	}
}

// describeKey fills in how the node's key is held, and warns where what it seals is no safer than in clear.
func describeKey(info *api.GetInfoResponse, source seal.Source, manager bool) {
	info.KeyProtection = keyProtection(source, manager)
	if n := info.GetOfflineTasks(); n > 0 && source == seal.SourceKeyFile {
		info.Warnings = append(info.Warnings, fmt.Sprintf("secrets of tasks (%d, --secret-offline) are on this disk, and the key that opens them lies beside them: "+
			"who has the disk has them; start `skep daemon --key-provider tpm2`", n))
	}
}

// keyProtection says how the key of a node is held, that of the store where it is a manager, and against what that helps.
func keyProtection(source seal.Source, manager bool) string {
	switch source {
	case seal.SourceUnlockKey:
		return "unlock key (autolock): a stolen disk holds nothing readable; a restarted manager waits for `skep swarm unlock`"
	case seal.SourceTPM2:
		return "this machine's TPM2: a disk without this machine holds nothing readable; whoever can start the machine as root reads it"
	case seal.SourceHostKey:
		return "systemd's key of this host: a copy of the data directory alone holds nothing readable; one with /var/lib/systemd and /etc does"
	case seal.SourceCredential:
		return "credential of the systemd unit: a copy of the data directory alone holds nothing readable; the rest depends on what seals the credential"
	}
	const file = "key file beside the data: protects nothing against a stolen disk; "
	if !manager {
		return file + "start `skep daemon --key-provider tpm2`"
	}
	return file + "turn on `skep swarm update --autolock`, or start `skep daemon --key-provider tpm2`"
}

// kernelVersion returns the running kernel's release, or "" if it can't be asked.
func kernelVersion() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// cgroupVersion returns "2" where only the unified hierarchy is mounted, else "1".
func cgroupVersion() string {
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil && strings.Contains(string(mounts), " cgroup2 ") {
		return "1 (hybrid)"
	}
	return "1"
}
