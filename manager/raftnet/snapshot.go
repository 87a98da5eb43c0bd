package raftnet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

const (
	// chunkSize is the data of a snapshot in one gRPC message.
	chunkSize = 1 << 20
	// stallTimeout is how long one chunk, or the answer, may take: then the stream is given up. It bounds a stream of any size at
	// any rate that is more than 35 KB/s.
	stallTimeout = 30 * time.Second
	// idleTries is how often in a row a stream may break without any progress before the store is told that the snapshot is lost.
	idleTries = 4
)

// outgoing is a snapshot on its way to one member.
type outgoing struct {
	head   []byte // the encoded message without its data
	data   []byte
	digest [sha256.Size]byte
	acked  uint64 // bytes that the member is known to hold
}

func (p *peer) newOutgoing(m *raftpb.Message) (*outgoing, error) {
	data, err := p.sink.Snapshot(m.GetSnapshot().GetMetadata())
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	head, err := proto.Marshal(&raftpb.Message{
		Type: m.Type, To: m.To, From: m.From, Term: m.Term, Index: m.Index, LogTerm: m.LogTerm, Commit: m.Commit,
		Snapshot: &raftpb.Snapshot{Metadata: m.GetSnapshot().GetMetadata()},
	})
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return &outgoing{head: head, data: data, digest: sha256.Sum256(data)}, nil
}

func (p *peer) runSnapshots(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-p.snapshots:
			err := p.sendSnapshot(ctx, m)
			if err != nil && ctx.Err() == nil {
				p.logger.Warn("raft snapshot not sent", "node", p.member.GetNodeId(), "error", err)
				p.failed(err)
			}
			p.sink.SnapshotSent(p.member.GetRaftId(), err == nil)
		}
	}
}

// sendSnapshot sends a snapshot over a connection of its own, so that what waits in its buffers delays no heartbeat. A stream that
// breaks is taken up again where it was, as long as there is progress.
func (p *peer) sendSnapshot(ctx context.Context, m *raftpb.Message) error {
	conn, err := p.dial(p.member.GetNodeId(), p.member.GetAddress(), dialOptions()...)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := api.NewRaftClient(conn)
	out, err := p.newOutgoing(m)
	if err != nil {
		return err
	}
	for idle := 0; ; idle++ {
		before := out.acked
		err := p.resume(ctx, client, out)
		if status.Code(err) == codes.Unimplemented { // a manager of a version that can't resume
			return p.sendWhole(ctx, client, out)
		}
		if err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		if out.acked > before {
			idle = 0
		}
		if idle == idleTries-1 || !sleep(ctx, minBackoff<<min(idle, 3)) {
			return err
		}
		p.logger.Info("raft snapshot goes on", "node", p.member.GetNodeId(), "sent", out.acked, "of", len(out.data), "error", err)
	}
}

// passing reports whether a stream broke for a reason that may pass.
func passing(err error) bool {
	return status.Code(err) == codes.Unavailable || errors.Is(err, errStuck)
}

// patience ends a stream that stands still.
type patience struct{ timer *time.Timer }

// withPatience returns a context that ends with errStuck unless progress is called every stallTimeout.
func withPatience(ctx context.Context) (context.Context, patience, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := patience{time.AfterFunc(stallTimeout, func() { cancel(errStuck) })}
	return ctx, p, func() {
		p.timer.Stop()
		cancel(nil)
	}
}

func (p patience) progress() { p.timer.Reset(stallTimeout) }

// reason returns why a call on ctx failed: that it stood still, or what the other side says.
func reason(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStuck) {
		return errStuck
	}
	return err
}

// resume sends what the member does not hold yet.
func (p *peer) resume(ctx context.Context, client api.RaftClient, out *outgoing) (err error) {
	ctx, wait, done := withPatience(ctx)
	defer done()
	defer func() { err = reason(ctx, err) }()
	stream, err := client.ResumeSnapshot(ctx)
	if err != nil {
		return err
	}
	first := &api.ResumeSnapshotRequest{Message: out.head, Sha256: out.digest[:], Size: uint64(len(out.data))}
	if err := stream.Send(first); err != nil {
		return answerOf(stream)
	}
	held, err := stream.Recv()
	if err != nil {
		return err
	}
	if held.GetOffset() > uint64(len(out.data)) {
		return fmt.Errorf("the member says that it holds %d of %d bytes", held.GetOffset(), len(out.data))
	}
	out.acked = max(out.acked, held.GetOffset())
	err = p.chunks(ctx, wait, out.data[held.GetOffset():], func(chunk []byte) error {
		return stream.Send(&api.ResumeSnapshotRequest{Data: chunk})
	})
	if err != nil {
		return answerOf(stream)
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return answerOf(stream)
}

// answerOf returns why a stream ended: nil when the snapshot was taken.
func answerOf(stream grpc.BidiStreamingClient[api.ResumeSnapshotRequest, api.ResumeSnapshotResponse]) error {
	_, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// sendWhole sends a snapshot to a manager of a version that can't resume.
func (p *peer) sendWhole(ctx context.Context, client api.RaftClient, out *outgoing) (err error) {
	ctx, wait, done := withPatience(ctx)
	defer done()
	defer func() { err = reason(ctx, err) }()
	stream, err := client.SendSnapshot(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&api.SendSnapshotRequest{Message: out.head}); err == nil {
		// An error comes with the answer.
		_ = p.chunks(ctx, wait, out.data, func(chunk []byte) error { return stream.Send(&api.SendSnapshotRequest{Data: chunk}) })
	}
	_, err = stream.CloseAndRecv()
	return err
}

// chunks sends data in chunks, no faster than the rate allows.
func (p *peer) chunks(ctx context.Context, wait patience, data []byte, send func([]byte) error) error {
	for len(data) > 0 {
		chunk := data[:min(len(data), chunkSize)]
		if err := p.rate.WaitN(ctx, len(chunk)); err != nil {
			return err
		}
		if err := send(chunk); err != nil {
			return err
		}
		wait.progress()
		data = data[len(chunk):]
	}
	return nil
}
