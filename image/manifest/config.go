package manifest

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is an image's config: its platform, what its program is started with,
// and the digests of its uncompressed layers.
type Config = ocispec.Image

// ParseConfig reads a config and checks it against its manifest (I4). A config
// without a platform, as old tools wrote it, is taken to be for the host.
func ParseConfig(data []byte, m Manifest) (Config, error) {
	if len(data) > MaxDocument {
		return Config{}, fmt.Errorf("%w: config of %d bytes, the limit is %d", ErrInvalid, len(data), MaxDocument)
	}
	var config Config
	if err := json.Unmarshal(data, &config); err != nil {
		return Config{}, fmt.Errorf("%w: config is not JSON: %s", ErrInvalid, err)
	}
	if config.RootFS.Type != "layers" && (config.RootFS.Type != "" || len(m.Layers) > 0) {
		return Config{}, fmt.Errorf("%w: config has rootfs type %q, expected \"layers\"", ErrInvalid, config.RootFS.Type)
	}
	if got, want := len(config.RootFS.DiffIDs), len(m.Layers); got != want {
		return Config{}, fmt.Errorf("%w: config names %d layers, the manifest %d", ErrInvalid, got, want)
	}
	for n, d := range config.RootFS.DiffIDs {
		if err := check(Descriptor{Digest: d}, -1); err != nil {
			return Config{}, fmt.Errorf("diffID %d: %w", n+1, err)
		}
	}
	host := Host()
	if config.OS == "" {
		config.OS = host.OS
	}
	if config.Architecture == "" {
		config.Architecture = host.Architecture
	}
	if config.OS != "linux" {
		return Config{}, fmt.Errorf("%w: it is for %s; Skep runs linux images", ErrUnsupported, PlatformString(config.Platform))
	}
	return config, nil
}

// ChainIDs returns, for each layer, the digest that names it together with all
// layers below it. Two images that share their lower layers share these.
func ChainIDs(diffIDs []digest.Digest) []digest.Digest {
	chain := make([]digest.Digest, len(diffIDs))
	for n, d := range diffIDs {
		if n == 0 {
			chain[n] = d
			continue
		}
		chain[n] = digest.FromString(chain[n-1].String() + " " + d.String())
	}
	return chain
}
