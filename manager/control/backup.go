package control

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// GetBackupKey returns the key that seals backups, after rotating it when asked to. A cluster that has none yet gets one.
func (s *Server) GetBackupKey(ctx context.Context, request *api.GetBackupKeyRequest) (*api.GetBackupKeyResponse, error) {
	id, err := requestID(ctx, "GetBackupKey")
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, id, func(tx store.Tx) error {
		old, err := theCluster(tx)
		if err != nil || old.GetBackupKey() != "" && !request.GetRotate() {
			return err
		}
		cluster := proto.CloneOf(old)
		cluster.BackupKey = s.NewBackupKey()
		return tx.Update(cluster)
	})
	if err != nil {
		return nil, err
	}
	response := new(api.GetBackupKeyResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		cluster, err := theCluster(tx)
		response.BackupKey = cluster.GetBackupKey()
		return err
	})
}

// NoteBackup remembers that a backup of this cluster was verified, unless a newer one was.
func (s *Server) NoteBackup(ctx context.Context, request *api.NoteBackupRequest) (*api.NoteBackupResponse, error) {
	id, err := requestID(ctx, "NoteBackup")
	if err != nil {
		return nil, err
	}
	verified := request.GetVerified()
	if !verified.GetCreatedAt().IsValid() || verified.GetIndex() == 0 {
		return nil, fault.New(fault.Invalid, "verified: must name a backup by its time and index")
	}
	return new(api.NoteBackupResponse), s.update(ctx, id, func(tx store.Tx) error {
		old, err := theCluster(tx)
		switch {
		case err != nil:
			return err
		case request.GetClusterId() != old.GetId():
			return fault.New(fault.Precondition, "the backup is of swarm %s, and this is swarm %s", clip(request.GetClusterId()), old.GetId())
		case verified.GetIndex() > tx.Index():
			return fault.New(fault.Precondition, "the backup is of index %d, and this swarm has only come to %d", verified.GetIndex(), tx.Index())
		case !madeAfter(verified, old.GetBackup().GetVerified()):
			return nil
		}
		cluster := proto.CloneOf(old)
		orNew(&cluster.Backup).Verified = proto.CloneOf(verified)
		return tx.Update(cluster)
	})
}

// madeAfter reports whether a backup was made after another one, which may be nil.
func madeAfter(a, b *api.BackupRecord) bool {
	return b == nil || a.GetCreatedAt().AsTime().After(b.GetCreatedAt().AsTime())
}
