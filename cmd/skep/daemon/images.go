package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/image/archive"
	"github.com/skep-io/skep/image/reference"
	"github.com/skep-io/skep/image/unpack"
	"github.com/skep-io/skep/internal/fault"
)

// loadBuiltin stores the built-in image, so that a first service needs no registry and no file.
func (d *Daemon) loadBuiltin(ctx context.Context) error {
	if d.cfg.BuiltinImage == "" {
		return nil
	}
	file, err := os.Open(d.cfg.BuiltinImage)
	if errors.Is(err, os.ErrNotExist) {
		d.logger.Warn("the built-in image is not installed", "path", d.cfg.BuiltinImage)
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the built-in image: %w", err)
	}
	defer file.Close()
	if _, err := d.images.Load(ctx, file); err != nil {
		return fmt.Errorf("load the built-in image %s: %w", d.cfg.BuiltinImage, err)
	}
	return nil
}

// LoadImage stores the images of an archive.
func (d *Daemon) LoadImage(stream api.Daemon_LoadImageServer) error {
	loaded, err := d.images.Load(stream.Context(), &chunks{next: func() ([]byte, error) {
		request, err := stream.Recv()
		return request.GetData(), err
	}})
	if err != nil {
		return imageFault(err)
	}
	response := &api.LoadImageResponse{}
	for _, img := range loaded {
		response.Images = append(response.Images, imageInfo(img))
	}
	d.announce(stream.Context())
	return stream.SendAndClose(response)
}

// ImportImage makes an image of a root file system.
func (d *Daemon) ImportImage(stream api.Daemon_ImportImageServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	pending := first.GetData()
	imported, err := d.images.Import(stream.Context(), &chunks{next: func() ([]byte, error) {
		if len(pending) > 0 {
			data := pending
			pending = nil
			return data, nil
		}
		request, err := stream.Recv()
		return request.GetData(), err
	}}, first.GetReference(), archive.RootfsConfig{})
	if err != nil {
		return imageFault(err)
	}
	d.announce(stream.Context())
	return stream.SendAndClose(&api.ImportImageResponse{Image: imageInfo(imported)})
}

// announcePatience bounds how long a new image waits for the managers to hear of it. They hear of it anyway, a little later.
const announcePatience = 2 * time.Second

// announce tells the managers of a new image before its user does, so that a service can be created from it at once.
func (d *Daemon) announce(ctx context.Context) {
	n, err := d.node()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, announcePatience)
	defer cancel()
	if err := n.announce(ctx); err != nil {
		d.logger.Info("the managers will hear of the new image later", "reason", err)
	}
}

// chunks is the content of a client stream as a reader.
type chunks struct {
	next func() ([]byte, error)
	rest []byte
}

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		data, err := c.next()
		if err != nil {
			return 0, err
		}
		c.rest = data
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

var _ io.Reader = (*chunks)(nil)

// ListImages returns all images of this node.
func (d *Daemon) ListImages(ctx context.Context, _ *api.ListImagesRequest) (*api.ListImagesResponse, error) {
	all, err := d.images.List(ctx)
	if err != nil {
		return nil, imageFault(err)
	}
	response := &api.ListImagesResponse{}
	for _, img := range all {
		response.Images = append(response.Images, imageInfo(img))
	}
	return response, nil
}

// GetImage returns one image with its configuration.
func (d *Daemon) GetImage(ctx context.Context, request *api.GetImageRequest) (*api.GetImageResponse, error) {
	details, err := d.images.Inspect(ctx, request.GetImage())
	if err != nil {
		return nil, imageFault(err)
	}
	config, err := json.Marshal(details.Config)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of %s: %w", request.GetImage(), err)
	}
	response := &api.GetImageResponse{Image: imageInfo(details.Image), Config: config}
	for _, layer := range details.Layers {
		response.Layers = append(response.Layers, string(layer.Digest))
	}
	return response, nil
}

// RemoveImage takes a reference from an image, and removes the image with its last one.
func (d *Daemon) RemoveImage(ctx context.Context, request *api.RemoveImageRequest) (*api.RemoveImageResponse, error) {
	if err := d.imagesKept(ctx); err != nil {
		return nil, err
	}
	before, err := d.images.Inspect(ctx, request.GetImage())
	if err != nil {
		return nil, imageFault(err)
	}
	if err := d.images.Remove(ctx, request.GetImage()); err != nil {
		return nil, imageFault(err)
	}
	response := &api.RemoveImageResponse{}
	left, err := d.images.Inspect(ctx, string(before.Digest))
	switch {
	case errors.Is(err, image.ErrNotFound):
		response.Deleted = []string{string(before.Digest)}
	case err != nil:
		return nil, imageFault(err)
	}
	response.Untagged = without(before.References, left.References)
	return response, nil
}

// imagesKept waits until the containers that outlived the last run of the daemon hold their images, which could be removed before.
func (d *Daemon) imagesKept(ctx context.Context) error {
	n, err := d.node()
	if errors.Is(err, errNotMember) { // then there are none
		return nil
	}
	if err != nil {
		return fmt.Errorf("containers may run whose images this node does not know yet: %w", err)
	}
	return n.imagesKept(ctx)
}

// without returns those of all that are not among left.
func without(all, left []string) []string {
	stays := map[string]bool{}
	for _, name := range left {
		stays[name] = true
	}
	var out []string
	for _, name := range all {
		if !stays[name] {
			out = append(out, name)
		}
	}
	return out
}

func imageInfo(img image.Image) *api.ImageInfo {
	info := &api.ImageInfo{
		Digest: img.Digest.String(), ConfigDigest: img.ConfigDigest.String(), References: img.References, SizeBytes: img.Size,
		LoadedAt: timestamppb.New(img.Loaded),
		Platform: &api.Platform{Os: img.Platform.OS, Architecture: img.Platform.Architecture},
	}
	if !img.Created.IsZero() {
		info.CreatedAt = timestamppb.New(img.Created)
	}
	return info
}

// imageFault gives an error of the image store its kind.
func imageFault(err error) error {
	for _, row := range []struct {
		sentinel error
		kind     fault.Kind
	}{
		{image.ErrNotFound, fault.NotFound},
		{image.ErrAmbiguous, fault.Invalid},
		{image.ErrInUse, fault.Precondition},
		{reference.ErrInvalid, fault.Invalid},
		{archive.ErrInvalid, fault.Invalid},
		{archive.ErrNotArchive, fault.Invalid},
		{archive.ErrNotRootfs, fault.Invalid},
		{unpack.ErrLayer, fault.Invalid},
		{unpack.ErrLimit, fault.Exhausted},
		{digest.ErrDigestInvalidFormat, fault.Invalid},
	} {
		if errors.Is(err, row.sentinel) {
			return fault.Wrap(row.kind, err)
		}
	}
	return err
}
