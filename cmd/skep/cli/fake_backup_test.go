package cli_test

import (
	"bytes"
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// What opens the backups of the fake.
const (
	backupKey  = "SKPBAK-1-key"
	passphrase = "correct horse battery"
)

// header is what the fake says of a backup: its first word is how it is sealed.
func header(start []byte) (*api.BackupHeader, error) {
	h := &api.BackupHeader{
		ClusterId: "cluster1", CreatedAt: timestamppb.New(born()), Index: 42, Version: "1.2.3",
		Counts: []*api.BackupCount{{Kind: 1, Objects: 1}, {Kind: 3, Objects: 2}, {Kind: 6, Objects: 0}, {Kind: 8, Objects: 2}},
	}
	switch {
	case bytes.HasPrefix(start, []byte("keyed")):
	case bytes.HasPrefix(start, []byte("phrased")):
		h.Passphrase = &api.PassphraseParameters{Time: 1}
	default:
		return nil, fault.New(fault.Invalid, "this is not a skep backup")
	}
	return h, nil
}

// opens reports whether the fake opens a backup.
func (f *fake) opens(h *api.BackupHeader, secret *api.BackupSecret) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	given := secret.GetKey() + secret.GetPassphrase()
	if given == "" {
		return h.GetPassphrase() == nil && f.state == api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE, nil
	}
	if h.GetPassphrase() == nil && secret.GetKey() == backupKey || h.GetPassphrase() != nil && secret.GetPassphrase() == passphrase {
		return true, nil
	}
	return false, fault.New(fault.PermissionDenied, "the backup does not open")
}

func (f *fake) CreateBackup(r *api.CreateBackupRequest, stream grpc.ServerStreamingServer[api.CreateBackupResponse]) error {
	kind := "keyed"
	if r.GetPassphrase() == passphrase {
		kind = "phrased"
	}
	for _, part := range []string{kind, " and", " more"} {
		if err := stream.Send(&api.CreateBackupResponse{Data: []byte(part)}); err != nil {
			return err
		}
	}
	f.mu.Lock()
	broken := f.faults["middle"]
	f.mu.Unlock()
	if len(broken) > 0 {
		return broken[0]
	}
	h, err := header([]byte(kind))
	if err != nil {
		return err
	}
	return stream.Send(&api.CreateBackupResponse{Header: h})
}

func (f *fake) InspectBackup(_ context.Context, r *api.InspectBackupRequest) (*api.InspectBackupResponse, error) {
	h, err := header(r.GetStart())
	if err != nil {
		return nil, err
	}
	genuine, err := f.opens(h, r.GetSecret())
	return &api.InspectBackupResponse{Header: h, Genuine: genuine}, err
}

// read takes in a whole backup.
func (f *fake) read(data []byte, secret *api.BackupSecret) (*api.BackupHeader, error) {
	h, err := header(data)
	if err != nil {
		return nil, err
	}
	if opened, err := f.opens(h, secret); err != nil || !opened {
		return nil, fault.New(fault.PermissionDenied, "the backup does not open")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uploaded = data
	return h, nil
}

func (f *fake) VerifyBackup(stream grpc.ClientStreamingServer[api.VerifyBackupRequest, api.VerifyBackupResponse]) error {
	var data []byte
	var secret *api.BackupSecret
	err := drain(stream.Recv, func(r *api.VerifyBackupRequest) {
		data = append(data, r.GetData()...)
		if r.GetSecret() != nil {
			secret = r.GetSecret()
		}
	})
	if err != nil {
		return err
	}
	h, err := f.read(data, secret)
	if err != nil {
		return err
	}
	response := &api.VerifyBackupResponse{Header: h, Noted: secret.GetKey() == ""}
	if bytes.Contains(data, []byte("unsound")) {
		response = &api.VerifyBackupResponse{Header: h, Problems: []string{"task x1: it belongs to no service", "node n1: it has the role 0"}}
	}
	return stream.SendAndClose(response)
}

func (f *fake) RestoreBackup(stream grpc.ClientStreamingServer[api.RestoreBackupRequest, api.RestoreBackupResponse]) error {
	var data []byte
	var options *api.RestoreOptions
	err := drain(stream.Recv, func(r *api.RestoreBackupRequest) {
		data = append(data, r.GetData()...)
		if r.GetOptions() != nil {
			options = r.GetOptions()
		}
	})
	if err != nil {
		return err
	}
	h, err := f.read(data, options.GetSecret())
	if err != nil {
		return err
	}
	response := &api.RestoreBackupResponse{Header: h, NodeId: "node2", WorkerToken: workerToken, ManagerAddress: managerAddr}
	if options.GetAutolock() {
		response.UnlockKey = unlockKey
	}
	return stream.SendAndClose(response)
}

func (f *fake) GetBackupKey(context.Context, *api.GetBackupKeyRequest) (*api.GetBackupKeyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.GetBackupKeyResponse{BackupKey: backupKey}, f.ready()
}
