package control

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// Limits of a cluster spec.
const (
	// minCertExpiry leaves room between renewal at half of a certificate's life and its end.
	minCertExpiry = time.Hour
	// minHeartbeat keeps the load of heartbeats below that of work.
	minHeartbeat = 100 * time.Millisecond
	// maxHeartbeat bounds how long a dead node goes unnoticed: three periods, five under a new leader.
	maxHeartbeat = 5 * time.Minute
	// minBackupInterval keeps backups, which read and write the whole state, from being the main work of a leader.
	minBackupInterval = time.Hour
	// maxBackups bounds what pruning goes through.
	maxBackups = 10000
	// minAudit leaves the audit log a few segments, and maxAudit is what managers keep in memory beside their work.
	minAudit = 1 << 20
	maxAudit = 1 << 30
)

// withoutKeys returns a copy of the cluster that may leave the managers (C1).
func withoutKeys(cluster *api.Cluster) *api.Cluster {
	return &api.Cluster{
		Id: cluster.GetId(), Meta: cluster.GetMeta(), Spec: cluster.GetSpec(),
		RootCa:            &api.RootCA{Certificate: cluster.GetRootCa().GetCertificate()},
		DataKeyGeneration: cluster.GetDataKeyGeneration(), Backup: cluster.GetBackup(),
	}
}

// theCluster returns the one cluster object.
func theCluster(tx store.ReadTx) (*api.Cluster, error) {
	clusters, err := store.List[*api.Cluster](tx)
	if err != nil {
		return nil, err
	}
	if len(clusters) != 1 {
		return nil, fault.New(fault.Unavailable, "the swarm is not set up yet: try again in a moment")
	}
	return clusters[0], nil
}

// GetCluster returns the cluster without its keys and tokens.
func (s *Server) GetCluster(ctx context.Context, _ *api.GetClusterRequest) (*api.GetClusterResponse, error) {
	response := new(api.GetClusterResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		if err == nil {
			response.Cluster = withoutKeys(cluster)
		}
		return err
	})
}

// CheckClusterSpec reports all problems of a cluster's spec as one fault of kind Invalid, or nil. It is for who makes a cluster,
// too: what init takes, update must be able to take again.
func CheckClusterSpec(spec *api.ClusterSpec) error {
	p := new(problems)
	p.knownFields(spec)
	p.labels("annotations.labels", spec.GetAnnotations().GetLabels())
	p.duration("cert_expiry", spec.GetCertExpiry())
	if d := spec.GetCertExpiry(); d.IsValid() && d.AsDuration() < minCertExpiry {
		p.add("cert_expiry", "minimum certificate expiry time is: %s", minCertExpiry)
	}
	p.duration("dispatcher_heartbeat", spec.GetDispatcherHeartbeat())
	switch d := spec.GetDispatcherHeartbeat(); {
	case !d.IsValid():
	case d.AsDuration() < minHeartbeat:
		p.add("dispatcher_heartbeat", "minimum heartbeat period is: %s", minHeartbeat)
	case d.AsDuration() > maxHeartbeat:
		p.add("dispatcher_heartbeat", "maximum heartbeat period is: %s, got %s: a node is down only after three periods without a sign of life",
			maxHeartbeat, d.AsDuration())
	}
	if spec.GetSnapshotInterval() == 0 {
		p.add("snapshot_interval", "must be at least 1 log entry, such as the default: %d", DefaultClusterSpec().GetSnapshotInterval())
	}
	p.dataKeyRotation(spec)
	p.backups(spec)
	p.requiredIsolation(spec.GetRequiredIsolation())
	if n := spec.GetAuditRetention(); n != 0 && (n < minAudit || n > maxAudit) {
		p.add("audit_retention", "the audit log must have 1 MiB to 1 GiB, got %d bytes", n)
	}
	return p.err()
}

// requirable are what a swarm can require, in the words of NodeDescription.isolation.
func requirable() []string { return []string{"apparmor", "landlock", "seccomp", "selinux", "userns"} }

func (p *problems) requiredIsolation(names []string) {
	for i, name := range names {
		switch {
		case !slices.Contains(requirable(), name):
			p.add("required_isolation", "unknown isolation %q: write some of %s", clip(name), strings.Join(requirable(), ", "))
		case slices.Contains(names[:i], name):
			p.add("required_isolation", "%s is there twice", name)
		}
	}
}

// backups checks what a cluster's spec says of scheduled backups.
func (p *problems) backups(spec *api.ClusterSpec) {
	p.duration("backup_interval", spec.GetBackupInterval())
	if d := spec.GetBackupInterval(); d.IsValid() && d.AsDuration() != 0 && d.AsDuration() < minBackupInterval {
		p.add("backup_interval", "minimum time between scheduled backups is: %s", minBackupInterval)
	}
	if dir := spec.GetBackupDir(); dir != "" && (!filepath.IsAbs(dir) || filepath.Clean(dir) != dir || strings.ContainsRune(dir, 0)) {
		p.add("backup_dir", "must be an absolute path without . and .., such as /var/backups/skep, got %q", clip(dir))
	}
	if n := spec.GetBackupRetention(); n > maxBackups {
		p.add("backup_retention", "at most %d backups are kept, got %d", maxBackups, n)
	}
}

// noteCertExpiry keeps the longest life that certificates were given, which bounds how long those of a removed node are remembered.
func noteCertExpiry(cluster *api.Cluster, old *api.ClusterSpec) {
	former := old.GetCertExpiry()
	if former.AsDuration() > max(cluster.GetSpec().GetCertExpiry().AsDuration(), cluster.GetLongestCertExpiry().AsDuration()) {
		cluster.LongestCertExpiry = former
	}
}

// UpdateCluster replaces the cluster's spec. Turning autolock on makes a new unlock key, which the answer carries.
func (s *Server) UpdateCluster(ctx context.Context, request *api.UpdateClusterRequest) (*api.UpdateClusterResponse, error) {
	id, err := requestID(ctx, "UpdateCluster")
	if err != nil {
		return nil, err
	}
	if request.GetSpec() == nil {
		return nil, fault.New(fault.Invalid, "spec: the cluster's spec is missing")
	}
	spec := proto.CloneOf(request.GetSpec())
	fillCluster(spec)
	if err := CheckClusterSpec(spec); err != nil {
		return nil, err
	}
	locked, repeated := false, true
	err = s.update(ctx, id, func(tx store.Tx) error {
		repeated = false
		old, err := theCluster(tx)
		if err != nil {
			return err
		}
		if err := checkVersion(old, request.GetVersion()); err != nil {
			return err
		}
		if spec.GetAnnotations().GetName() != old.GetSpec().GetAnnotations().GetName() {
			return fault.New(fault.Invalid, "annotations.name: renaming the cluster is not supported")
		}
		cluster := proto.CloneOf(old)
		cluster.Spec = proto.CloneOf(spec)
		retryBackup(cluster, old.GetSpec())
		noteCertExpiry(cluster, old.GetSpec())
		locked = s.lock(cluster)
		return tx.Update(cluster)
	})
	if err != nil {
		return nil, err
	}
	response := new(api.UpdateClusterResponse)
	return response, storeFault(s.Store.View(func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		if err != nil {
			return err
		}
		response.Cluster = withoutKeys(cluster)
		if locked || repeated { // of a repetition it is not known whether it made the key (C2)
			response.UnlockKey = cluster.GetUnlockKey()
		}
		return nil
	}))
}

// retryBackup forgets that a scheduled backup failed when it is to be made another way, so that this is tried at once.
func retryBackup(cluster *api.Cluster, old *api.ClusterSpec) {
	spec := cluster.GetSpec()
	if cluster.GetBackup() == nil || spec.GetBackupDir() == old.GetBackupDir() && proto.Equal(spec.GetBackupInterval(), old.GetBackupInterval()) {
		return
	}
	cluster.Backup.Error, cluster.Backup.FailedAt = "", nil
}

// lock makes or drops the unlock key as the spec wants, and reports whether it made one.
func (s *Server) lock(cluster *api.Cluster) bool {
	switch {
	case !cluster.GetSpec().GetAutolock():
		cluster.UnlockKey = ""
	case cluster.GetUnlockKey() == "":
		cluster.UnlockKey = s.NewUnlockKey()
		return true
	}
	return false
}

// GetJoinToken returns a standing token, after rotating it when asked to.
func (s *Server) GetJoinToken(ctx context.Context, request *api.GetJoinTokenRequest) (*api.GetJoinTokenResponse, error) {
	id, err := requestID(ctx, "GetJoinToken")
	if err != nil {
		return nil, err
	}
	role := request.GetRole()
	if role != api.Role_ROLE_WORKER && role != api.Role_ROLE_MANAGER {
		return nil, fault.New(fault.Invalid, "role: must be worker or manager")
	}
	if request.GetRotate() {
		if err := s.update(ctx, id, func(tx store.Tx) error { return rotateToken(tx, role) }); err != nil {
			return nil, err
		}
	}
	response := &api.GetJoinTokenResponse{ManagerAddress: s.joinAddress()}
	return response, s.view(ctx, func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		response.Token = *standingToken(cluster.GetJoinTokens(), role)
		return err
	})
}

// joinAddress returns where a machine can join: the leader's address, which is this manager's.
func (s *Server) joinAddress() string {
	status := s.Status()
	if member := memberOf(status, status.NodeID); member != nil {
		return member.Member.GetAddress()
	}
	return status.LeaderAddr
}

func standingToken(tokens *api.JoinTokens, role api.Role) *string {
	if tokens == nil {
		tokens = new(api.JoinTokens)
	}
	if role == api.Role_ROLE_MANAGER {
		return &tokens.Manager
	}
	return &tokens.Worker
}

// rotateToken replaces a standing token by one with another secret for the same root.
func rotateToken(tx store.Tx, role api.Role) error {
	old, err := theCluster(tx)
	if err != nil {
		return err
	}
	present, err := token.Parse(*standingToken(old.GetJoinTokens(), role))
	if err != nil {
		return fmt.Errorf("read the present join token: %w", err)
	}
	cluster := proto.CloneOf(old)
	*standingToken(orNew(&cluster.JoinTokens), role) = token.New(present.Digest()).Reveal()
	return tx.Update(cluster)
}

// GetUnlockKey returns the unlock key, after rotating it when asked to.
func (s *Server) GetUnlockKey(ctx context.Context, request *api.GetUnlockKeyRequest) (*api.GetUnlockKeyResponse, error) {
	id, err := requestID(ctx, "GetUnlockKey")
	if err != nil {
		return nil, err
	}
	if request.GetRotate() {
		if err := s.update(ctx, id, s.rotateUnlockKey); err != nil {
			return nil, err
		}
	}
	response := new(api.GetUnlockKeyResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		response.UnlockKey = cluster.GetUnlockKey()
		return err
	})
}

func (s *Server) rotateUnlockKey(tx store.Tx) error {
	old, err := theCluster(tx)
	if err != nil {
		return err
	}
	if !old.GetSpec().GetAutolock() {
		return fault.New(fault.Precondition, "the swarm is not autolocked: turn it on with `skep swarm update --autolock`")
	}
	cluster := proto.CloneOf(old)
	cluster.UnlockKey = s.NewUnlockKey()
	return tx.Update(cluster)
}
