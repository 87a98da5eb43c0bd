package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/internal/fault"
)

// stallTimeout is the time that a peer has for each chunk. One that takes longer is given up for the next.
const stallTimeout = 20 * time.Second

// errStalled is returned when a peer sends nothing for too long.
var errStalled = errors.New("the node stopped sending")

// source gets blobs from the Agent service of one node.
type source struct {
	client api.AgentClient
}

var _ image.RangeSource = source{}

// Blob implements [image.Source].
func (s source) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return s.BlobFrom(ctx, d, 0)
}

// BlobFrom implements [image.RangeSource].
func (s source) BlobFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stream, err := s.client.GetBlob(ctx, &api.GetBlobRequest{Digest: d.String(), Offset: offset})
	if err != nil {
		cancel(nil)
		return nil, fault.FromStatus(err)
	}
	return &blobReader{ctx: func() error { return context.Cause(ctx) }, cancel: cancel, stream: stream}, nil
}

// blobReader reads a stream of chunks.
type blobReader struct {
	// ctx returns why the stream was cancelled, or nil.
	ctx    func() error
	cancel context.CancelCauseFunc
	stream grpc.ServerStreamingClient[api.GetBlobResponse]
	chunk  []byte
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// next receives a chunk, within stallTimeout.
func (r *blobReader) next() error {
	stalled := time.AfterFunc(stallTimeout, func() { r.cancel(errStalled) })
	defer stalled.Stop()
	m, err := r.stream.Recv()
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		if cause := r.ctx(); cause != nil {
			return cause
		}
		return fmt.Errorf("receive blob: %w", fault.FromStatus(err))
	}
	r.chunk = m.GetData()
	return nil
}

// Close ends the stream.
func (r *blobReader) Close() error {
	r.cancel(nil)
	return nil
}
