package view

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skep-io/skep/api"
)

// Image is an image in a node's store.
type Image struct {
	// ID is the digest of the manifest.
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Created      time.Time
	LoadedAt     time.Time
	ConfigDigest string
	Size         int64
	Architecture string
	Os           string
	// Config is how the image's process runs, or nil where it was not asked for.
	Config *ImageConfig `json:",omitempty"`
	RootFS *RootFS      `json:",omitempty"`
}

// ImageConfig is what OCI defines, and what Docker adds.
type ImageConfig struct {
	ocispec.ImageConfig
	Healthcheck *Healthcheck `json:",omitempty"`
	Shell       []string     `json:",omitempty"`
}

// RootFS lists the digests of the layers.
type RootFS struct {
	Type   string
	Layers []string
}

// NewImage shows an image.
func NewImage(i *api.ImageInfo) Image {
	out := Image{
		ID: i.GetDigest(), RepoTags: []string{}, RepoDigests: []string{}, Created: timeOf(i.GetCreatedAt()),
		LoadedAt: timeOf(i.GetLoadedAt()), ConfigDigest: i.GetConfigDigest(), Size: i.GetSizeBytes(),
		Architecture: i.GetPlatform().GetArchitecture(), Os: i.GetPlatform().GetOs(),
	}
	for _, ref := range i.GetReferences() {
		out.RepoTags = append(out.RepoTags, Familiar(ref))
	}
	for _, name := range repositories(i.GetReferences()) {
		out.RepoDigests = append(out.RepoDigests, name+"@"+i.GetDigest())
	}
	return out
}

// WithDetails adds what the OCI configuration, JSON, says of the process, and the layers.
func (i Image) WithDetails(config []byte, layers []string) (Image, error) {
	var image struct {
		Config ImageConfig `json:"config"`
	}
	if err := json.Unmarshal(config, &image); err != nil {
		return Image{}, fmt.Errorf("read configuration of image %s: %w", i.ID, err)
	}
	i.Config = &image.Config
	i.RootFS = &RootFS{Type: "layers", Layers: layers}
	return i, nil
}

// repositories returns the familiar names of the references without tags, each once, in their order.
func repositories(refs []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, ref := range refs {
		name, _ := SplitTag(ref)
		if name != "" && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}

// Familiar returns a normalised reference as people type it: without docker.io and library. Other text stays as it is.
func Familiar(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(named)
}

// SplitTag returns the familiar repository and the tag of a reference; each may be "".
func SplitTag(ref string) (repository, tag string) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", ""
	}
	if tagged, ok := named.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	return reference.FamiliarName(named), tag
}

// ShortImage returns a service's image as a list shows it: familiar, and without the digest that the server added to a tag.
func ShortImage(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	if tagged, ok := named.(reference.Tagged); ok {
		return reference.FamiliarName(named) + ":" + tagged.Tag()
	}
	return reference.FamiliarString(named)
}

// ShortDigest returns the first 12 hex digits of a digest.
func ShortDigest(digest string) string {
	_, hex, found := strings.Cut(digest, ":")
	if !found {
		hex = digest
	}
	return ShortID(hex)
}

// shortID is the length of an abbreviated id, as in Docker.
const shortID = 12

// ShortID returns the first 12 characters of an id.
func ShortID(id string) string {
	if len(id) <= shortID {
		return id
	}
	return id[:shortID]
}
