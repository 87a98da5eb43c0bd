package store

import (
	"fmt"

	"github.com/skep-io/skep/store/seal"
)

// Reseal makes kek the key that opens this manager's store, instead of the present one, which opens it no more. It returns once
// that is durable, does nothing when it is so already, and leaves the data and their keys as they are. A local store has
// nothing on disk, and nothing to do.
func (s *Store) Reseal(kek seal.Key, source seal.Source) error {
	if s.cluster == nil || s.cluster.wal.Ring().WrappedBy(kek, source) {
		return nil
	}
	if err := s.cluster.wal.Ring().Rewrap(kek, source); err != nil {
		return fmt.Errorf("seal the store with another key: %w", err)
	}
	return nil
}
