package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is an image's config: its platform, what its program is started with,
// and the digests of its uncompressed layers. It is OCI's, field for field and
// in its order, but for what Config has more.
type Config struct {
	Created *time.Time `json:"created,omitempty"`
	Author  string     `json:"author,omitempty"`
	Platform
	Config  ProgramConfig     `json:"config,omitempty"`
	RootFS  ocispec.RootFS    `json:"rootfs"`
	History []ocispec.History `json:"history,omitempty"`
}

// ProgramConfig says what an image's program is started with. Beside what OCI
// defines it has what Docker does, which build tools write into OCI images too.
type ProgramConfig struct {
	ocispec.ImageConfig
	// Healthcheck is how the image's author tells whether the program works;
	// nil when there is none.
	Healthcheck *Healthcheck `json:"Healthcheck,omitempty"`
	// Shell runs command lines; nil is /bin/sh -c.
	Shell []string `json:"Shell,omitempty"`
}

// Healthcheck is a Dockerfile's HEALTHCHECK. What is 0 was not said.
type Healthcheck struct {
	// Test is NONE, CMD and a program with its arguments, or CMD-SHELL and a
	// command line. Other first words are of engines that Skep does not know.
	Test []string `json:"Test,omitempty"`
	// In nanoseconds, as Docker writes them.
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// maxCheckWords bounds the words of a health check, and of a shell: they are
// the arguments of a program.
const maxCheckWords = 256

// check holds what a node acts on by itself, without its service asking, to I5.
func (c ProgramConfig) check() error {
	h := c.Healthcheck
	if len(c.Shell) > maxCheckWords || h != nil && len(h.Test) > maxCheckWords {
		return fmt.Errorf("%w: its health check or shell has more than %d words", ErrInvalid, maxCheckWords)
	}
	if h != nil && (min(h.Interval, h.Timeout, h.StartPeriod, h.StartInterval) < 0 || h.Retries < 0 || h.Retries > math.MaxInt32) {
		return fmt.Errorf("%w: a time or number of its health check is negative or too large", ErrInvalid)
	}
	return nil
}

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
	if err := config.Config.check(); err != nil {
		return Config{}, err
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
