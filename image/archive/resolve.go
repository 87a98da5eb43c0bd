package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/compression"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

// containerdName is the annotation in which Docker and containerd keep the whole
// name of an image; ocispec.AnnotationRefName is often its tag alone.
const containerdName = "io.containerd.image.name"

// source is an archive of which the documents can be read.
type source interface {
	// Document returns a document at the top, or nil when there is none.
	Document(name string) ([]byte, error)
	// Blob makes sure that the sink has a blob of that size.
	Blob(ctx context.Context, d digest.Digest, size int64) error
	// File returns the blob that a file of manifest.json became.
	File(name string) (blob.Descriptor, error)
}

// saved is one image of manifest.json.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// resolve returns the images of a source. An OCI layout comes first, because its
// manifests keep their digests; manifest.json then only adds names.
func resolve(ctx context.Context, src source, sink Sink, p manifest.Platform) ([]Image, error) {
	index, err := src.Document(indexFile)
	if err != nil {
		return nil, err
	}
	list, err := src.Document(manifestFile)
	if err != nil {
		return nil, err
	}
	var entries []saved
	if list != nil {
		if err := json.Unmarshal(list, &entries); err != nil {
			return nil, fmt.Errorf("%w: %s: %s", ErrInvalid, manifestFile, err)
		}
	}
	if index == nil && len(entries) == 0 {
		return nil, fmt.Errorf("%w: it has neither %s nor %s; for the tar of a root filesystem use `skep image import`",
			ErrNotArchive, indexFile, manifestFile)
	}
	o := resolver{src, sink, p}
	if index != nil {
		return o.layout(ctx, index, entries)
	}
	return o.docker(ctx, entries)
}

type resolver struct {
	src      source
	sink     Sink
	platform manifest.Platform
}

// layout resolves index.json.
func (o resolver) layout(ctx context.Context, data []byte, entries []saved) ([]Image, error) {
	if err := o.checkLayout(); err != nil {
		return nil, err
	}
	doc, err := manifest.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	if doc.Index == nil {
		return nil, fmt.Errorf("%w: %s is not an index", ErrInvalid, indexFile)
	}
	names, err := namesByConfig(o.src, entries)
	if err != nil {
		return nil, err
	}
	var images []Image
	for _, entry := range doc.Index.Manifests {
		if entry.ArtifactType != "" || entry.Annotations["vnd.docker.reference.type"] != "" {
			continue // a signature or an SBOM beside the images
		}
		img, m, err := o.image(ctx, entry)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", entry.Digest, err)
		}
		if img.References, err = annotated(entry); err != nil {
			return nil, err
		}
		img.addReferences(names[m.Config.Digest]...)
		if images, err = add(images, img); err != nil {
			return nil, err
		}
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("%w: it holds no image", ErrInvalid)
	}
	return images, nil
}

// checkLayout accepts version 1 and a missing oci-layout, as others do.
func (o resolver) checkLayout() error {
	data, err := o.src.Document(layoutFile)
	if err != nil || data == nil {
		return err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(data, &layout); err != nil {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, layoutFile, err)
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return fmt.Errorf("%w: OCI layout version %.20q, expected 1.0.0", ErrInvalid, layout.Version)
	}
	return nil
}

// image resolves one entry of index.json down to its layers (I1).
func (o resolver) image(ctx context.Context, entry manifest.Descriptor) (Image, manifest.Manifest, error) {
	doc, err := o.document(ctx, entry)
	if err != nil {
		return Image{}, manifest.Manifest{}, err
	}
	if doc.Manifest != nil {
		return Image{Manifest: entry.Digest}, *doc.Manifest, o.complete(ctx, *doc.Manifest)
	}
	chosen, err := doc.Index.Select(o.platform)
	if err != nil {
		return Image{}, manifest.Manifest{}, err
	}
	m, err := o.platformImage(ctx, chosen)
	if err != nil {
		return Image{}, manifest.Manifest{}, err
	}
	others, err := o.others(ctx, *doc.Index, chosen.Digest)
	return Image{Manifest: chosen.Digest, Index: entry.Digest, Others: others}, m, err
}

// others returns the other platforms of an index that are there in full.
func (o resolver) others(ctx context.Context, index manifest.Index, chosen digest.Digest) ([]digest.Digest, error) {
	var found []digest.Digest
	for _, d := range index.Images() {
		if d.Digest == chosen {
			continue
		}
		_, err := o.platformImage(ctx, d)
		if errors.Is(err, errMissing) || errors.Is(err, manifest.ErrUnsupported) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, d.Digest)
	}
	return found, nil
}

// platformImage resolves one entry of an image's index.
func (o resolver) platformImage(ctx context.Context, d manifest.Descriptor) (manifest.Manifest, error) {
	doc, err := o.document(ctx, d)
	if err != nil {
		return manifest.Manifest{}, err
	}
	if doc.Manifest == nil {
		return manifest.Manifest{}, fmt.Errorf("%w: an index within an index", ErrInvalid)
	}
	return *doc.Manifest, o.complete(ctx, *doc.Manifest)
}

// complete makes sure that everything a manifest names is there and fits.
func (o resolver) complete(ctx context.Context, m manifest.Manifest) error {
	for _, d := range m.Blobs() {
		if err := o.src.Blob(ctx, d.Digest, d.Size); err != nil {
			return err
		}
	}
	return o.checkConfig(m)
}

func (o resolver) document(ctx context.Context, d manifest.Descriptor) (manifest.Document, error) {
	if err := o.src.Blob(ctx, d.Digest, d.Size); err != nil {
		return manifest.Document{}, err
	}
	data, err := o.sink.ReadAll(d.Digest, manifest.MaxDocument)
	if err != nil {
		return manifest.Document{}, err
	}
	return manifest.Parse(data)
}

func (o resolver) checkConfig(m manifest.Manifest) error {
	data, err := o.sink.ReadAll(m.Config.Digest, manifest.MaxDocument)
	if err != nil {
		return err
	}
	_, err = manifest.ParseConfig(data, m)
	return err
}

// annotated returns the name that an entry of index.json carries. A bare tag
// names nothing, so such an image is loaded without a name.
func annotated(entry manifest.Descriptor) ([]reference.Reference, error) {
	name := entry.Annotations[containerdName]
	if name == "" {
		name = entry.Annotations[ocispec.AnnotationRefName]
		if !strings.ContainsAny(name, "/:") {
			return nil, nil
		}
	}
	ref, err := reference.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return []reference.Reference{ref}, nil
}

// namesByConfig returns the names in manifest.json by their config's digest.
func namesByConfig(src source, entries []saved) (map[digest.Digest][]reference.Reference, error) {
	names := map[digest.Digest][]reference.Reference{}
	for _, entry := range entries {
		config, err := src.File(entry.Config)
		if err != nil {
			continue // names an image of another platform, which was left out
		}
		refs, err := parseNames(entry.RepoTags)
		if err != nil {
			return nil, err
		}
		names[config.Digest] = append(names[config.Digest], refs...)
	}
	return names, nil
}

func parseNames(tags []string) ([]reference.Reference, error) {
	var refs []reference.Reference
	for _, tag := range tags {
		ref, err := reference.Parse(tag)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, manifestFile, err)
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// docker resolves a manifest.json that comes without an OCI layout.
func (o resolver) docker(ctx context.Context, entries []saved) ([]Image, error) {
	var images []Image
	for n, entry := range entries {
		img, err := o.savedImage(ctx, entry)
		if err != nil {
			return nil, fmt.Errorf("image %d of %s: %w", n+1, manifestFile, err)
		}
		if images, err = add(images, img); err != nil {
			return nil, err
		}
	}
	return images, nil
}

// savedImage builds the manifest that the archive lacks (I2).
func (o resolver) savedImage(ctx context.Context, entry saved) (Image, error) {
	refs, err := parseNames(entry.RepoTags)
	if err != nil {
		return Image{}, err
	}
	config, err := o.src.File(entry.Config)
	if err != nil {
		return Image{}, err
	}
	if len(entry.Layers) > manifest.MaxLayers {
		return Image{}, fmt.Errorf("%w: %d layers, the limit is %d; squash it", manifest.ErrUnsupported, len(entry.Layers), manifest.MaxLayers)
	}
	m := manifest.Manifest{Config: manifest.Descriptor{Digest: config.Digest, Size: config.Size}}
	for _, name := range entry.Layers {
		layer, err := o.savedLayer(name)
		if err != nil {
			return Image{}, err
		}
		m.Layers = append(m.Layers, layer)
	}
	if err := o.checkSaved(m); err != nil {
		return Image{}, err
	}
	data, err := manifest.Build(m.Config, m.Layers)
	if err != nil {
		return Image{}, err
	}
	desc, err := o.sink.Put(ctx, bytes.NewReader(data), digest.FromBytes(data), int64(len(data)))
	if err != nil {
		return Image{}, err
	}
	return Image{Manifest: desc.Digest, References: refs}, nil
}

// savedLayer tells by its first bytes how a layer is compressed: manifest.json
// does not say.
func (o resolver) savedLayer(name string) (manifest.Descriptor, error) {
	desc, err := o.src.File(name)
	if err != nil {
		return manifest.Descriptor{}, err
	}
	r, err := o.sink.Open(desc.Digest)
	if err != nil {
		return manifest.Descriptor{}, err
	}
	defer r.Close()
	head, err := io.ReadAll(io.LimitReader(r, 6))
	if err != nil {
		return manifest.Descriptor{}, err
	}
	kind, err := compression.Detect(head)
	if err != nil {
		return manifest.Descriptor{}, fmt.Errorf("layer %.200q: %w", name, err)
	}
	return manifest.Descriptor{MediaType: kind.LayerType(), Digest: desc.Digest, Size: desc.Size}, nil
}

// checkSaved compares config and layers. A layer that is not compressed is its
// own diffID, so that a mix-up is found before anything is unpacked.
func (o resolver) checkSaved(m manifest.Manifest) error {
	data, err := o.sink.ReadAll(m.Config.Digest, manifest.MaxDocument)
	if err != nil {
		return err
	}
	config, err := manifest.ParseConfig(data, m)
	if err != nil {
		return err
	}
	for n, layer := range m.Layers {
		want := config.RootFS.DiffIDs[n]
		if layer.MediaType == ocispec.MediaTypeImageLayer && layer.Digest.Algorithm() == want.Algorithm() && layer.Digest != want {
			return fmt.Errorf("%w: layer %d hashes to %s, its config says %s", ErrInvalid, n+1, layer.Digest, want)
		}
	}
	return nil
}
