package backup

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

// barrierPatience bounds how long a backup waits for a majority of managers: several elections.
const barrierPatience = 10 * time.Second

// Create writes a backup of a store to w, with all that was acknowledged before the call on whichever manager (B1), and returns its
// header. The zero value of secret is the backup key of the cluster; ErrNoKey says that it has none, ErrBehind that there is no
// majority of managers. version is that of this program.
func Create(ctx context.Context, s *store.Store, w io.Writer, secret Secret, version string) (*api.BackupHeader, error) {
	state, err := take(ctx, s)
	if err != nil {
		return nil, err
	}
	if secret.IsZero() {
		if secret, err = ownSecret(state); err != nil {
			return nil, err
		}
	}
	return Write(w, state, secret, time.Now(), version)
}

// take returns the state of a store with all that was acknowledged before the call.
func take(ctx context.Context, s *store.Store) (*api.StoreSnapshot, error) {
	patient, cancel := context.WithTimeoutCause(ctx, barrierPatience, ErrBehind)
	defer cancel()
	if err := s.Barrier(patient); err != nil {
		return nil, fmt.Errorf("catch up with the other managers: %w", err)
	}
	state, err := s.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	return state, nil
}

// ownSecret returns the backup key of a cluster.
func ownSecret(state *api.StoreSnapshot) (Secret, error) {
	for _, stored := range state.GetObjects() {
		cluster := stored.GetCluster()
		if cluster == nil || cluster.GetBackupKey() == "" {
			continue
		}
		key, err := seal.ParseBackupKey(cluster.GetBackupKey())
		if err != nil {
			return Secret{}, fmt.Errorf("backup key in the store: %w", err)
		}
		return FromKey(key), nil
	}
	return Secret{}, ErrNoKey
}

// Write writes a state as a backup that was made at a time, and returns its header. It changes nothing of the state.
func Write(w io.Writer, state *api.StoreSnapshot, secret Secret, now time.Time, version string) (*api.BackupHeader, error) {
	header := &api.BackupHeader{
		ClusterId: state.GetClusterId(), CreatedAt: timestamppb.New(now), Index: state.GetIndex(), Version: version,
		Counts: count(state), Passphrase: secret.parameters(),
	}
	kek, err := secret.kek(header.GetPassphrase())
	if err != nil {
		return nil, err
	}
	head, err := proto.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	if len(head) > maxHeader {
		return nil, fmt.Errorf("the header has %d bytes, and %d are the most", len(head), maxHeader)
	}
	if _, err := w.Write(append(binary.BigEndian.AppendUint32([]byte(magic), uint32(len(head))), head...)); err != nil {
		return nil, err
	}
	p := &parts{w: w, key: seal.NewKey(), header: header}
	if err := writeEnvelope(w, kek, place(seal.KindBackupKey, header, 0), p.key.Bytes()); err != nil {
		return nil, err
	}
	if err := writeEnvelope(w, p.key, place(seal.KindBackup, header, 0), head); err != nil {
		return nil, err
	}
	return header, p.write(state)
}

// parts cuts a state into parts and writes them.
type parts struct {
	w       io.Writer
	key     seal.Key
	header  *api.BackupHeader
	number  uint64 // of the part that was written last
	total   int    // bytes of all parts
	pending []byte
}

// write writes a state piece by piece, so that it is never in memory a second time.
func (p *parts) write(state *api.StoreSnapshot) error {
	rest := shallow(state)
	rest.Objects, rest.NamedRequests, rest.OwnRequests = nil, nil, nil
	err := p.add(rest)
	for _, o := range state.GetObjects() {
		if err == nil {
			err = p.add(&api.StoreSnapshot{Objects: []*api.StoredObject{o}})
		}
	}
	for _, r := range state.GetNamedRequests() {
		if err == nil {
			err = p.add(&api.StoreSnapshot{NamedRequests: []*api.AppliedRequest{r}})
		}
	}
	for _, r := range state.GetOwnRequests() {
		if err == nil {
			err = p.add(&api.StoreSnapshot{OwnRequests: []*api.AppliedRequest{r}})
		}
	}
	if err != nil {
		return err
	}
	return p.flush(lastPart)
}

// add adds a piece to the pending part, or begins another part with it.
func (p *parts) add(piece *api.StoreSnapshot) error {
	size := proto.Size(piece)
	if size > maxPart {
		return fmt.Errorf("a piece of the state has %d bytes, and %d are the most", size, maxPart)
	}
	if len(p.pending) > 0 && len(p.pending)+size > partSize {
		if err := p.flush(0); err != nil {
			return err
		}
	}
	var err error
	if p.pending, err = (proto.MarshalOptions{}).MarshalAppend(p.pending, piece); err != nil {
		return fmt.Errorf("encode %s: %w", nameOf(piece), err)
	}
	return nil
}

// nameOf names what a piece holds.
func nameOf(piece *api.StoreSnapshot) string {
	for _, stored := range piece.GetObjects() {
		if o := object.Unwrap(stored); o != nil {
			return object.KindOf(o).String() + " " + o.GetId()
		}
	}
	return "the state"
}

// flush writes the pending part; mark is lastPart for the last one.
func (p *parts) flush(mark uint64) error {
	p.number++
	if p.total += len(p.pending); p.total > maxState {
		return fmt.Errorf("the state has more than %d bytes, which is too much for a backup", maxState)
	}
	err := writeEnvelope(p.w, p.key, place(seal.KindBackup, p.header, p.number|mark), p.pending)
	p.pending = p.pending[:0]
	return err
}
