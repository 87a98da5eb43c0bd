package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skep-io/skep/image/compression"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

// RootfsConfig says what the image of an imported root filesystem is like.
type RootfsConfig struct {
	Platform manifest.Platform   // the host's by default
	Config   ocispec.ImageConfig // what to run
	Created  time.Time           // zero leaves it out, and the digest depends on the tar alone
	Comment  string              // for the image's history
}

// Import makes an image with one layer from the tar of a root filesystem, which
// is kept as it is, compressed or not.
func Import(ctx context.Context, r io.Reader, sink Sink, ref reference.Reference, cfg RootfsConfig, opts Options) (Image, error) {
	opts = opts.withDefaults()
	desc, err := sink.Put(ctx, r, "", opts.MaxBytes)
	if err != nil {
		return Image{}, err
	}
	diffID, kind, err := inspectRootfs(ctx, sink, desc.Digest, opts.MaxBytes)
	if err != nil {
		return Image{}, err
	}
	config, err := putConfig(ctx, sink, cfg, diffID)
	if err != nil {
		return Image{}, err
	}
	layer := manifest.Descriptor{MediaType: kind.LayerType(), Digest: desc.Digest, Size: desc.Size}
	data, err := manifest.Build(config, []manifest.Descriptor{layer})
	if err != nil {
		return Image{}, err
	}
	m, err := putBytes(ctx, sink, data)
	if err != nil {
		return Image{}, err
	}
	return Image{Manifest: m.Digest, References: []reference.Reference{ref}}, nil
}

// inspectRootfs reads the whole tar once, for its diffID and to see that it is
// one.
func inspectRootfs(ctx context.Context, sink Sink, d digest.Digest, maxBytes int64) (digest.Digest, compression.Kind, error) {
	r, err := sink.Open(d)
	if err != nil {
		return "", "", err
	}
	defer r.Close()
	plain, kind, err := compression.NewReader(r)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrNotRootfs, err)
	}
	defer plain.Close()
	hash := digest.Canonical.Digester()
	stream := io.TeeReader(&limited{plain, maxBytes}, hash.Hash())
	tr := tar.NewReader(stream)
	for n := 0; ; n++ {
		if err := context.Cause(ctx); err != nil {
			return "", "", err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) && n > 0 {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return "", "", fmt.Errorf("%w: it is not a tar, empty, or damaged: %w", ErrNotRootfs, err)
		}
		if name := clean(h.Name); name == layoutFile || name == "repositories" {
			return "", "", fmt.Errorf("%w: it is an image archive; use `skep image load`", ErrNotRootfs)
		}
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return "", "", err
	}
	return hash.Digest(), kind, nil
}

func putConfig(ctx context.Context, sink Sink, cfg RootfsConfig, diffID digest.Digest) (manifest.Descriptor, error) {
	if cfg.Platform.OS == "" {
		cfg.Platform = manifest.Host()
	}
	config := manifest.Config{
		Platform: cfg.Platform,
		Config:   manifest.ProgramConfig{ImageConfig: cfg.Config},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History:  []ocispec.History{{Comment: cfg.Comment}},
	}
	if !cfg.Created.IsZero() {
		created := cfg.Created.UTC()
		config.Created, config.History[0].Created = &created, &created
	}
	data, err := json.Marshal(config)
	if err != nil {
		return manifest.Descriptor{}, fmt.Errorf("build config: %w", err)
	}
	return putBytes(ctx, sink, data)
}

func putBytes(ctx context.Context, sink Sink, data []byte) (manifest.Descriptor, error) {
	desc, err := sink.Put(ctx, bytes.NewReader(data), digest.FromBytes(data), int64(len(data)))
	return manifest.Descriptor{Digest: desc.Digest, Size: desc.Size}, err
}
