package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/image/unpack"
)

func rootfs(t testing.TB, s *Store, d digest.Digest) (Rootfs, func()) {
	t.Helper()
	r, release, err := s.Rootfs(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return r, release
}

// overlay mounts the layers read-only, as an executor would, and returns the
// regular files in it with their content.
func overlay(t *testing.T, layers []string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	lower := strings.Join(append(slices.Clone(layers), t.TempDir()), ":") // overlayfs wants two
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, "lowerdir="+lower); err != nil {
		t.Skipf("needs overlayfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestRootfs_LayersHideEachOther(t *testing.T) {
	needRoot(t)
	s := open(t, scratch(t))
	b := build(
		t, layerOf(t, "tmp/", "keep=1", "change=1", "gone=1", "opaque/old=1", "dir/old=1"),
		layerOf(t, "change=2", ".wh.gone=", "opaque/.wh..wh..opq=", "opaque/new=2", "tmp/x=2"),
	)
	load(t, s, b.tar(t, "app"))
	r, release := rootfs(t, s, b.manifest)
	defer release()
	want := map[string]string{"keep": "1", "change": "2", "opaque/new": "2", "dir/old": "1", "tmp/x": "2"}
	if diff := cmp.Diff(want, overlay(t, r.Layers)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(r.Layers[0], "tmp")); err != nil || info.Mode()&os.ModeSticky == 0 {
		t.Errorf("the upper layer's tmp has mode %v, %v, want it sticky as below", info.Mode(), err)
	}
	if r.Config.Config.User != "7" || r.Digest != b.manifest {
		t.Errorf("Rootfs = %+v", r)
	}
	check(t, s)
}

func TestRootfs_OpaqueRootHidesAllBelow(t *testing.T) {
	needRoot(t)
	s := open(t, scratch(t))
	b := build(t, layerOf(t, "old=1"), layerOf(t, ".wh..wh..opq=", "new=2"), layerOf(t, "top=3"))
	load(t, s, b.tar(t, "app"))
	for range 2 { // the second time from the database
		r, release := rootfs(t, s, b.manifest)
		release()
		if diff := cmp.Diff(map[string]string{"new": "2", "top": "3"}, overlay(t, r.Layers)); diff != "" {
			t.Errorf("merged (-want +got):\n%s", diff)
		}
	}
}

func TestRootfs_KeepsTheImageUntilReleased(t *testing.T) {
	needRoot(t)
	root := scratch(t)
	s := open(t, root)
	b := build(t, layerOf(t, "a=b"))
	load(t, s, b.tar(t, "app:1"))
	r, release := rootfs(t, s, b.manifest)
	if err := s.Remove(t.Context(), "app:1"); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove = %v, want ErrInUse", err)
	}
	load(t, s, build(t, layerOf(t, "c=d")).tar(t, "app:1")) // takes the reference away
	if _, err := s.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, s)
	if _, err := os.Stat(filepath.Join(r.Layers[0], "a")); err != nil {
		t.Error(err)
	}
	release()
	release()
	if freed, err := s.Prune(t.Context()); err != nil || freed.Layers != 1 || freed.Blobs != 3 {
		t.Errorf("Prune = %+v, %v, want 1 layer and 3 blobs", freed, err)
	}
	check(t, s)
}

func TestRootfs_UnpacksOnceForAll(t *testing.T) {
	needRoot(t)
	unpacked := 0
	var mu sync.Mutex
	s := open(t, scratch(t), withStep(func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		if step == "unpack layer" {
			unpacked++
		}
		return nil
	}))
	base := layerOf(t, "base=1")
	images := []*built{build(t, base, layerOf(t, "a=1")), build(t, base, layerOf(t, "b=1"))}
	for n, b := range images {
		load(t, s, b.tar(t, string(rune('a'+n))))
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			_, release, err := s.Rootfs(t.Context(), images[n%2].manifest)
			if err != nil {
				t.Error(err)
				return
			}
			release()
		})
	}
	wg.Wait()
	if unpacked != 3 {
		t.Errorf("unpacked %d layers, want 3", unpacked)
	}
	check(t, s)
}

func TestRootfs_RefusesALayerThatIsNotItsDiffID(t *testing.T) {
	needRoot(t)
	root := scratch(t)
	s := open(t, root)
	b := build(t, layerOf(t, "a=b"))
	evil := build(t, layerOf(t, "evil=1"))
	// b's manifest and config, but evil's layer.
	b.blobs[evil.layers[0]] = evil.blobs[evil.layers[0]]
	size := func(d digest.Digest) []byte { return fmt.Appendf(nil, `"%s","size":%d`, d, len(b.blobs[d])) }
	data := bytes.ReplaceAll(b.blobs[b.manifest], size(b.layers[0]), size(evil.layers[0]))
	fake := b.put("", data).Digest
	b.manifest = fake
	load(t, s, b.tar(t, "app"))
	if _, _, err := s.Rootfs(t.Context(), fake); !errors.Is(err, unpack.ErrDigest) {
		t.Errorf("Rootfs = %v, want ErrDigest", err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "layers/*")); len(left) != 0 {
		t.Errorf("layers/ holds %v", left)
	}
	if len(s.leases) != 0 {
		t.Errorf("leases %v", s.leases)
	}
}

// TestRootfs_UnpacksAgainWhatAPowerFailureMayHaveTorn opens a store in another
// boot, after a clean stop and after none.
func TestRootfs_UnpacksAgainWhatAPowerFailureMayHaveTorn(t *testing.T) {
	needRoot(t)
	for _, clean := range []bool{true, false} {
		root := scratch(t)
		b := build(t, layerOf(t, "a=b"))
		s, err := Open(root, withBoot("first"))
		if err != nil {
			t.Fatal(err)
		}
		load(t, s, b.tar(t, "app"))
		r, release := rootfs(t, s, b.manifest)
		release()
		torn := filepath.Join(r.Layers[0], "a")
		if err := os.Truncate(torn, 0); err != nil {
			t.Fatal(err)
		}
		if clean {
			err = s.Close()
		} else {
			err = s.db.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		s = open(t, root, withBoot("second"))
		check(t, s)
		_, release = rootfs(t, s, b.manifest)
		release()
		data, err := os.ReadFile(torn)
		if err != nil || (string(data) == "b") == clean {
			t.Errorf("clean stop %v: read %q, %v", clean, data, err)
		}
	}
}

func TestRootfs_MissingImage(t *testing.T) {
	s := open(t, scratch(t))
	if _, _, err := s.Rootfs(t.Context(), digest.FromString("x")); !errors.Is(err, ErrNotFound) {
		t.Errorf("Rootfs = %v, want ErrNotFound", err)
	}
}

func TestGC_IsPutOffWhileASessionIsOpen(t *testing.T) {
	root := scratch(t)
	s := open(t, root)
	end := s.sessions.begin()
	if _, err := s.blobs.Put(t.Context(), strings.NewReader("new"), "", 100); err != nil {
		t.Fatal(err)
	}
	if freed, err := s.GC(t.Context()); err != nil || !freed.Deferred || freed.Blobs != 0 {
		t.Errorf("GC = %+v, %v, want it deferred", freed, err)
	}
	if len(contents(t, root)) != 1 {
		t.Error("the new blob is gone")
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if left := contents(t, root); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
