package manifest

import (
	"fmt"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is an operating system and a processor.
type Platform = ocispec.Platform

// Index is one image for several platforms.
type Index struct {
	Manifests []Descriptor
}

// Host returns the platform of this program.
func Host() Platform {
	return Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// PlatformString formats p as os/architecture[/variant].
func PlatformString(p Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

func (doc document) index() (*Index, error) {
	switch doc.MediaType {
	case "", ocispec.MediaTypeImageIndex, dockerIndex:
	default:
		return nil, fmt.Errorf("%w: manifest has media type %q", ErrUnsupported, doc.MediaType)
	}
	if len(doc.Manifests) == 0 {
		return nil, fmt.Errorf("%w: the index is empty", ErrInvalid)
	}
	if len(doc.Manifests) > maxManifests {
		return nil, fmt.Errorf("%w: the index has %d entries, the limit is %d", ErrUnsupported, len(doc.Manifests), maxManifests)
	}
	for n, d := range doc.Manifests {
		if err := check(d, MaxDocument); err != nil {
			return nil, fmt.Errorf("index entry %d: %w", n+1, err)
		}
	}
	return &Index{Manifests: doc.Manifests}, nil
}

// Select returns the manifest for want. Among several the one with want's
// variant is taken, then one without a variant, then the first. An entry that
// names no platform is taken only when nothing else matches. The error is
// [ErrPlatform] and lists what there is.
func (i Index) Select(want Platform) (Descriptor, error) {
	best, bestScore := Descriptor{}, 0
	var have []string
	for _, d := range i.Images() {
		if score := score(d.Platform, want); score > bestScore {
			best, bestScore = d, score
		}
		if d.Platform != nil {
			have = append(have, PlatformString(*d.Platform))
		}
	}
	if bestScore == 0 {
		return Descriptor{}, fmt.Errorf("%w: it has %s, this node is %s", ErrPlatform, strings.Join(have, ", "), PlatformString(want))
	}
	return best, nil
}

// Images returns the entries that are images.
func (i Index) Images() []Descriptor {
	var images []Descriptor
	for _, d := range i.Manifests {
		if isImage(d) {
			images = append(images, d)
		}
	}
	return images
}

// isImage tells images from what build tools keep beside them, such as
// provenance attestations.
func isImage(d Descriptor) bool {
	if d.Annotations["vnd.docker.reference.type"] != "" || d.ArtifactType != "" {
		return false
	}
	return d.MediaType == "" || d.MediaType == ocispec.MediaTypeImageManifest || d.MediaType == dockerManifest
}

func score(have *Platform, want Platform) int {
	switch {
	case have == nil:
		return 1
	case have.OS != want.OS || have.Architecture != want.Architecture:
		return 0
	case variant(*have) == variant(want):
		return 4
	case have.Variant == "":
		return 3
	default:
		return 2
	}
}

// variant fills in what arm64 leaves unsaid.
func variant(p Platform) string {
	if p.Architecture == "arm64" && p.Variant == "" {
		return "v8"
	}
	return p.Variant
}
