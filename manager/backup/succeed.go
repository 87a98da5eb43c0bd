package backup

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
)

// Succession is how a cluster goes on from a backup.
type Succession struct {
	// Header is that of the backup.
	Header *api.BackupHeader
	// Node is the only manager from now on, new to the cluster.
	Node *api.Node
	// UnlockKey locks managers from now on; empty leaves that as it was.
	UnlockKey string
	// Now is the time of the change.
	Now time.Time
}

// Succeed changes a state that Check found nothing wrong with, so that it goes on with one new manager: former managers stay as
// nodes, and are workers. The CA, the standing join tokens and all objects stay what they are, but for join grants: what was used up
// after the backup would be good once more. With them go the nodes that wait for approval.
func Succeed(state *api.StoreSnapshot, s Succession) error {
	state.Index++
	meta := func(old *api.Meta) *api.Meta {
		created := old.GetCreatedAt()
		if created == nil {
			created = timestamppb.New(s.Now)
		}
		return &api.Meta{Version: state.GetIndex(), CreatedAt: created, UpdatedAt: timestamppb.New(s.Now)}
	}
	found := false
	state.Objects = slices.DeleteFunc(state.GetObjects(), revoked)
	for _, stored := range state.GetObjects() {
		switch o := object.Unwrap(stored).(type) {
		case *api.Cluster:
			found = true
			s.changeCluster(o)
			o.Meta = meta(o.GetMeta())
		case *api.Node:
			if demote(o) {
				o.Meta = meta(o.GetMeta())
			}
		}
	}
	if !found {
		return fmt.Errorf("cluster object: %w", ErrDamaged)
	}
	s.Node.Meta = meta(nil)
	state.Objects = append(state.Objects, object.Wrap(s.Node))
	for _, v := range state.GetKindVersions() {
		if kind := object.Kind(v.GetKind()); kind == object.KindCluster || kind == object.KindNode || kind == object.KindJoinGrant {
			v.Version = state.GetIndex()
		}
	}
	return nil
}

// revoked reports whether an object does not outlive a restore.
func revoked(stored *api.StoredObject) bool {
	switch o := object.Unwrap(stored).(type) {
	case *api.JoinGrant:
		return true
	case *api.Node:
		return o.GetApproval().GetState() == api.ApprovalState_APPROVAL_STATE_PENDING
	default:
		return false
	}
}

func (s Succession) changeCluster(cluster *api.Cluster) {
	if s.UnlockKey != "" {
		cluster.UnlockKey = s.UnlockKey
		cluster.Spec.Autolock = true
	}
	if cluster.GetBackup() == nil {
		cluster.Backup = new(api.BackupStatus)
	}
	cluster.Backup.Verified = Record(s.Header)
}

// demote makes a worker of a manager, and reports whether it was one.
func demote(node *api.Node) bool {
	if node.GetRole() == api.Role_ROLE_WORKER && node.GetSpec().GetDesiredRole() == api.Role_ROLE_WORKER {
		return false
	}
	node.Role = api.Role_ROLE_WORKER
	node.Spec.DesiredRole = api.Role_ROLE_WORKER
	node.DataKey = nil // it has no store any more
	return true
}

// Record names a backup by its header.
func Record(h *api.BackupHeader) *api.BackupRecord {
	return &api.BackupRecord{CreatedAt: h.GetCreatedAt(), Index: h.GetIndex()}
}
