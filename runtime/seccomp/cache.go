package seccomp

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxCached is how many filters a Cache keeps, of some 4 KB each: a node runs few profiles.
const maxCached = 64

// MaxProfile is how long the text of a profile may be, in bytes: a hundred times the default one's.
const MaxProfile = 1 << 20

// Cache compiles the texts of profiles, each once. The zero value is ready. All methods may be called at once.
type Cache struct {
	mu      sync.Mutex
	filters map[[sha256.Size]byte]*Filter // guarded by mu
}

// Compile gives the filter of a profile in JSON, as Compile of the package does, from the cache if the same text was
// compiled before. It keeps nothing of text. All calls must name the same GOARCH.
func (c *Cache) Compile(text []byte, goarch string) (*Filter, error) {
	key := sha256.Sum256(text)
	c.mu.Lock()
	f := c.filters[key]
	c.mu.Unlock()
	if f != nil {
		return f, nil
	}
	profile, err := decode(text)
	if err != nil {
		return nil, err
	}
	if f, err = Compile(profile, goarch); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.filters == nil || len(c.filters) >= maxCached { // whoever uses the old ones has them
		c.filters = make(map[[sha256.Size]byte]*Filter)
	}
	c.filters[key] = f
	return f, nil
}

func decode(text []byte) (*specs.LinuxSeccomp, error) {
	if len(text) > MaxProfile {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are possible", ErrProfile, len(text), MaxProfile)
	}
	var profile *specs.LinuxSeccomp
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&profile)
	if err == nil && d.InputOffset() != int64(len(text)) {
		err = errors.New("text after the profile")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProfile, err)
	}
	return profile, nil
}
