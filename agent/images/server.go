package images

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// chunkSize is the most bytes of a blob in one message.
	chunkSize = 256 << 10
	// maxPeers is the most blobs that are sent at a time (M3); others are told to come back.
	maxPeers = 32
	// maxSummaries is the most images in a node's description, which must fit the store's objects.
	maxSummaries = 512
)

// Server hands out the blobs of this node's images. Make one with NewServer.
type Server struct {
	store *image.Store
	// places has room for one value per blob that is being sent.
	places chan struct{}
}

// NewServer returns a server of a store's images.
func NewServer(store *image.Store) *Server {
	return &Server{store: store, places: make(chan struct{}, maxPeers)}
}

// Send sends a blob from an offset on in chunks. When send fails, it returns its error.
func (s *Server) Send(ctx context.Context, r *api.GetBlobRequest, send func(*api.GetBlobResponse) error) error {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		return fault.New(fault.Unavailable, "this node sends %d blobs already: ask again, or another node", maxPeers)
	}
	blob, size, err := s.store.Blob(ctx, digest.Digest(r.GetDigest()))
	if errors.Is(err, image.ErrNotFound) {
		return fault.Wrap(fault.NotFound, err)
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	defer blob.Close()
	if r.GetOffset() < 0 || r.GetOffset() > size {
		return fault.New(fault.Invalid, "offset %d is not within the %d bytes of blob %s", r.GetOffset(), size, r.GetDigest())
	}
	if _, err := blob.Seek(r.GetOffset(), io.SeekStart); err != nil {
		return err
	}
	return chunks(ctx, blob, size, send)
}

func chunks(ctx context.Context, blob io.Reader, size int64, send func(*api.GetBlobResponse) error) error {
	for first := true; ; first = false {
		data := make([]byte, chunkSize) // gRPC may keep the last one
		n, err := io.ReadFull(blob, data)
		if n > 0 || first {
			m := &api.GetBlobResponse{Data: data[:n]}
			if first {
				m.SizeBytes = size
			}
			if err := send(m); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// Summaries returns the images that this node can hand out, the newest first, at most 512.
func Summaries(ctx context.Context, store *image.Store) ([]*api.ImageSummary, error) {
	all, err := store.List(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b image.Image) int { return cmp.Compare(b.Loaded.UnixNano(), a.Loaded.UnixNano()) })
	var out []*api.ImageSummary
	for _, i := range all[:min(len(all), maxSummaries)] {
		out = append(out, &api.ImageSummary{
			Digest: i.Digest.String(), References: i.References, SizeBytes: i.Size, LoadedAt: timestamppb.New(i.Loaded),
			Platform: &api.Platform{Os: i.Platform.OS, Architecture: i.Platform.Architecture},
		})
	}
	return out, nil
}
