package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestParallelOperationsKeepTheInvariants lets goroutines do random things to
// the same few images, and checks that a root filesystem stays whole while it
// is leased, and I1 to I5 in the end.
func TestParallelOperationsKeepTheInvariants(t *testing.T) {
	const workers, rounds = 4, 60
	base := layerOf(t, "base=1")
	var images []*built
	var archives [][]byte
	for n := range 3 {
		b := build(t, base, layerOf(t, fmt.Sprintf("file=%d", n)))
		images, archives = append(images, b), append(archives, b.tar(t, "app"))
	}
	s := open(t, scratch(t))
	var wg sync.WaitGroup
	for w := range workers {
		seed := rand.Uint64()
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			for range rounds {
				n := random.IntN(len(images))
				if err := disturb(t.Context(), s, random.IntN(8), images[n], archives[n]); err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
			}
		})
	}
	wg.Wait()
	check(t, s)
	if len(s.leases) != 0 {
		t.Errorf("leases are left: %v", s.leases)
	}
}

// disturb does one thing. That an image is missing or in use is no error here.
func disturb(ctx context.Context, s *Store, what int, b *built, archive []byte) error {
	var err error
	switch what {
	case 0:
		_, err = s.Load(ctx, bytes.NewReader(archive))
	case 1:
		err = s.Fetch(ctx, b.manifest, []string{"app@" + b.manifest.String()}, b)
	case 2:
		err = s.Remove(ctx, "app")
	case 3:
		_, err = s.Prune(ctx)
	case 4:
		_, err = s.GC(ctx)
	case 5:
		short, cancel := context.WithCancel(ctx)
		cancel()
		if err = s.Fetch(short, b.manifest, nil, b); errors.Is(err, context.Canceled) {
			err = nil
		}
	default:
		err = useRootfs(ctx, s, b)
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrInUse) {
		return nil
	}
	return err
}

// useRootfs looks whether every layer stays where it is while it is leased.
func useRootfs(ctx context.Context, s *Store, b *built) error {
	if os.Geteuid() != 0 {
		return nil
	}
	r, release, err := s.Rootfs(ctx, b.manifest)
	if err != nil {
		return err
	}
	defer release()
	if _, err := s.Prune(ctx); err != nil {
		return err
	}
	for n, name := range []string{"file", "base"} {
		if _, err := os.Stat(filepath.Join(r.Layers[n], name)); err != nil {
			return fmt.Errorf("a leased layer is gone: %w", err)
		}
	}
	return nil
}
