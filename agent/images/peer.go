package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
	"github.com/skep-io/skep/internal/fault"
)

// Image is an image of this node that is unpacked and won't go away.
type Image struct {
	// Digest is that of its manifest.
	Digest string
	// Layers are its directories, the topmost first.
	Layers []string
	// Config says what to run.
	Config manifest.ProgramConfig
	// Release gives the image back; never nil.
	Release func()
}

// Peer gets images from other nodes.
type Peer struct {
	// Store is this node's; never nil.
	Store *image.Store
	// NodeID is this node's.
	NodeID string
	// Locate asks a manager which nodes have an image; never nil.
	Locate func(ctx context.Context, digest string) ([]*api.ImageHolder, error)
	// Dial returns a connection to the Agent service of a node; never nil.
	Dial func(nodeID, address string) (*grpc.ClientConn, error)
	// Logger is told of peers that fail; never nil.
	Logger *slog.Logger
}

// Acquire returns an image by a reference such as name:tag@digest, or by a digest, after fetching it if it isn't here.
func (p *Peer) Acquire(ctx context.Context, name string) (Image, error) {
	d, tag, err := p.identify(ctx, name)
	if err != nil {
		return Image{}, err
	}
	root, release, err := p.Store.Rootfs(ctx, d)
	if errors.Is(err, image.ErrNotFound) {
		if err := p.fetch(ctx, d, tag, name); err != nil {
			return Image{}, err
		}
		root, release, err = p.Store.Rootfs(ctx, d)
	}
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", name, err)
	}
	return Image{Digest: root.Digest.String(), Layers: root.Layers, Config: root.Config.Config, Release: release}, nil
}

// identify returns the digest of what a name means, and the name with a tag that the image is to have here, or "".
func (p *Peer) identify(ctx context.Context, name string) (d digest.Digest, tag string, err error) {
	if d := digest.Digest(name); d.Validate() == nil {
		return d, "", nil
	}
	ref, err := reference.Parse(name)
	if err != nil {
		return "", "", fault.Wrap(fault.Invalid, err)
	}
	if d := ref.Digest(); d != "" {
		return d, p.freeTag(ctx, ref), nil
	}
	d, err = p.Store.Resolve(ctx, name)
	if errors.Is(err, image.ErrNotFound) {
		return "", "", missing(name)
	}
	return d, "", err
}

// freeTag returns the name and tag of a reference, unless another image has them here.
func (p *Peer) freeTag(ctx context.Context, ref reference.Reference) string {
	name, _, _ := strings.Cut(ref.String(), "@")
	if ref.Tag() == "" {
		return ""
	}
	if _, err := p.Store.Resolve(ctx, name); !errors.Is(err, image.ErrNotFound) {
		return ""
	}
	return name
}

func missing(name string) error {
	return fault.New(fault.NotFound, "No such image: %s: no node of the swarm has it; load it on one with `skep image load`", name)
}

// fetch gets an image from the first node that can hand it out.
func (p *Peer) fetch(ctx context.Context, d digest.Digest, tag, name string) error {
	holders, err := p.Locate(ctx, d.String())
	if err != nil {
		return fmt.Errorf("find image %s: %w", name, err)
	}
	var refs []string
	if tag != "" {
		refs = []string{tag}
	}
	tried := 0
	for _, h := range holders {
		if h.GetNodeId() == p.NodeID || h.GetPeerAddress() == "" {
			continue
		}
		tried++
		if err = p.fetchFrom(ctx, h, d, refs); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.Logger.Warn("could not get an image from a node", "image", name, "node", h.GetNodeId(), "error", err)
	}
	if tried == 0 {
		return missing(name)
	}
	return fault.New(fault.Unavailable, "get image %s from %d nodes that have it: %w", name, tried, fault.FromStatus(err))
}

func (p *Peer) fetchFrom(ctx context.Context, h *api.ImageHolder, d digest.Digest, refs []string) error {
	conn, err := p.Dial(h.GetNodeId(), h.GetPeerAddress())
	if err != nil {
		return err
	}
	defer conn.Close()
	return p.Store.Fetch(ctx, d, refs, source{api.NewAgentClient(conn)})
}
