package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/backup"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
)

const (
	// backupChunk is the size of a message of a backup that is sent, in bytes.
	backupChunk = 1 << 20
	// notePatience bounds how long a verified backup waits to be noted: it was verified all the same.
	notePatience = 5 * time.Second
)

// CreateBackup sends a backup of the swarm.
func (d *Daemon) CreateBackup(request *api.CreateBackupRequest, stream api.Daemon_CreateBackupServer) error {
	var secret backup.Secret
	if text := request.GetPassphrase(); text != "" {
		var err error
		if secret, err = backup.NewPassphrase(text); err != nil {
			return backupFault(err)
		}
	}
	s, err := d.managing()
	if err != nil {
		return err
	}
	header, err := backup.Create(stream.Context(), s, chunkWriter(func(b []byte) error {
		return stream.Send(&api.CreateBackupResponse{Data: b})
	}), secret, d.cfg.Version)
	if err != nil {
		return backupFault(err)
	}
	return stream.Send(&api.CreateBackupResponse{Header: header})
}

// managing returns the store of the manager that this node is, or says why it is none.
func (d *Daemon) managing() (*store.Store, error) {
	n, err := d.node()
	if err != nil || d.managed.records() == nil {
		return nil, d.absence()
	}
	if s := n.opened(); s != nil {
		return s, nil
	}
	return nil, d.absence()
}

// chunkWriter sends what is written, in pieces that fit into a message.
type chunkWriter func([]byte) error

// Write implements io.Writer.
func (w chunkWriter) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(len(p)-sent, backupChunk)
		if err := w(p[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

// InspectBackup says what the beginning of a backup tells.
func (d *Daemon) InspectBackup(_ context.Context, request *api.InspectBackupRequest) (*api.InspectBackupResponse, error) {
	r, err := backup.NewReader(bytes.NewReader(request.GetStart()))
	if err != nil {
		return nil, backupFault(err)
	}
	secret, err := d.backupSecret(request.GetSecret(), r.Header())
	if err != nil {
		return nil, err
	}
	response := &api.InspectBackupResponse{Header: r.Header()}
	if secret.IsZero() {
		return response, nil
	}
	err = r.Unlock(secret)
	response.Genuine = err == nil
	own := request.GetSecret().GetKey() == "" && request.GetSecret().GetPassphrase() == ""
	if own && errors.Is(err, backup.ErrWrongSecret) {
		err = nil // the backup may be from before the swarm's key was rotated
	}
	return response, backupFault(err)
}

// backupSecret returns what opens a backup: what the caller gave, else the backup key of this node's own swarm, else nothing.
func (d *Daemon) backupSecret(given *api.BackupSecret, h *api.BackupHeader) (backup.Secret, error) {
	switch {
	case given.GetKey() != "":
		key, err := seal.ParseBackupKey(given.GetKey())
		return backup.FromKey(key), fault.Wrap(fault.Invalid, err)
	case given.GetPassphrase() != "":
		return backup.FromPassphrase(given.GetPassphrase()), nil
	case h.GetPassphrase() != nil:
		return backup.Secret{}, nil
	}
	s, err := d.managing()
	if err != nil {
		return backup.Secret{}, nil // no manager, no key
	}
	var secret backup.Secret
	return secret, s.View(func(tx store.ReadTx) error {
		cluster, err := store.TheCluster(tx)
		if key, err := seal.ParseBackupKey(cluster.GetBackupKey()); err == nil && cluster.GetId() == h.GetClusterId() {
			secret = backup.FromKey(key)
		}
		return err
	})
}

// readBackup reads a backup to its end and checks it.
func (d *Daemon) readBackup(given *api.BackupSecret, from io.Reader) (*api.BackupHeader, *api.StoreSnapshot, []string, error) {
	r, err := backup.NewReader(from)
	if err != nil {
		return nil, nil, nil, backupFault(err)
	}
	secret, err := d.backupSecret(given, r.Header())
	if err != nil {
		return nil, nil, nil, err
	}
	if err := r.Unlock(secret); err != nil {
		return nil, nil, nil, backupFault(err)
	}
	state, err := r.State()
	if err != nil {
		return nil, nil, nil, backupFault(err)
	}
	return r.Header(), state, backup.Check(r.Header(), state), nil
}

// VerifyBackup checks a backup, and has the swarm remember a sound one of its own.
func (d *Daemon) VerifyBackup(stream api.Daemon_VerifyBackupServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	from := &chunks{rest: first.GetData(), next: func() ([]byte, error) {
		request, err := stream.Recv()
		return request.GetData(), err
	}}
	header, _, problems, err := d.readBackup(first.GetSecret(), from)
	if err != nil {
		return err
	}
	response := &api.VerifyBackupResponse{Header: header, Problems: problems}
	if len(problems) == 0 {
		response.Noted = d.noteBackup(stream.Context(), header)
	}
	return stream.SendAndClose(response)
}

// noteBackup tells the leader of a verified backup, if it is one of this node's swarm, and reports whether that was heard.
func (d *Daemon) noteBackup(ctx context.Context, header *api.BackupHeader) bool {
	n, err := d.node()
	if err != nil || n.opened() == nil || n.identity.ClusterID() != header.GetClusterId() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, notePatience)
	defer cancel()
	err = n.eachManager(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := api.NewControlClient(conn).NoteBackup(ctx, &api.NoteBackupRequest{
			ClusterId: header.GetClusterId(), Verified: backup.Record(header),
		})
		return err
	})
	if err != nil {
		d.logger.Warn("a backup was verified, but the swarm does not remember it", "index", header.GetIndex(), "error", err)
	}
	return err == nil
}

// backupFault gives an error of a backup its kind.
func backupFault(err error) error {
	for _, row := range []struct {
		sentinel error
		kind     fault.Kind
	}{
		{backup.ErrNotBackup, fault.Invalid},
		{backup.ErrVersion, fault.Invalid},
		{backup.ErrDamaged, fault.Invalid},
		{backup.ErrPassphrase, fault.Invalid},
		{backup.ErrWrongSecret, fault.PermissionDenied},
		{backup.ErrNeedsKey, fault.Precondition},
		{backup.ErrNeedsPassphrase, fault.Precondition},
		{backup.ErrNoKey, fault.Unavailable},
		{backup.ErrBehind, fault.Unavailable},
		{store.ErrStopped, fault.Unavailable},
		{store.ErrNotLeader, fault.Unavailable},
	} {
		if errors.Is(err, row.sentinel) {
			return fault.Wrap(row.kind, err)
		}
	}
	return err
}
